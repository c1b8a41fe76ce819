"""The table of settings for --help, the README and errors."""

from __future__ import annotations

from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Variable(Value):
    """One setting."""

    name: str  # the environment variable
    default: str  # empty without a default
    meaning: str  # a line for ``--help`` and the README
    allowed: str  # the allowed values, for errors


VARIABLES = (
    Variable(
        "MOCK_HOSTNAME",
        "",
        "address of the mock: name, name:port, IPv4[:port] or [IPv6]:port (required)",
        "a host name, name:port, IPv4, IPv4:port, IPv6 or [IPv6]:port",
    ),
    Variable(
        "MOCK_PORT", "80", "port of the mock if MOCK_HOSTNAME has none (amazon-ec2-metadata-mock: 1338)", "1 to 65535"
    ),
    Variable(
        "MOCK_ENDPOINTS",
        "aws",
        "services to redirect, with =MOCK for another mock: aws,gcp,ecs=creds:80",
        "aws, ecs, eks, gcp, azure, oci, alibaba, digitalocean, hetzner, scaleway, akamai, openstack, ibm,"
        " IP:PORT; separate them by commas; each may have =MOCK[:PORT]",
    ),
    Variable(
        "MOCK_TIMEOUT", "30", "total timeout in seconds; 0 means no limit", "0 to 86400 seconds, such as 30 or 2.5"
    ),
    Variable(
        "MOCK_BACKEND",
        "auto",
        "redirect by legacy (iptables), nft, auto (the one that works), env (SDK variables only)",
        "auto, legacy, nft, env",
    ),
    Variable(
        "MOCK_PROBE",
        "on",
        "prove that the mock answers: on, off, or a path to GET instead of the instance id",
        "on, off, or a path that starts with /",
    ),
    Variable(
        "MOCK_GUARD",
        "on",
        "reject traffic to metadata addresses that is not redirected: on (all), chosen, off",
        "on, chosen, off",
    ),
    Variable(
        "MOCK_USER",
        "",
        "run the app as this user: user, uid, user:group or uid:gid, like USER in a Dockerfile",
        "user, uid, user:group or uid:gid",
    ),
    Variable("MOCK_KEEP_NET_ADMIN", "0", "let the app keep the NET_ADMIN capability: 0 or 1", "0, 1"),
    Variable(
        "MOCK_NO_PROXY",
        "extend",
        "extend NO_PROXY by the metadata addresses if a proxy is set, or keep it: extend or keep",
        "extend, keep",
    ),
    Variable("MOCK_LOG", "text", "log format on stderr: text, json, quiet or debug", "text, json, quiet, debug"),
)

BY_NAME = {variable.name: variable for variable in VARIABLES}

SAME = (("1", "on", "true", "yes"), ("0", "off", "false", "no"), ("nft", "nftables"), ("aws", "ec2"), ("gcp", "google"))
"""Words with one meaning."""


def known(text: str, values: Iterable[str]) -> str | None:
    """Return the value that a word in upper or lower case means, None if it means none of them."""
    word = text.lower()
    words = next((same for same in SAME if word in same), (word,))
    return next((value for value in values if value in words), None)
