"""Discovery: any reply over HTTP, the identity of the service, and the DNS servers in a container's resolv.conf."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.discovery.dns.resolv_conf import find_server
from imds_detour.discovery.http import GarbageError, Reply, parse, request
from imds_detour.discovery.probe import Identity

LINES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 404", b"HTTP/1.1 204 No Content", b"HTTP/1.1 99 Low", b"HTTP/2 200"),
        *(b"Content-Length: 5", b"Content-Length: +5", b"content-length:99999999999999999999"),
        *(b"Transfer-Encoding: chunked", b"Location: /\xff", b"5;x=y", b"0", b"hello", b"ffffffffff", b""),
    ]
)
WIRE = st.one_of(
    st.binary(max_size=200),
    st.lists(LINES, max_size=12).map(b"\r\n".join),
    st.tuples(st.lists(LINES, max_size=8).map(b"\r\n".join), st.binary(max_size=20)).map(b"".join),
)


@given(WIRE, st.booleans())
def test_parse_accepts_any_bytes(data: bytes, ended: bool) -> None:
    """Any bytes give a Reply, None or GarbageError, and never None after the end of the connection."""
    try:
        reply = parse(data, ended=ended)
    except GarbageError:
        return
    if reply is None:
        assert not ended
    else:
        assert 200 <= reply.status <= 999
        assert len(reply.body) <= len(data)


@given(WIRE, st.data())
def test_parse_is_stable_for_prefixes(data: bytes, draw: st.DataObject) -> None:
    """A prefix that is a reply stays that reply with more bytes, and a prefix that is garbage stays garbage."""
    prefix = data[: draw.draw(st.integers(0, len(data)))]
    try:
        early = parse(prefix, ended=False)
    except GarbageError:
        with pytest.raises(GarbageError):
            parse(data, ended=False)
        return
    if early is not None:
        assert parse(data, ended=False) == early


@given(st.integers(200, 999), st.binary(max_size=300), st.sampled_from(["length", "chunks", "end"]), st.data())
def test_parse_returns_the_complete_body(status: int, body: bytes, framing: str, draw: st.DataObject) -> None:
    """With each framing the body is returned unchanged, and only after its last byte."""
    bodiless = status in (204, 304)
    head = b"HTTP/1.1 %d Some Reason\r\n" % status
    match framing:
        case "length":
            wire = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        case "chunks":
            cut = draw.draw(st.integers(0, len(body)))
            chunks = b"".join(b"%X\r\n%s\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
            wire = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        case _:
            wire = head + b"\r\n" + body
    reply = parse(wire, ended=True)
    assert reply is not None
    assert (reply.status, reply.body) == (status, b"" if bodiless else body)
    # The last chunk's line tells that the body is complete; the empty line behind its trailers is not waited for.
    short = wire[: -3 if framing == "chunks" else -1]
    if body and not bodiless and framing != "end":
        assert parse(short, ended=False) is None
        with pytest.raises(GarbageError):
            parse(short, ended=True)
    if framing == "end" and not bodiless:
        assert parse(wire, ended=False) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it closed the connection before the end of its reply's head"),
        (b"HTTP/1.1 200 OK\r\n", "it closed the connection before the end of its reply's head"),
        (b"SSH-2.0-OpenSSH\r\n", "it does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it does not speak HTTP"),
        (b"HTTP/2 200\r\n\r\n", "it does not speak HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "its status line is not valid"),
        (b"HTTP/1.1 3\r\n\r\n", "its status line is not valid"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "its status line is not valid"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 99, "it sends 10 interim replies"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "the head of its reply is larger than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "it closed the connection in the middle of its reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its chunks are not valid"),
    ],
)
def test_garbage_error_names_the_fault(data: bytes, reason: str) -> None:
    """Each kind of invalid reply has its own message, which reaches the user."""
    with pytest.raises(GarbageError, match=f"^{reason}$"):
        parse(data, ended=True)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\n\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\nhello, more", b"hello"),
        (b"HTTP/1.1 200\r\nContent-Length:5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0   200 Fine\r\nContent-Length: -1\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 99\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: /a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n 5 ;x\nhello\n0\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n folded\r\n\r\nhello", b"hello"),
    ],
)
def test_reply_is_read_as_leniently_as_sdks_read_it(data: bytes, body: bytes) -> None:
    """Line ends, spaces, repeated and invalid lengths, and interim replies are read as Python's http.client does."""
    reply = parse(data, ended=True)
    assert reply is not None
    assert (reply.status, reply.body) == (200, body)


def test_reply_has_headers_in_lower_case_and_request_has_length_and_close() -> None:
    """Header names of a reply are in lower case, values in Latin-1; a request has Content-Length, else PUT gets 411."""
    data = b"HTTP/1.1 301 Moved\r\nlOcAtIoN: /caf\xe9 \r\nContent-Length: 0\r\n\r\n"
    assert parse(data, ended=False) == Reply(301, {"location": "/café", "content-length": "0"}, b"")
    assert request("PUT", "/a", {"Host": "192.0.2.1"}) == (
        b"PUT /a HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 0\r\nUser-Agent: imds-detour\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"i-1234567890abcdef0", "IMDSv2 i-1234567890abcdef0"),
        (b" i-1\r\n", "IMDSv2 i-1"),
        (b"987654321", "IMDSv2 987654321"),
        (b"0717_e21b7391-2ca2-4ab5-84a8-b92157a633b0", "IMDSv2 0717_e21b7391-2ca2-4ab5-84a8-b92157a633b0"),
        (b"credentials arn:aws:iam::1:role/a", "IMDSv2 credentials arn:aws:iam::1:role/a"),
        (b"i-" + b"x" * 99, "IMDSv2 i-" + "x" * 62),
        *(
            (body, f"IMDSv2 (200 to GET /a?..., {len(body)} bytes)")
            for body in (b"i-1\nsecret", b"i-\x1b[2J", b"\xff", b"AKIAEXAMPLE", b'{"Token": "1"}', b"0badc0ffee", b"")
        ),
    ],
)
def test_identity_shows_an_id_and_nothing_that_may_be_a_secret(body: bytes, text: str) -> None:
    """An identity is IMDS version and id, stripped of blanks and cut to 64 characters; else path, status and size."""
    assert str(Identity("IMDSv2", "/a?b=secret", 200, body)) == text


@given(st.binary(max_size=300))
def test_identity_is_one_printable_line(body: bytes) -> None:
    """Any bytes from a server give one short printable line."""
    text = str(Identity("IMDSv1", "/", 200, body))
    assert text.isprintable()
    assert len(text) <= 80


METADATA = ip_address("169.254.169.254")
V6 = ip_address("fd00:ec2::254")
DOCKER = "nameserver 127.0.0.11\noptions ndots:0\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n"


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("nameserver 169.254.169.254\n", METADATA),
        ("search c.project.internal\nnameserver 169.254.169.254\noptions ndots:0\n", METADATA),
        ("nameserver 10.0.0.2\n  nameserver\tFD00:EC2:0::254\n", V6),
        (f"{DOCKER}# ExtServers: [host(169.254.169.254)]\n", METADATA),
        (f"{DOCKER}# ExtServers: [10.0.0.2 169.254.169.254]\n", METADATA),
        (f"{DOCKER}# ExtServers: [host(10.0.0.2)]\n", None),
        (f"{DOCKER}# not 169.254.169.254\n", None),
        ("# nameserver 169.254.169.254\n", None),
        ("nameserver 169.254.169.25\n", None),
        ("", None),
    ],
)
def test_server_is_in_a_line_or_in_dockers_comment(text: str, server: object) -> None:
    """A nameserver line counts, and so does the comment with the servers that Docker's embedded server asks."""
    assert find_server([METADATA, V6], text) == server


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    """Random text in resolv.conf raises no exception, and gives no other address."""
    assert find_server([METADATA], f"{text}\nnameserver {text}\n# ExtServers: [{text}]") in (None, METADATA)
