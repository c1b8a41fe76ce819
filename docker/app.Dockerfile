# The example app, pip route: two stages to copy into your own Dockerfile; your app goes where curl stands.
# Build context: the root of this repository. BASE: any Debian or Ubuntu image with a python3 of 3.11 or later.
#
#     docker build -f docker/app.Dockerfile -t ec2-metadata-debug .
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

# iptables: not for its command but for libip4tc, libip6tc, libxtables and the extensions in /usr/lib/*/xtables,
# which python-iptables loads. The links put the two commands on PATH and leave your app's own python3 first there.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends curl iptables \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /opt/imds-detour/bin/imds-detour /opt/imds-detour/bin/imds-detourctl /usr/local/bin/

COPY --from=build /opt/imds-detour /opt/imds-detour

ENTRYPOINT ["imds-detour"]
CMD ["sleep", "3600"]
