"""Ask the DNS servers of /etc/resolv.conf as imds-detour does: ``python tests/support/clients/ask_dns.py NAME``.

Each line of input is a timeout in seconds. The answer is a line of JSON with the result, the seconds, and the peak of
memory in bytes.
"""

import json
import sys
import time
import tracemalloc

from imds_detour.deadline import Deadline
from imds_detour.discovery.dns import nameservers
from imds_detour.errors import DetourError


def main() -> None:
    """Ask until the input ends."""
    for line in sys.stdin:
        tracemalloc.start()
        began = time.monotonic()
        said: dict[str, object]
        try:
            answer = nameservers.ask(sys.argv[1], Deadline(float(line)), lambda _said: None)
            said = {"addresses": [str(address) for address in answer.addresses]}
        except DetourError as error:
            said = {"error": str(error)}
        except BaseException as fault:  # an unexpected error is the result
            said = {"fault": repr(fault)}
        seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        sys.stdout.write(json.dumps({**said, "seconds": seconds, "peak": peak}) + "\n")
        sys.stdout.flush()


main()
