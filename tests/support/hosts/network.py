"""Two hosts in network namespaces: one runs the mock and the DNS server, one the app with imds-detour."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from imds_detour.ctl.lab.hosts import Host, environ, link, start_host
from tests.support import SUPPORT
from tests.support.judges import rules_listing

BIN = os.environ.get("IMDS_DETOUR_BIN") or os.path.dirname(sys.executable)
"""The folder of the programs under test: this Python's, or the bundle's (scripts/test runs some tests with both)."""
BUNDLED = bool(os.environ.get("IMDS_DETOUR_BIN"))
"""Whether the programs are the bundle's, which a launcher starts (bundle/launcher.c)."""
DETOUR = f"{BIN}/imds-detour"
CTL = f"{BIN}/imds-detourctl"
FAULTY_DNS = f"{SUPPORT}/servers/faulty_dns.py"
FAULTY_HTTP = f"{SUPPORT}/servers/faulty_http.py"
MOCK = "10.88.0.3"
APP = "10.88.0.2"
MOCK6, APP6 = "fd88::3", "fd88::2"
"""IPv6 addresses, which Network.add_ipv6() adds."""
NAME = "mock_metadata"
PORT = "1338"
INSTANCE = "i-1234567890abcdef0"
METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"
SETTINGS = {
    "MOCK_HOSTNAME": MOCK,
    "MOCK_PORT": PORT,
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
"""The complete environment of an app whose mock has a known address."""
ID_URL = f"http://{METADATA}/latest/meta-data/instance-id"


class Network:
    """A mock's host at MOCK and an app's host at APP, whose default route and DNS server is the mock's host.

    Attributes:
        wanted: settings of each start, unless a start overrides them.

    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.wanted: dict[str, str] = {}
        self.mock = self._stack.enter_context(start_host())
        self.app = self._stack.enter_context(start_host(nameservers=(MOCK,)))
        link(self.mock, self.app, "eth0", f"{MOCK}/24", f"{APP}/24")
        self.app.ip("route", "add", "default", "via", MOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def without_ipv6(self, disabled: str = "1") -> None:
        """Disable IPv6 on the app's host, as Docker does on a network without it; "0" enables it again."""
        for device in ("all", "default", "lo", "eth0"):
            self.app.run("sh", "-c", f"echo {disabled} > /proc/sys/net/ipv6/conf/{device}/disable_ipv6")

    def add_ipv6(self) -> None:
        """Add an IPv6 address to each host, without a default route."""
        for host, address in ((self.mock, MOCK6), (self.app, APP6)):
            host.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")

    def divert(self, address: str, port: str, priority: int = -150, of: str = "") -> None:
        """Redirect the metadata address by a foreign rule before imds-detour's; at -101, before legacy's only.

        ``of`` is a match for the connections that it redirects, all without one.
        """
        chain = f"add table ip foreign; add chain ip foreign output {{ type nat hook output priority {priority}; }};"
        rule = f"add rule ip foreign output {of} ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}"
        self.app.run("nft", f"{chain} {rule}")

    def hosts(self) -> str:
        """Return /etc/hosts of the app's host."""
        return self.app.run("cat", "/etc/hosts").stdout

    def remount_hosts(self, mode: str = "ro") -> None:
        """Make /etc/hosts of the app's host ``ro`` or ``rw``."""
        self.app.run("sh", "-c", f"mount -o remount,{mode},bind $(readlink -m /etc/hosts)")

    def start(self, host: Host, *command: str, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  (Popen's own)
        """Start a server on a host; its first line on stdout or stderr says that it listens."""
        server = host.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self._stack.callback(end, server)
        assert read_line(server), f"{command} did not start"
        return server

    def start_mock(
        self, *flags: str, port: str = PORT, host: Host | None = None, at: str = "0.0.0.0"
    ) -> subprocess.Popen[str]:
        """Start the development mock, which logs each request on its stdout."""
        return self.start(host or self.mock, CTL, "mock", "--listen", f"{at}:{port}", *flags)

    def start_real_service(self, host: Host, port: str = "80", instance: str = "i-0real0real0real00") -> None:
        """Start a metadata service that an app must never reach."""
        data = f"/run/real-{instance}.json"
        host.run("sh", "-c", f"cat > {data} <<'E'\n{json.dumps({'meta-data': {'instance-id': instance}})}\nE")
        self.start_mock("--data", data, port=port, host=host)

    def start_faulty(self, *plan: str, port: str = PORT) -> subprocess.Popen[str]:
        """Start an HTTP server with a plan (tests/support/servers/faulty_http.py) instead of the mock."""
        return self.start(self.mock, sys.executable, FAULTY_HTTP, f"{MOCK}:{port}", *plan)

    def start_dns(self, *plan: str, at: str = MOCK) -> subprocess.Popen[str]:
        """Start a DNS server with a plan (tests/support/servers/faulty_dns.py)."""
        return self.start(self.mock, sys.executable, FAULTY_DNS, at, *(plan or (f"{NAME}={MOCK}",)))

    def detour(
        self,
        *command: str,
        prefix: Sequence[str] = (),
        timeout: float = 30,
        environment: dict[str, str] | None = None,
        **settings: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed imds-detour on the app's host, under the command ``prefix``, and return its result."""
        environ = self.settings(environment, **settings)
        return self.app.run(*prefix, DETOUR, *command, environ=environ, timeout=timeout, check=False)

    def success(self, *command: str, stdout: str = "", **options: Any) -> str:  # noqa: ANN401  (those of detour())
        """Run imds-detour, assert that it exits with 0 and this output, and return its stderr."""
        done = self.detour(*command, **options)
        assert (done.returncode, done.stdout) == (0, stdout), done
        return done.stderr

    def failure(self, *command: str, **options: Any) -> str:  # noqa: ANN401  (those of detour())
        """Run imds-detour, assert that it exits with 125 and without output, and return its stderr."""
        done = self.detour(*command, **options)
        assert (done.returncode, done.stdout) == (125, ""), done
        return done.stderr

    def ctl(self, *words: str, prefix: Sequence[str] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the installed imds-detourctl on the app's host, and return its result."""
        return self.app.run(*prefix, CTL, *words, environ=self.settings(None, **settings), check=False)

    def popen_detour(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        """Start the installed imds-detour on the app's host, with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.app.popen(DETOUR, *command, environ=self.settings(None, **settings), **pipes)

    def raw(
        self,
        *command: str | bytes,
        environ: Mapping[str, str],
        stdin: bytes = b"",
        stdout: int = subprocess.PIPE,
        descriptors: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the app's host with exactly this environment; input and output are bytes."""
        return subprocess.run(
            [*self.app.inside(), *command],
            executable=shutil.which("nsenter"),  # found by this process's PATH, not by the test's
            env=environ,
            input=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            timeout=30,
            check=False,
        )

    def settings(self, environment: dict[str, str] | None = None, **settings: str) -> dict[str, str]:
        """Return the environment of an app with the mock NAME at PORT and these changes; "unset" removes a variable."""
        wanted = {"MOCK_HOSTNAME": NAME, "MOCK_PORT": PORT, "MOCK_TIMEOUT": "10", **self.wanted, **settings}
        return environ(**(environment or {}), **{name: value for name, value in wanted.items() if value != "unset"})

    def rules(self) -> str:
        """Return all legacy rules and chains of the app's host, without counters and comments."""
        saved = self.app.run("iptables-legacy-save").stdout.splitlines()
        return "\n".join(line.split(" [")[0] for line in saved if line.startswith((":", "-", "*")))

    def detour_rules(self) -> str:
        """Return the lines of rules() that imds-detour made."""
        return "\n".join(line for line in self.rules().splitlines() if "IMDS_DETOUR" in line)

    def detour_redirects(self) -> str:
        """Return imds-detour's rules in both firewalls and IP versions, without the guard."""
        return rules_listing.besides_guard(self.app.run("sh", "-c", rules_listing.LISTED).stdout)

    def guarded(self) -> set[str]:
        """Return the addresses that imds-detour guards, in both firewalls and IP versions."""
        return rules_listing.guarded(self.app.run("sh", "-c", rules_listing.LISTED).stdout)

    def detour_routes(self) -> str:
        """Return the routes of the app's host that imds-detour made."""
        return self.app.ip("route", "show", "table", "all", "proto", "169")

    def foreign(self) -> str:
        """Return the foreign rules, legacy and nft, and the foreign routes of the app's host."""
        tables = [self.app.run("iptables-legacy-save", "-t", table).stdout for table in ("nat", "filter")]
        legacy = [line.split(" [")[0] for table in tables for line in table.splitlines() if "IMDS_DETOUR" not in line]
        routes = self.app.ip("-4", "route", "show", "table", "all").splitlines()
        others = [line for line in (*legacy, *routes) if "proto 169" not in line and not line.startswith("#")]
        listed = self.app.run("nft", "list", "ruleset").stdout
        return "\n".join((*others, re.sub(r"(?m)^table ip6? imds_detour \{\n(?:\t.*\n|\n)*\}\n", "", listed)))


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process, and close its pipes."""
    process.kill()
    process.wait()
    for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
        stream.close()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process's stdout, which is a pipe."""
    assert process.stdout is not None
    return process.stdout.readline()


def read_until(process: subprocess.Popen[str], text: str = "") -> str:
    """Return the next line of a process's stderr, which is a pipe, that contains a text."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        if text in line:
            return line
        seen.append(line)
    raise AssertionError(f"it ended with {process.wait()} and never said {text!r}, but {seen}")


def output(server: subprocess.Popen[str]) -> str:
    """End a server, and return the output that was not read yet."""
    server.terminate()
    return server.communicate()[0]
