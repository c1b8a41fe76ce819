"""The table of settings, which --help, the README and errors are made from."""

from __future__ import annotations

from imds_detour.value import Value


class Variable(Value):
    """One setting."""

    name: str  # the environment variable
    default: str  # its value when it is unset, as text; empty without a default
    meaning: str  # one line for ``--help`` and the README
    allowed: str  # its values, as an error message lists them


VARIABLES = (
    Variable(
        "MOCK_HOSTNAME",
        default="",
        meaning="where the mock is: name, name:port, IPv4[:port] or [IPv6]:port (required)",
        allowed="a host name, name:port, IPv4, IPv4:port, IPv6 or [IPv6]:port",
    ),
    Variable(
        "MOCK_PORT",
        default="80",
        meaning="its port when MOCK_HOSTNAME carries none (amazon-ec2-metadata-mock: 1338)",
        allowed="1 to 65535",
    ),
    Variable(
        "MOCK_ENDPOINTS",
        default="aws",
        meaning="services to redirect, each with a mock if it is another one: aws,gcp,ecs=creds:80",
        allowed="aws, ecs, eks, gcp, azure, oci, alibaba, digitalocean, hetzner, scaleway, akamai, openstack, ibm,"
        " IP:PORT, with commas between, each perhaps with =MOCK[:PORT]",
    ),
    Variable(
        "MOCK_TIMEOUT",
        default="30",
        meaning="total timeout in seconds; 0 means no limit",
        allowed="0 to 86400 seconds, such as 30 or 2.5",
    ),
    Variable(
        "MOCK_BACKEND",
        default="auto",
        meaning="how to redirect: legacy (iptables), nft, auto (whichever works), env (SDK variables only)",
        allowed="auto, legacy, nft, env",
    ),
    Variable(
        "MOCK_PROBE",
        default="on",
        meaning="prove that the mock answers: on, off, or a path to GET instead of the instance id",
        allowed="on, off, or a path that starts with /",
    ),
    Variable(
        "MOCK_GUARD",
        default="on",
        meaning="reject what is sent to the metadata addresses and not redirected: on or off",
        allowed="on, off",
    ),
    Variable(
        "MOCK_USER",
        default="",
        meaning="run the app as this user: user, uid, user:group or uid:gid, as Dockerfile's USER",
        allowed="user, uid, user:group or uid:gid",
    ),
    Variable(
        "MOCK_KEEP_NET_ADMIN",
        default="0",
        meaning="leave the NET_ADMIN capability to the app: 0 or 1",
        allowed="0, 1",
    ),
    Variable(
        "MOCK_NO_PROXY",
        default="extend",
        meaning="extend NO_PROXY by the metadata addresses where a proxy is set, or keep it as it is",
        allowed="extend, keep",
    ),
    Variable(
        "MOCK_LOG",
        default="text",
        meaning="lines on stderr: text, json, quiet or debug",
        allowed="text, json, quiet, debug",
    ),
)

BY_NAME = {variable.name: variable for variable in VARIABLES}
