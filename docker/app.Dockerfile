# The end of your app's Dockerfile: one COPY line, and the entrypoint. Any image works: Debian, Alpine, distroless,
# scratch. The app image needs no Python, shell, dig or iptables. `make images` builds imds-detour, which the line
# copies from.
#
#     docker build -f docker/app.Dockerfile -t my-app .
#     docker run -e MOCK_HOSTNAME=mock_metadata -e MOCK_PORT=1338 --cap-drop NET_RAW --cap-add NET_ADMIN \
#         --network my-network my-app
ARG BASE=buildpack-deps:bookworm-curl
FROM ${BASE}

# hadolint ignore=DL3022
COPY --from=imds-detour /opt/imds-detour /opt/imds-detour
ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]

CMD ["sleep", "3600"]
