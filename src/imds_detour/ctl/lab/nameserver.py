"""A small DNS server for the demo and the tests: real datagrams and streams, answers from a function."""

import selectors
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Answer: TypeAlias = Callable[[dns.message.QueryMessage, str], bytes | None]


def serve(address: str, answer: Answer, *, port: int = 53) -> None:
    """Answer questions over UDP and TCP until the process ends; write ``ready`` to stdout when it listens.

    ``answer`` takes the question and ``udp`` or ``tcp``, and returns the bytes of the reply, or None to stay silent.
    """
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, port))
    streams = socket.create_server((address, port))
    with selectors.DefaultSelector() as ready:
        ready.register(datagrams, selectors.EVENT_READ, _answer_datagram)
        ready.register(streams, selectors.EVENT_READ, _answer_stream)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in ready.select():
                key.data(key.fileobj, answer)


def _answer_datagram(datagrams: socket.socket, answer: Answer) -> None:
    wire, sender = datagrams.recvfrom(65_535)
    if reply := answer(_question(wire), "udp"):
        datagrams.sendto(reply, sender)


def _answer_stream(streams: socket.socket, answer: Answer) -> None:
    connection, _ = streams.accept()
    with connection:
        connection.settimeout(2)
        try:
            (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
            if reply := answer(_question(connection.recv(length, socket.MSG_WAITALL)), "tcp"):
                connection.sendall(struct.pack("!H", len(reply)) + reply)
        except (OSError, struct.error):
            return  # the client has left


def _question(wire: bytes) -> dns.message.QueryMessage:
    message = dns.message.from_wire(wire)
    assert isinstance(message, dns.message.QueryMessage)  # noqa: S101  (the clients here send nothing else)
    return message


def addresses(question: dns.message.QueryMessage, name: str, known: Sequence[str], *, ttl: int = 1) -> bytes:
    """Reply with the addresses of ``name`` of the type asked for, for ``ttl`` seconds; NXDOMAIN for other names."""
    asked = question.question[0]
    if asked.name != dns.name.from_text(name):
        return refusal(question, "NXDOMAIN")
    reply = dns.message.make_response(question)
    kind = dns.rdatatype.to_text(asked.rdtype)
    records = [address for address in known if kind == ("AAAA" if ":" in address else "A")]
    if records:
        reply.answer.append(dns.rrset.from_text(asked.name, ttl, "IN", kind, *records))
    return reply.to_wire()


def refusal(question: dns.message.QueryMessage, rcode: str) -> bytes:
    """Reply with an error: ``NXDOMAIN``, ``SERVFAIL``, ``REFUSED``."""
    reply = dns.message.make_response(question)
    reply.set_rcode(dns.rcode.from_text(rcode))
    return reply.to_wire()
