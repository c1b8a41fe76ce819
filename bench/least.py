"""The minimum of a start by python-iptables: load it and install the rules, without looking for a mock.

Run by the bundle's interpreter: ``python -I -S least.py LIB MOCK PORT APP...``, where LIB has the bundle's modules. It
shows how much of a start is neither waiting nor verifying.
"""

import gc
import os
import sys

LIBRARY, MOCK, PORT, *APP = sys.argv[1:]
sys.path[:] = [LIBRARY]

from ipaddress import ip_address  # noqa: E402  (from the bundle: sys.path is set above)

from imds_detour.endpoint import Endpoint  # noqa: E402  (as above)
from imds_detour.firewall.change import AddGuard, SetRedirects  # noqa: E402  (as above)
from imds_detour.firewall.iptables import worker  # noqa: E402  (as above)
from imds_detour.firewall.rules import COMMENT, Redirect  # noqa: E402  (as above)
from imds_detour.process import handover  # noqa: E402  (as above)

gc.set_threshold(handover.GC_THRESHOLD)
metadata = Endpoint(ip_address("169.254.169.254"), 80)
apply = worker.load(4)["apply"]
apply(AddGuard((metadata.address,)), 4.0)
apply(SetRedirects(((Redirect(metadata, Endpoint(ip_address(MOCK), int(PORT))), COMMENT),)), 4.0)
os.execv(APP[0], APP)  # noqa: S606  (no shell is the point)
