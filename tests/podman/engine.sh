#!/bin/sh
# The first process of the namespaces in which the Podman tests run: engine.sh UID. They have no way to any other network.
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
for range in 169.254.0.0/16 100.100.100.200/32; do ip route add unreachable "$range"; done
# A user for rootless Podman, with subordinate ids, in copies of this machine's files.
mkdir -p /run/etc "/run/user/$1"
cp /etc/passwd /etc/group /run/etc/
echo "podman-test:x:$1:$1::/run/user/$1:/bin/sh" >>/run/etc/passwd
echo "podman-test:x:$1:" >>/run/etc/group
echo "podman-test:200000:65536" >/run/etc/subuid
cp /run/etc/subuid /run/etc/subgid
for file in passwd group subuid subgid; do
    [ -e "/etc/$file" ] || : >"/etc/$file"
    mount --bind "/run/etc/$file" "/etc/$file"
done
chown "$1:$1" "/run/user/$1"
chmod 700 "/run/user/$1"
# slirp4netns of a rootless engine opens it as the user.
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
echo ready
exec sleep infinity
