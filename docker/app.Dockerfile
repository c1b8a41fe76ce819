# The end of your app's Dockerfile: one COPY line, and the entrypoint. Any image works: Debian, Alpine, distroless,
# scratch. The app image needs no Python, shell, dig or iptables. `make images` builds imds-detour, which the line
# copies from. A release is ghcr.io/example__owner/imds-detour:0.1.0.
#
#     docker build -f docker/app.Dockerfile -t my-app .
#     docker run -e MOCK_HOSTNAME=mock_metadata -e MOCK_PORT=1338 --cap-drop NET_RAW --cap-add NET_ADMIN \
#         --network my-network my-app
ARG IMDS_DETOUR=imds-detour
ARG BASE=docker.io/library/buildpack-deps:bookworm-curl

FROM ${IMDS_DETOUR} AS imds-detour

FROM ${BASE}

COPY --from=imds-detour /opt/imds-detour /opt/imds-detour
ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]

CMD ["sleep", "3600"]
