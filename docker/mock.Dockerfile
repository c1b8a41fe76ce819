# The development mock of imds-detour, in place of the Amazon EC2 Metadata Mock: the same port, no download.
# Build context: the root of this repository. The build stage is that of app.Dockerfile: the two share its cache.
#
#     docker build -f docker/mock.Dockerfile -t imds-detour-mock .
#     MOCK_IMAGE=imds-detour-mock docker-compose up
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS build

# python-iptables has no wheel: its C wrapper is compiled here, and the compiler stays here. Debian keeps venv in a
# package of its own; where python3 is Debian's, it is needed too.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && if [ -x /usr/bin/python3 ]; then apt-get install -y --no-install-recommends python3-venv; fi \
 && rm -rf /var/lib/apt/lists/*

# pip runs from a virtualenv that is left behind, so that the one to keep holds neither pip nor setuptools.
RUN python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/imds-detour

WORKDIR /src
COPY pyproject.toml README.md ./
COPY src ./src
RUN /opt/pip/bin/pip --python /opt/imds-detour/bin/python3 install --no-cache-dir .


FROM ${BASE}

# No iptables: the mock redirects nothing, and needs neither root nor any capability.
COPY --from=build /opt/imds-detour /opt/imds-detour
ENV PATH=/opt/imds-detour/bin:${PATH}

# Numeric, so that Kubernetes' runAsNonRoot can tell; 65534 is nobody.
USER 65534:65534
EXPOSE 1338
ENTRYPOINT ["imds-detourctl", "mock"]
