"""Read the instance id as a client does: get.py [ADDRESS [PORT]] prints it, "refused" or "timed out"."""

import socket
import sys


def main() -> None:
    """Ask the service of the command line."""
    address, port = (*sys.argv[1:], *("169.254.169.254", "80")[len(sys.argv) - 1 :])
    try:
        with socket.create_connection((address, int(port)), timeout=4) as connection:
            connection.sendall(b"GET /latest/meta-data/instance-id HTTP/1.0\r\nHost: x\r\n\r\n")
            text = connection.makefile("rb").read().decode().rpartition("\r\n\r\n")[2]
    except ConnectionRefusedError:
        text = "refused"
    except TimeoutError:
        text = "timed out"
    sys.stdout.write(f"{text}\n")


main()
