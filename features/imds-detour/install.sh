#!/bin/sh
# Unpack the bundle into /opt/imds-detour, when the dev container's image is built. It needs tar and gzip.
# The archive of `make bundle` is in this folder as imds-detour-MACHINE.tar.gz (docs/ci.md).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
archive=$here/imds-detour-$(uname -m).tar.gz
fail() { echo "imds-detour: $*" >&2; exit 1; }

[ -e "$archive" ] || fail "${archive##*/} is not in the Feature's folder: copy it there from \`make bundle\` (docs/ci.md)"
for tool in tar gzip; do
    command -v $tool >/dev/null || fail "the image has no $tool: install it before this Feature"
done
mkdir -p /opt /usr/local/share/imds-detour
tar -xzf "$archive" -C /opt
cp "$here/start" /usr/local/share/imds-detour/start
chmod 755 /usr/local/share/imds-detour/start
# The tool has made variables of the options. Values come from devcontainer.json, so they are quoted.
quoted() { printf "%s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")"; }
{ quoted mock "${MOCK:-}"; quoted endpoints "${ENDPOINTS:-aws}"; } >/usr/local/share/imds-detour/settings
