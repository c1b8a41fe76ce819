"""What the least process of a start does; least.py describes each kind."""

# ruff: noqa: PLC0415  (what is loaded, and when, is the measurement)
from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in imds-detour: the module typing is costly to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.change import AddGuard

    Functions = dict[str, Callable[..., object]]

PR_CAPBSET_DROP, NET_ADMIN = 24, 12  # linux/prctl.h, linux/capability.h
FOREVER = float("inf")
"""How long to wait for another writer of the firewall, of which there is none."""
ADDRESS = "169.254.169.254"


def reach(what: str, name: str, port: int) -> None:
    """Do the work of this kind (a WHAT of least.py), with a mock of this name at this port."""
    firewall = what.removeprefix("promise by ")
    if what == "modules":
        _load_modules()
    elif what == firewall:
        _do_the_work_of_the_script(firewall, name, port)
    else:
        _load_what_pip_loads()
        _load_modules()
        _load_rest(firewall)
        _keep_the_promise(firewall, name, port)


def _load_what_pip_loads() -> None:
    """Import re and use it if the script that pip has written does, as before pip 25.2."""
    with open(f"{sys.prefix}/bin/imds-detour", "rb") as script:  # the bundle's is an ELF program
        uses_re = b"\nimport re\n" in script.read(200)
    if uses_re:
        import re

        re.sub(r"(-script\.pyw|\.exe)?$", "", "imds-detour")


def _load_modules() -> None:
    """Load the modules of a start by nftables; those named here bring the others with them."""
    from imds_detour import main, redirect, verify  # noqa: F401  (it is not used, here and below)
    from imds_detour.discovery import mock  # noqa: F401
    from imds_detour.firewall.nftables import backend  # noqa: F401
    from imds_detour.process import privileges  # noqa: F401
    from imds_detour.system import conntrack  # noqa: F401


def _load_rest(firewall: str) -> None:
    """Load the modules of a start by this firewall that its work below does not need."""
    from imds_detour.bootstrap import excepthook  # noqa: F401  (it is not used, here and below)
    from imds_detour.discovery.dns import lookup  # noqa: F401
    from imds_detour.process import environment  # noqa: F401

    if firewall == "python-iptables":
        from imds_detour.firewall.iptables import backend, helper, preflight  # noqa: F401


def _do_the_work_of_the_script(firewall: str, name: str, port: int) -> None:
    from ipaddress import ip_address

    from imds_detour.firewall.change import AddGuard

    functions = _functions(firewall)
    _work(name, port, [(functions, AddGuard((ip_address(ADDRESS),)))], _ask, lambda: None)


def _keep_the_promise(firewall: str, name: str, port: int) -> None:
    from imds_detour.config.presets import GUARDED_ADDRESSES, PRESETS
    from imds_detour.deadline import Deadline
    from imds_detour.discovery.probe import Question, identify
    from imds_detour.firewall.change import AddGuard, in_order

    functions = _functions(firewall)
    addresses = in_order(GUARDED_ADDRESSES)
    guards = [(functions, AddGuard(addresses))]
    if firewall == "python-iptables":  # nftables guards IPv6, as in a start
        parts = (tuple(address for address in addresses if address.version == version) for version in (4, 6))
        guards = list(zip((functions, _functions("nftables")), map(AddGuard, parts), strict=True))
    question = Question("aws", ADDRESS, PRESETS["aws"].proof)

    def read_back() -> None:
        for of, guard in guards:
            of["apply"](guard, FOREVER)  # it writes only what is missing
        assert functions["installed"]("nat")

    _work(name, port, guards, lambda endpoint: identify(endpoint, question, Deadline(2)).body, read_back)


def _functions(firewall: str) -> Functions:
    """Return the functions of a firewall by name: ``apply`` and ``installed``."""
    if firewall == "python-iptables":
        from imds_detour.firewall.iptables import worker

        return worker.load(4)
    from imds_detour.firewall.nftables.backend import NftFirewall

    nft = NftFirewall()
    return {"apply": nft.apply, "installed": nft.installed}


def _ask(endpoint: Endpoint) -> bytes:
    """Return the instance's id from a metadata service; empty if it answers otherwise."""
    import _socket as socket  # as imds-detour does

    connection = socket.socket(socket.AF_INET)
    connection.settimeout(2)
    connection.connect((str(endpoint.address), endpoint.port))
    connection.sendall(b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: imds\r\nConnection: close\r\n\r\n")
    head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    return body if head.split()[1] == b"200" else b""


def _work(
    name: str,
    port: int,
    guards: list[tuple[Functions, AddGuard]],
    ask: Callable[[Endpoint], bytes],
    read_back: Callable[[], None],
) -> None:
    """Guard, look the mock up, ask it, redirect, ask through the metadata address, compare, and drop NET_ADMIN.

    The first of the guard's firewalls redirects too.
    """
    import _socket as socket  # as imds-detour does
    import ctypes
    from ipaddress import ip_address

    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.change import SetRedirects
    from imds_detour.firewall.rules import COMMENT, Redirect

    for functions, guard in guards:
        functions["apply"](guard, FOREVER)
    host = name.encode()  # for a str, Python loads IDNA's tables
    found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    mock, metadata = Endpoint(ip_address(found[0][4][0]), port), Endpoint(ip_address(ADDRESS), 80)
    answer = ask(mock)
    guards[0][0]["apply"](SetRedirects(((Redirect(metadata, mock), COMMENT),)), FOREVER)
    read_back()
    if not answer or ask(metadata) != answer:
        sys.exit(f"{metadata} does not answer like {mock}")
    read_back()
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, NET_ADMIN, 0, 0, 0)
