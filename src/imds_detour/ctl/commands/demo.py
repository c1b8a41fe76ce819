"""The whole of it on one machine, without Docker: two network namespaces stand in for two containers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from imds_detour.ctl.commands.status import LISTINGS
from imds_detour.ctl.lab import sandbox
from imds_detour.ctl.lab.hosts import Host, environ, link
from imds_detour.ctl.lab.nameserver import addresses, refusal, serve
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.backend import LegacyFirewall
from imds_detour.log import Log

if TYPE_CHECKING:
    import argparse

    import dns.message

    from imds_detour.ctl.lab.nameserver import Answer

NAME = "mock_metadata"
MOCK, APP = "10.88.0.3", "10.88.0.2"
PORT = "1338"
LATE = 1.0
"""Seconds from the first question until the DNS server knows the mock, as when Compose starts both at once."""

URL = "http://169.254.169.254/latest/"
CURL = "curl --silent --show-error --fail --max-time 5"
IMDS_V1 = f"{CURL} {URL}meta-data/instance-id; echo"
IMDS_V2 = (
    f'token=$({CURL} -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" {URL}api/token)\n'
    f'{CURL} -H "X-aws-ec2-metadata-token: $token" {URL}meta-data/instance-id; echo'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's flags to a command line."""
    parser.add_argument("--command", metavar="CMD", help="run this shell command as the app instead of the two clients")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo in a sandbox of its own and return its exit status."""
    if why := sandbox.missing():
        sys.stderr.write(f"demo: {why}\n")
        return 2
    if not shutil.which("curl"):
        sys.stderr.write("demo: curl is not installed: sudo apt-get install -y curl\n")
        return 2
    command = [
        sys.executable,
        "-m",
        "imds_detour.ctl.commands.demo",
        *([arguments.command] if arguments.command else []),
    ]
    return sandbox.run(command, environ())


def main() -> int:
    """Run the demo; this is the part that is in the sandbox, started by run()."""
    if sys.argv[1:] == ["nameserver"]:
        serve(MOCK, _late_answer())
    try:
        return _run(sys.argv[1:])
    except DetourError as error:
        failure = error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or "").strip().splitlines()[-1:]
        failure = DetourError("demo", f"`{' '.join(error.cmd)}` failed: {''.join(words) or error.returncode}")
    except (OSError, subprocess.SubprocessError) as error:
        failure = DetourError("demo", f"the system refuses: {error}")
    Log("text").failure(failure)
    return failure.status


def _run(command: list[str]) -> int:
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        mock = stack.enter_context(Host())
        app = stack.enter_context(Host(nameservers=(MOCK,)))
        link(mock, app, "eth0", f"{MOCK}/24", f"{APP}/24")
        app.ip("route", "add", "default", "via", MOCK)  # as in a container; here it leads nowhere
        _start(stack, mock, sys.executable, "-m", "imds_detour.ctl.commands.demo", "nameserver")
        _start(stack, mock, _installed("imds-detourctl"), "mock", "--listen", f"0.0.0.0:{PORT}", "--quiet")
        if command:
            return _app(app, command[0], log="text")
        return _show(app)
    return 128 + signal.SIGINT


def _show(app: Host) -> int:
    _say(
        "Two network namespaces stand in for two containers, with no way out of this machine:\n"
        f"  {MOCK}  a mock of the metadata service on port {PORT}, and a DNS server that learns its name late\n"
        f"  {APP}  the app, behind imds-detour\n"
    )
    _say(f"$ MOCK_HOSTNAME={NAME} MOCK_PORT={PORT} MOCK_LOG=debug imds-detour sh -c '{IMDS_V1}'", bold=True)
    first = _app(app, IMDS_V1, log="debug")
    _say("")
    listing, rules = _rules(app)
    _say(f"The rules as they stand in the kernel:  $ {listing}", bold=True)
    _say(rules)
    _say("")
    _say("A second client, which speaks IMDSv2: a token first. Name and mock are there by now, and our rules as well.")
    indented = IMDS_V2.replace("\n", "\n    ")
    _say(f"$ MOCK_HOSTNAME={NAME} MOCK_PORT={PORT} imds-detour sh -c '\n    {indented}'", bold=True)
    second = _app(app, IMDS_V2, log="text")
    _say("")
    if first or second:
        _say("The demo failed; the lines above say where.")
        return 1
    _say("Both clients read the instance id of the mock at 169.254.169.254, and know nothing of all this.")
    return 0


def _rules(app: Host) -> tuple[str, str]:
    """Return the command that lists what stands of ours in the firewall that was taken, and what it says."""
    status = app.run(_installed("imds-detourctl"), "status", "--json", check=False)
    redirects = json.loads(status.stdout)["redirects"] if status.returncode == 0 else []
    listing = LISTINGS[redirects[0]["backend"]] if redirects else ""
    if not redirects or not shutil.which(listing.split()[0]):
        return "imds-detourctl status", app.run(_installed("imds-detourctl"), "status", check=False).stdout.rstrip()
    lines = app.run(*listing.split()).stdout.splitlines()
    if redirects[0]["backend"] == LegacyFirewall.name:  # it has no command for ours alone
        lines = [line for line in lines if "IMDS_DETOUR" in line or line in ("*nat", "*filter")]
    return listing, "\n".join(lines)


def _app(app: Host, command: str, log: str) -> int:
    settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=PORT, MOCK_LOG=log)
    here = ("env", "--chdir", os.getcwd())  # entering the host's mounts leads to its /
    return subprocess.call(app.inside(*here, _installed("imds-detour"), "sh", "-c", command), env=settings)


def _start(stack: ExitStack, host: Host, *command: str) -> None:
    """Start a server and wait for its first line, which says that it listens.

    Raises:
        DetourError: when it ends instead.

    """
    server = stack.enter_context(host.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    stack.callback(server.kill)
    assert server.stdout is not None  # noqa: S101  (a pipe was asked for)
    line = server.stdout.readline()
    if server.poll() is not None or not line:
        raise DetourError("demo", f"{os.path.basename(command[0])} did not start: {line.strip() or 'it said nothing'}")


def _late_answer() -> Answer:
    first_question: list[float] = []

    def answer(question: dns.message.QueryMessage, _transport: str) -> bytes:
        first_question.append(time.monotonic())
        if time.monotonic() - first_question[0] < LATE:
            return refusal(question, "NXDOMAIN")
        return addresses(question, NAME, [MOCK])

    return answer


def _installed(name: str) -> str:
    """Return the installed command, beside the interpreter that runs this."""
    return os.path.join(os.path.dirname(sys.executable), name)


def _say(text: str, *, bold: bool = False) -> None:
    marked = f"\033[1m{text}\033[0m" if bold and sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
    sys.stdout.write(marked + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
