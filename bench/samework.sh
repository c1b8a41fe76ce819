#!/bin/bash
# The script that imds-detour is compared with: the same work as a start. It looks the mock up, guards the metadata address with two rules,
# asks the mock, redirects, asks through the address, compares, and starts the app without NET_ADMIN. It asks once, without a
# session token, and waits for nothing. IPTABLES names the command, because `iptables` is legacy on some distributions only.
# IP6TABLES: guard the IPv6 address too. LOOKUP=getent: the cheaper look-up, which does not exist in every image.
set -eu
: "${MOCK_HOSTNAME:?must be set}"
metadata=169.254.169.254
iptables=${IPTABLES:-iptables}

ask() { curl --silent --fail --max-time 2 "http://$1/latest/meta-data/instance-id"; }

if [ "${LOOKUP-}" = getent ]; then
    mock=$(getent ahostsv4 "$MOCK_HOSTNAME")
    mock=${mock%% *}:${MOCK_PORT:-80}
else
    mock=$(dig +short "$MOCK_HOSTNAME"):${MOCK_PORT:-80}
fi
"$iptables" -A OUTPUT -d $metadata -p tcp -j REJECT --reject-with tcp-reset
"$iptables" -A OUTPUT -d $metadata -j REJECT
if [ -n "${IP6TABLES-}" ]; then
    "$IP6TABLES" -A OUTPUT -d fd00:ec2::254 -p tcp -j REJECT --reject-with tcp-reset
    "$IP6TABLES" -A OUTPUT -d fd00:ec2::254 -j REJECT
fi
answer=$(ask "$mock")
"$iptables" -t nat -A OUTPUT -d $metadata -p tcp --dport 80 -j DNAT --to-destination "$mock"
redirected=$(ask $metadata)
if [ "$answer" != "$redirected" ]; then
    echo "$metadata answers '$redirected', and $mock '$answer'" >&2
    exit 1
fi
echo "$metadata -> $mock: $answer" >&2
exec setpriv --bounding-set -net_admin --inh-caps -net_admin --ambient-caps -net_admin "$@"
