"""The least that a start costs: ``least.py WHAT LIB NAME PORT APP...``, run by the interpreter of pip or of the bundle.

LIB is the folder of the bundle's modules, and empty for pip. WHAT is one of these:

- ``interpreter``: start the app at once.
- ``modules``: load most of what a start by nftables loads, and use nothing of it.
- ``python-iptables``, ``nftables``: do the work of samework.sh with that firewall in one process. There are no
  settings, no deadlines, no messages and no session token, one address is guarded instead of 12, an answer is compared
  once, and a library that ends or disturbs its process ends the start. Rules are written by imds-detour's own code,
  which reads them back; the script does not.
- ``promise by python-iptables``, ``promise by nftables``: load the modules of a start with that firewall, and do what
  is promised: guard all addresses, ask with a session token, and read guard and redirect back before the proof and
  before the app. For pip, load what its script loads, too. The rest is missing as above.

One process does one thing after another. A start by legacy iptables has two, which overlap by the clock and cost more
processor time.
"""

import os
import sys

WHAT, LIBRARY, NAME, PORT, *APP = sys.argv[1:]
GC_THRESHOLD = 100_000  # that of imds-detour

if WHAT != "interpreter":
    import gc

    gc.set_threshold(GC_THRESHOLD)
    sys.path[:] = [*([LIBRARY] if LIBRARY else sys.path[1:]), os.path.dirname(os.path.dirname(__file__))]
    from bench import floors  # a module, so that it is compiled once

    floors.reach(WHAT, NAME, int(PORT))
os.execv(APP[0], APP)  # noqa: S606  (no shell is the point)
