"""The kubelet's HTTP probes of many pods: ``python tests/support/clients/kubelet.py PERIOD TIMEOUT LIMIT URL...``.

After a line of input, or its end, it asks each URL every PERIOD seconds, each in its own thread as the kubelet does,
until the answer is 200 to 399, or LIMIT seconds have passed. It prints a JSON object for each: the URL, whether it is
ready, after how many seconds, and the number of probes.
"""

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit


def meets(url: str, timeout: float) -> bool:
    """Return whether one probe succeeds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def probe(url: str, period: float, timeout: float, limit: float, began: float) -> None:
    """Probe until it succeeds, and print when."""
    probes = 1
    while not (ready := meets(url, timeout)) and time.monotonic() - began < limit:
        time.sleep(max(0.0, began + probes * period - time.monotonic()))
        probes += 1
    report = {"url": url, "ready": ready, "seconds": time.monotonic() - began, "probes": probes}
    sys.stdout.write(json.dumps(report) + "\n")  # in one call, so that threads' lines do not mix
    sys.stdout.flush()


def main() -> None:
    """Probe all of them at the same time."""
    period, timeout, limit = map(float, sys.argv[1:4])
    sys.stdin.readline()
    began = time.monotonic()
    for url in sys.argv[4:]:
        threading.Thread(target=probe, args=(url, period, timeout, limit, began)).start()


if __name__ == "__main__":
    main()
