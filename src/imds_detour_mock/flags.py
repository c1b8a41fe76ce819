"""The flags of the development mock."""

import argparse
import contextlib
import os
import re
import shlex

from imds_detour_mock.control import USAGE
from imds_detour_mock.faults import ERRORS
from imds_detour_mock.listening import StartError, parse_address, parse_control
from imds_detour_mock.serve import Options

DEFAULT_LISTEN = "[::]:1338"

_MAX_SECONDS = 10**6  # about eleven days
_FAIL = re.compile(r"([45][0-9]{2})(?::([1-9][0-9]{0,5}))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `imds-detourctl mock`."""
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDR:PORT",
        help=f"address to listen on, repeatable; [::] includes IPv4, port 0 is a free one (default {DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--data", metavar="FILE", help="JSON file that overrides built-in values; null removes a value or a whole cloud"
    )
    parser.add_argument("--print-data", action="store_true", help="print the values as JSON and exit")
    parser.add_argument(
        "--imdsv2",
        choices=["optional", "required"],
        default="optional",
        help="whether reads on EC2 require a session token (default optional)",
    )
    parser.add_argument("--log", action="store_true", default=True, help="log one line per request on stderr (default)")
    parser.add_argument("--quiet", dest="log", action="store_false", help="log no requests")
    parser.add_argument(
        "--credential-process",
        metavar="COMMAND",
        help="serve on EC2, ECS and EKS the AWS credentials that COMMAND prints (the AWS SDKs' credential_process), "
        "such as 'aws configure export-credentials'; needs --listen",
    )
    parser.add_argument("--control", metavar="[HOST:]PORT", help=f"take requests of a test on loopback: {USAGE}")
    events = parser.add_argument_group("instance events")
    events.add_argument(
        "--credentials-ttl",
        metavar="SECONDS",
        help="lifetime of rotating credentials; new ones come 300 s before the expiry, or after half the lifetime",
    )
    events.add_argument("--spot-in", metavar="SECONDS", help="time until EC2 announces a Spot interruption")
    events.add_argument("--rebalance-in", metavar="SECONDS", help="time until EC2 recommends a rebalance")
    faults = parser.add_argument_group("faults, to test an app's retries and timeouts")
    silent = faults.add_mutually_exclusive_group()
    silent.add_argument("--delay", metavar="SECONDS", help="delay each answer")
    faults.add_argument("--fail", metavar="STATUS[:N]", help="answer each request, or each Nth, with this HTTP status")
    silent.add_argument("--hang", action="store_true", help="accept connections and requests, and never answer")


def options(args: argparse.Namespace) -> Options:
    """Return the options that the flags give; StartError if one of them is not valid."""
    return Options(
        addresses=tuple(parse_address(text) for text in args.listen or [DEFAULT_LISTEN]),
        data=args.data,
        require_token=args.imdsv2 == "required",
        log_requests=args.log,
        # Expiry times are written in whole seconds: a lifetime of 1 could be over when it is served.
        credentials_ttl=_seconds("--credentials-ttl", args.credentials_ttl, minimum=2),
        spot_in=_seconds("--spot-in", args.spot_in),
        rebalance_in=_seconds("--rebalance-in", args.rebalance_in),
        delay=_seconds("--delay", args.delay) or 0,
        hang=args.hang,
        fail=_failures(args.fail),
        control=None if args.control is None else parse_control(args.control),
        command=_command(args.credential_process, args.listen),
        environ=os.environ,
    )


def _command(text: str | None, listen: list[str] | None) -> tuple[str, ...]:
    """Return the words of the credential process, as SDKs split it, without a shell."""
    if text is None:
        return ()
    if not listen:
        raise StartError("--credential-process needs --listen", "it serves credentials to all who can connect there")
    with contextlib.suppress(ValueError):  # shlex raises it for an open quote
        if words := shlex.split(text):
            return tuple(words)
    raise StartError("--credential-process is not a command", "write a program and its arguments, and close the quotes")


def _failures(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _FAIL.fullmatch(text)
    if not match or int(match[1]) not in ERRORS:
        raise StartError(
            f"--fail {text!r} is not valid", "write an HTTP error such as 503, or 503:3 for each third request"
        )
    return int(match[1]), int(match[2] or 1)


def _seconds(flag: str, text: str | None, minimum: float = 0) -> float | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):  # float() raises it for text that is no number
        if minimum <= float(text) <= _MAX_SECONDS:  # refuses NaN too
            return float(text)
    raise StartError(f"{flag} {text!r} is not valid", f"write a number of seconds from {minimum} to {_MAX_SECONDS}")
