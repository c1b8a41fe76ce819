# moto's server and boto3, as motoserver/moto has them, for tests that cannot pull it: Debian's Python and PyPI.
ARG BASE=imds-detour-test/debian
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3013
RUN python3 -m venv /opt/moto \
 && /opt/moto/bin/pip install --no-cache-dir 'moto[server]' boto3

ENV PATH=/opt/moto/bin:${PATH}
EXPOSE 5000
CMD ["moto_server", "--host", "0.0.0.0", "--port", "5000"]
