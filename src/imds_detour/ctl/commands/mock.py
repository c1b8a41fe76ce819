"""imds-detourctl mock: a small metadata service of every cloud, for development."""

import argparse
import asyncio
import contextlib
import http
import json
import os
import re
import sys
import time

import imds_detour_mock
from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.dispatch import clouds
from imds_detour_mock.clouds.messages import Answer
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.faults import Failing, connections
from imds_detour_mock.http_server import Server
from imds_detour_mock.listening import StartError, address, serve
from imds_detour_mock.values import DataError, Json, load

DEFAULT_LISTEN = "[::]:1338"

_NAME = "imds-detourctl mock"
_LONGEST = 10**6  # seconds that a flag may name, some eleven days
_FAIL = re.compile(r"([45][0-9]{2})(?::([1-9][0-9]{0,5}))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `imds-detourctl mock`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDR:PORT",
        help=f"where to listen, repeatable; [::] means IPv4 too, port 0 a free one (default {DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--data", metavar="FILE", help="JSON values, merged over the built-in ones; null removes one, or a whole cloud"
    )
    parser.add_argument("--print-data", action="store_true", help="print the values as JSON, to copy from, and end")
    parser.add_argument(
        "--imdsv2",
        choices=["optional", "required"],
        default="optional",
        help="whether reads on EC2 need a session token (default optional)",
    )
    parser.add_argument("--log", action="store_true", default=True, help="one line per request on stderr (default)")
    parser.add_argument("--quiet", dest="log", action="store_false", help="no line per request")
    events = parser.add_argument_group("what happens to the instance")
    events.add_argument(
        "--credentials-ttl",
        metavar="SECONDS",
        help="credentials and access tokens expire and rotate: new ones 300 s before the old expire, or at half time",
    )
    events.add_argument("--spot-in", metavar="SECONDS", help="EC2 announces a Spot interruption after so long")
    events.add_argument("--rebalance-in", metavar="SECONDS", help="EC2 recommends to rebalance after so long")
    faults = parser.add_argument_group("faults, to try an app's retries and time-outs")
    silent = faults.add_mutually_exclusive_group()
    silent.add_argument("--delay", metavar="SECONDS", help="answer so much later")
    faults.add_argument("--fail", metavar="STATUS[:N]", help="answer each request, or each Nth, with this HTTP status")
    silent.add_argument("--hang", action="store_true", help="take connections and requests, and never answer")


_EPILOG = """\
One port speaks for all: EC2, ECS, EKS Pod Identity, Google Cloud, Azure, Oracle, Alibaba, DigitalOcean, Hetzner,
OpenStack, Scaleway, Akamai and IBM are told apart by path and header. Each log line ends with the one that answered.

This is for development and tests. For real work take amazon-ec2-metadata-mock (AEMM) or moto: they know far
more of AWS, and other people keep them up to date.
"""


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then return 0; raise `StartError` if that cannot start."""
    if args.print_data:
        sys.stdout.write(json.dumps(_data(args.data), indent=2) + "\n")
        return 0
    addresses = [address(text) for text in args.listen or [DEFAULT_LISTEN]]
    server = Server(_answer(args, time.time()), _say if args.log else _ignore)
    connect = connections(server, delay=_seconds("--delay", args.delay) or 0, hang=args.hang)
    asyncio.run(serve(server, connect, addresses, _say))
    return 0


def _answer(args: argparse.Namespace, start: float) -> Answer:
    ttl = _seconds("--credentials-ttl", args.credentials_ttl, least=2)  # written in whole seconds: 1 could be over
    spot, rebalance = _seconds("--spot-in", args.spot_in), _seconds("--rebalance-in", args.rebalance_in)
    answer = clouds(
        _data(args.data),
        require_token=args.imdsv2 == "required",
        rotation=None if ttl is None else Rotation(ttl, start),
        notices=Notices(
            spot=None if spot is None else start + spot, rebalance=None if rebalance is None else start + rebalance
        ),
    ).answer
    if args.fail is None:
        return answer
    match = _FAIL.fullmatch(args.fail)
    if not match or int(match[1]) not in set(http.HTTPStatus):
        raise StartError(
            f"--fail {args.fail!r} is not valid", "write an HTTP error such as 503, or 503:3 for each third request"
        )
    return Failing(answer, int(match[1]), int(match[2] or 1))


def _seconds(flag: str, text: str | None, least: float = 0) -> float | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):  # float's word for no number
        if least <= float(text) <= _LONGEST:  # NaN is neither
            return float(text)
    raise StartError(f"{flag} {text!r} is not valid", f"write a number of seconds from {least} to {_LONGEST}")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read our stderr may be gone; the mock goes on
        sys.stderr.write(f"{_NAME}: {line}\n")


def _ignore(line: str) -> None:
    """Take the place of the log under --quiet."""


def _data(path: str | None) -> dict[str, Json]:
    try:
        # A file beside the package: importlib.resources would bring zipfile into the bundle.
        place = os.path.dirname(os.path.abspath(imds_detour_mock.__file__))
        with open(os.path.join(place, "mock_data.json"), encoding="utf-8") as file:
            defaults = file.read()
        if path is None:
            return load(defaults)
        with open(path, encoding="utf-8-sig") as file:
            return load(defaults, file.read())
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}", "give --data a file of JSON") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{path}: not UTF-8 text", "save it as UTF-8") from error
    except DataError as error:
        raise DataError(f"{path}: {error.reason}") from error


if __name__ == "__main__":
    from imds_detour.ctl.main import main

    sys.argv.insert(1, "mock")
    sys.exit(main())
