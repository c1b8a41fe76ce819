#!/bin/sh
# Make the base image that the Docker tests build on, without pulling any image: Debian with python3, from the same
# package sources as this machine, with this machine's CA certificates and what apt and pip need to reach their
# registries. For tests only. Needs root, mmdebstrap and a running Docker engine.
#
#     scripts/test-base-image.sh [IMAGE]      # default: imds-detour-test/base:bookworm
#     docker build --network host --build-arg BASE=IMAGE -f docker/app.Dockerfile .
set -eu

image=${1:-imds-detour-test/base:bookworm}
suite=bookworm
ca=/etc/ssl/certs/ca-certificates.crt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc/ssl/certs" "$work/etc/apt/apt.conf.d" "$work/etc/apt/sources.list.d"

# apt: this machine's Debian entries, not those of other vendors. mmdebstrap reads either format.
set --
for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.*; do
    if [ -s "$list" ]; then
        set -- "$@" "$list"
    fi
done
apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::(Check-(Valid-Until|Date)|https?::Proxy) "..*";$' \
    >"$work/apt.conf" || true
{
    cat "$work/apt.conf"
    # As in the official Debian images: apt leaves neither packages nor caches behind in a layer.
    echo 'APT::Keep-Downloaded-Packages "false";'
    echo 'Dir::Cache::pkgcache "";'
    echo 'Dir::Cache::srcpkgcache "";'
} >"$work/etc/apt/apt.conf.d/90test-base"

# pip: the certificates, and an index other than the default if this machine is set to one.
cp "$ca" "$work$ca"
{
    echo '[global]'
    echo "cert = $ca"
    for key in index-url trusted-host proxy; do
        if value=$(python3 -m pip config get "global.$key" 2>/dev/null); then
            echo "$key = $value"
        fi
    done
} >"$work/etc/pip.conf"

# $1 is the hook's own: the root of the new system.
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --include=usr-is-merged,python3,ca-certificates \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --aptopt="$work/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="sync-in '$work/etc' /etc" \
    --customize-hook='rm -f "$1"/var/cache/apt/*.bin' \
    "$suite" "$work/base.tar" "$@" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}

docker import --change 'CMD ["bash"]' "$work/base.tar" "$image"
