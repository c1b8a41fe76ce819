"""The least that a start costs: ``least.py WHAT LIB MOCK PORT APP...``, run by the interpreter of pip or of the bundle.

LIB is the folder of the bundle's modules, and empty for pip. WHAT is ``interpreter``: start the app at once;
``modules``: load what a start by nftables loads, and use nothing of it; ``python-iptables``: load it and install the
rules, without looking for a mock. They show how much of a start is neither waiting nor verifying.
"""

import os
import sys

WHAT, LIBRARY, MOCK, PORT, *APP = sys.argv[1:]
if LIBRARY:
    sys.path[:] = [LIBRARY]

if WHAT != "interpreter":
    import gc

    from imds_detour.process import handover

    gc.set_threshold(handover.GC_THRESHOLD)

if WHAT == "modules":  # those that bring the others with them
    from imds_detour import main, redirect, verify  # noqa: F401  (loading is the measurement, here and below)
    from imds_detour.discovery import mock  # noqa: F401
    from imds_detour.firewall.nftables import backend  # noqa: F401
    from imds_detour.process import privileges  # noqa: F401
    from imds_detour.system import conntrack  # noqa: F401

if WHAT == "python-iptables":
    from ipaddress import ip_address

    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.change import AddGuard, SetRedirects
    from imds_detour.firewall.iptables import worker
    from imds_detour.firewall.rules import COMMENT, Redirect

    metadata = Endpoint(ip_address("169.254.169.254"), 80)
    apply = worker.load(4)["apply"]
    apply(AddGuard((metadata.address,)), 4.0)
    apply(SetRedirects(((Redirect(metadata, Endpoint(ip_address(MOCK), int(PORT))), COMMENT),)), 4.0)

os.execv(APP[0], APP)  # noqa: S606  (no shell is the point)
