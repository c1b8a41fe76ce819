"""A packet capture: ``python capture.py DEVICE ADDRESS`` counts what comes in there for the address.

For each line on its input it prints the packets so far as JSON: ``tcp``, ``udp``, ``icmp``, ``other``, ``arp`` (a
question for the address), and ``lost`` (seen, but too many to be kept).
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
from collections import Counter
from ipaddress import IPv6Address, ip_address

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 3, 0x800, 0x806, 0x86DD  # linux/if_ether.h
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
PROTOCOLS = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp"}
# linux/bpf_common.h: BPF_LD | BPF_W or BPF_H | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_RET
WORD, HALF, EQUAL, RETURN = 0x20, 0x28, 0x15, 0x06


def wanted(address: str) -> list[tuple[int, int, int, int]]:
    """Return a filter that keeps what goes to the address, and ARP questions for it: code, jumps if and else, value.

    The kernel filters, so that a mock's traffic at the same device cannot fill the buffer.
    """
    packed = ip_address(address)
    words = struct.unpack(f"!{len(packed.packed) // 4}I", packed.packed)
    if isinstance(packed, IPv6Address):
        checks = [(ETH_P_IPV6, 38, words)]
    else:
        checks = [(ETH_P_IP, 30, words), (ETH_P_ARP, 38, words)]
    program: list[tuple[int, int, int, int]] = []
    for kind, offset, expected in checks:
        body: list[tuple[int, int, int, int]] = []
        for position, word in enumerate(expected):
            body.append((WORD, 0, 0, offset + 4 * position))
            body.append((EQUAL, 0, 2 * (len(expected) - position) - 1, word))  # else: over what is left, to the refusal
        body += [(RETURN, 0, 0, 65535), (RETURN, 0, 0, 0)]
        program += [(HALF, 0, 0, 12), (EQUAL, 0, len(body), kind), *body]
    return [*program, (RETURN, 0, 0, 0)]


def attach(capture: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Give a socket its filter (struct sock_fprog)."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    capture.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def kind_of(frame: bytes) -> str:
    """Say what an Ethernet frame carries."""
    kind, protocol = int.from_bytes(frame[12:14], "big"), {ETH_P_IP: 23, ETH_P_IPV6: 20}
    return "arp" if kind == ETH_P_ARP else PROTOCOLS.get(frame[protocol[kind]], "other")


def main() -> None:
    """Count until the input ends."""
    device, address = sys.argv[1:]
    seen = Counter({"tcp": 0, "udp": 0, "icmp": 0, "other": 0, "arp": 0, "lost": 0})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as capture:  # 0: nothing, until it is bound
        attach(capture, wanted(address))
        capture.bind((device, ETH_P_ALL))
        capture.setblocking(False)
        print("watching", flush=True)  # noqa: T201  (a program)
        for _ in sys.stdin:
            while True:
                try:
                    seen[kind_of(capture.recv(65536))] += 1
                except BlockingIOError:
                    break
            _, lost = struct.unpack("II", capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))  # and begins anew
            seen["lost"] += lost
            print(json.dumps(seen), flush=True)  # noqa: T201  (as above)


if __name__ == "__main__":
    main()
