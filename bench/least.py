"""The least that a start by python-iptables can take: load it and put the rules there. No mock is looked for or asked.

Run by the bundle's interpreter: ``python -I -S least.py LIB MOCK PORT APP...``, where LIB holds the bundle's modules.
It is no wrapper: what it shows is how much of a start is neither the waiting nor the verifying.
"""

import os
import sys

LIBRARY, MOCK, PORT, *APP = sys.argv[1:]
sys.path[:] = [LIBRARY]

from imds_detour import bundled  # noqa: E402  (not before sys.path leads to it)

sys.meta_path.insert(-1, bundled.Bundled(LIBRARY))

from ipaddress import ip_address  # noqa: E402  (found by what the line above puts in)

from imds_detour import handover  # noqa: E402  (as above)
from imds_detour.backends import legacy_child  # noqa: E402  (as above)
from imds_detour.endpoints import Endpoint  # noqa: E402  (as above)
from imds_detour.rules import LEGACY, Redirect, guard, redirects  # noqa: E402  (as above)

handover.tidy_up_later()
metadata = Endpoint(ip_address("169.254.169.254"), 80)
apply = legacy_child.load(4)["apply"]
apply("filter", guard((metadata.address,), LEGACY), 4.0)
apply("nat", redirects([Redirect(metadata, Endpoint(ip_address(MOCK), int(PORT)))], LEGACY), 4.0)
os.execv(APP[0], APP)  # noqa: S606  (no shell is the point)
