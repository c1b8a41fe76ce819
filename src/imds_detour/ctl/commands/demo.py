"""imds-detourctl demo: show a start on this machine, without Docker, in two network namespaces."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import dns.message

from imds_detour.ctl.lab import sandbox
from imds_detour.ctl.lab.hosts import Host, environ, link, start_host
from imds_detour.ctl.lab.nameserver import Answer, addresses, refusal, serve
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.errors import DetourError
from imds_detour.log import Log

NAME = "mock_metadata"
MOCK, APP = "10.88.0.3", "10.88.0.2"
PORT = "1338"
INSIDE = (sys.executable, "-m", "imds_detour.ctl.commands.demo")
"""The command for processes inside the sandbox."""
NAME_DELAY = 1.0
"""Seconds from the first query until the DNS server knows the mock, as when Compose starts both at once."""

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
    """Run the demo in a new sandbox and return its exit status."""
    no_curl = "" if shutil.which("curl") else "curl is not installed: sudo apt-get install -y curl"
    if why := sandbox.missing() or no_curl:
        sys.stderr.write(f"demo: {why}\n")
        return 2
    return sandbox.run([*INSIDE, *filter(None, [arguments.command])], environ())


def main() -> int:
    """Run the demo inside the sandbox; run() starts this."""
    if sys.argv[1:] == ["nameserver"]:
        serve(MOCK, _late_answer())
    try:
        return _run(sys.argv[1:])
    except DetourError as error:
        failure = error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:]
        failure = DetourError("demo", f"`{' '.join(error.cmd)}` failed: {''.join(last) or error.returncode}")
    except (OSError, subprocess.SubprocessError) as error:
        failure = DetourError("demo", f"the system refuses: {error}")
    Log("text").failure(failure)
    return failure.status


def _run(command: list[str]) -> int:
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        mock = stack.enter_context(start_host())
        app = stack.enter_context(start_host(nameservers=(MOCK,)))
        link(mock, app, "eth0", f"{MOCK}/24", f"{APP}/24")
        app.ip("route", "add", "default", "via", MOCK)  # as in a container, though the sandbox has no other network
        _start(stack, mock, *INSIDE, "nameserver")
        _start(stack, mock, _installed("imds-detourctl"), "mock", "--listen", f"0.0.0.0:{PORT}", "--quiet")
        if command:
            return _app(app, command[0], log="text")
        return _show(app)
    return 128 + signal.SIGINT


def _show(app: Host) -> int:
    _say(
        "Two network namespaces act as two containers; nothing in them can leave this machine:\n"
        f"  {MOCK}  a mock of the metadata service on port {PORT}, and a DNS server that learns its name late\n"
        f"  {APP}  the app, started by imds-detour\n"
    )
    _say(f"$ MOCK_HOSTNAME={NAME} MOCK_PORT={PORT} MOCK_LOG=debug imds-detour sh -c '{IMDS_V1}'", bold=True)
    first = _app(app, IMDS_V1, log="debug")
    _say("")
    listing, rules = _rules(app)
    _say(f"The redirect in the kernel; the guard's rules are left out:  $ {listing}", bold=True)
    _say(f"{rules}\n")
    _say("A second client, which uses IMDSv2: it asks for a token first. Name, mock and rules are there now.")
    indented = IMDS_V2.replace("\n", "\n    ")
    _say(f"$ MOCK_HOSTNAME={NAME} MOCK_PORT={PORT} imds-detour sh -c '\n    {indented}'", bold=True)
    second = _app(app, IMDS_V2, log="text")
    _say("")
    if first or second:
        _say("The demo failed; the lines above say where.")
        return 1
    _say("Both clients have read the mock's instance id at 169.254.169.254.")
    return 0


def _rules(app: Host) -> tuple[str, str]:
    """Return the command that lists the rules, and those of the redirect in its output."""
    status = app.run(_installed("imds-detourctl"), "status", check=False).stdout
    listing = next((line.split("`")[1] for line in status.splitlines() if line.endswith("shows the rules")), "")
    if not listing or not shutil.which(listing.split()[0]):
        return "imds-detourctl status", status.rstrip()
    lines = app.run(*listing.split()).stdout.splitlines()
    words = ("-A IMDS_DETOUR ", "-j IMDS_DETOUR\n", "table ", "chain nat", "type nat", "dnat ")
    return listing, "\n".join(line for line in lines if any(word in f"{line}\n" for word in words))


def _app(app: Host, command: str, log: str) -> int:
    settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=PORT, MOCK_LOG=log)
    in_this_folder = ("env", "--chdir", os.getcwd())  # entering the host's mounts changes to its /
    return subprocess.call(app.inside(*in_this_folder, _installed("imds-detour"), "sh", "-c", command), env=settings)


def _start(stack: ExitStack, host: Host, *command: str) -> None:
    """Start a server and wait for its first line, which it writes when it listens; DetourError if it ends instead."""
    server = stack.enter_context(host.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    stack.callback(server.kill)
    assert server.stdout is not None  # noqa: S101  (a pipe was asked for)
    line = server.stdout.readline()
    if server.poll() is not None or not line:
        raise DetourError("demo", f"{os.path.basename(command[0])} did not start: {line.strip() or 'it said nothing'}")


def _late_answer() -> Answer:
    times: list[float] = []

    def answer(question: dns.message.QueryMessage, _transport: str) -> bytes:
        times.append(time.monotonic())
        if times[-1] - times[0] < NAME_DELAY:
            return refusal(question, "NXDOMAIN")
        return addresses(question, NAME, [MOCK])

    return answer


def _installed(name: str) -> str:
    """Return the path of an installed command, which is in the folder of this interpreter."""
    return os.path.join(os.path.dirname(sys.executable), name)


def _say(text: str, *, bold: bool = False) -> None:
    terminal = Terminal.of(sys.stdout)
    for line in text.split("\n"):
        terminal.line(line, *([Style.BOLD] if bold else []))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
