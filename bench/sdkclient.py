"""Request a session token and then a value, like an SDK: ``python bench/sdkclient.py ADDRESS PORT keep|connect COUNT``.

It prints the nanoseconds of COUNT requests, and those of processor time before the first one.
"""

from __future__ import annotations

import http.client
import sys
import time

TOKEN, VALUE = "/latest/api/token", "/latest/meta-data/iam/security-credentials/"


def ask(address: str, port: int, count: int, *, keep: bool) -> None:
    """Send the given number of requests, over one connection or one connection each."""
    connection: http.client.HTTPConnection | None = None
    token = ""
    for number in range(count):
        connection = connection or http.client.HTTPConnection(address, port, timeout=5)
        if number % 2 == 0:
            connection.request("PUT", TOKEN, headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
            token = connection.getresponse().read().decode()
        else:
            connection.request("GET", VALUE, headers={"X-aws-ec2-metadata-token": token})
            reply = connection.getresponse()
            assert reply.status == 200, reply.status
            reply.read()
        if not keep:
            connection.close()
            connection = None


if __name__ == "__main__":
    where, keeps = (sys.argv[1], int(sys.argv[2])), sys.argv[3] == "keep"
    ask(*where, 20, keep=keeps)
    before, began = time.process_time_ns(), time.monotonic_ns()
    ask(*where, int(sys.argv[4]), keep=keeps)
    sys.stdout.write(f"{time.monotonic_ns() - began} {before}\n")
