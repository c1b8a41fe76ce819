"""The least that a start costs: ``least.py WHAT LIB NAME PORT APP...``, run by the interpreter of pip or of the bundle.

LIB is the folder of the bundle's modules, and empty for pip. WHAT is one of these:

- ``interpreter``: start the app at once.
- ``modules``: load what a start by nftables loads, and use nothing of it.
- ``python-iptables``, ``nftables``: do the work of samework.sh with that firewall in one process. There are no
  settings, no deadlines, no messages and no session token, one address is guarded instead of 12, an answer is compared
  once, and a library that ends or disturbs its process ends the start. Rules are written by imds-detour's own code,
  which reads them back; the script does not.

So the last two are the floor of a start with that firewall that does not trust a write.
"""

# ruff: noqa: PLC0415  (what is loaded, and when, is the measurement)
import os
import sys

WHAT, LIBRARY, NAME, PORT, *APP = sys.argv[1:]
GC_THRESHOLD = 100_000  # that of imds-detour
PR_CAPBSET_DROP, NET_ADMIN = 24, 12  # linux/prctl.h, linux/capability.h


def load_modules() -> None:
    """Load the modules of a start by nftables; those named here bring the others with them."""
    from imds_detour import main, redirect, verify  # noqa: F401  (it is not used, here and below)
    from imds_detour.discovery import mock  # noqa: F401
    from imds_detour.firewall.nftables import backend  # noqa: F401
    from imds_detour.process import privileges  # noqa: F401
    from imds_detour.system import conntrack  # noqa: F401


def do_the_work() -> None:
    """Guard, look the mock up, ask it, redirect, ask through the metadata address, compare, and drop NET_ADMIN."""
    import _socket as socket  # as imds-detour does
    import ctypes
    from ipaddress import ip_address

    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.change import AddGuard, SetRedirects
    from imds_detour.firewall.rules import COMMENT, Redirect

    if WHAT == "python-iptables":
        from imds_detour.firewall.iptables import worker

        apply, wait = worker.load(4)["apply"], float("inf")
    else:
        from imds_detour.firewall.nftables.backend import NftFirewall

        apply, wait = NftFirewall().apply, 4.0

    def ask(endpoint: Endpoint) -> bytes:
        connection = socket.socket(socket.AF_INET)
        connection.settimeout(2)
        connection.connect((str(endpoint.address), endpoint.port))
        connection.sendall(b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: imds\r\nConnection: close\r\n\r\n")
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
        return body if head.split()[1] == b"200" else b""

    metadata = Endpoint(ip_address("169.254.169.254"), 80)
    apply(AddGuard((metadata.address,)), wait)
    found = socket.getaddrinfo(NAME, int(PORT), socket.AF_INET, socket.SOCK_STREAM)
    mock = Endpoint(ip_address(found[0][4][0]), int(PORT))
    answer = ask(mock)
    apply(SetRedirects(((Redirect(metadata, mock), COMMENT),)), wait)
    if not answer or ask(metadata) != answer:
        sys.exit(f"{metadata} does not answer like {mock}")
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, NET_ADMIN, 0, 0, 0)


if LIBRARY:
    sys.path[:] = [LIBRARY]
if WHAT != "interpreter":
    import gc

    gc.set_threshold(GC_THRESHOLD)
    load_modules() if WHAT == "modules" else do_the_work()
os.execv(APP[0], APP)  # noqa: S606  (no shell is the point)
