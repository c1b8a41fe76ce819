"""The development mock's credential process and control path, over real sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.test_mock_clouds import ask
from tests.blackbox.test_mock_server import assert_served
from tests.support.servers.mock_process import COMMAND, TIMEOUT, Mock, running_mock, start_failure

META = "/latest/meta-data"
ROLE = f"{META}/iam/security-credentials/imds-detour-mock-role"
SCRIPT = """
status=$(cat {0}/status)  # before the run is counted: what a test sets after that is for the next run
[ -e {0}/running ] && echo overlap >> {0}/overlaps
touch {0}/running; echo run >> {0}/runs
[ -e {0}/wait ] && read line < {0}/wait
rm {0}/running
echo marked-stderr >&2
sed "s/NUMBER/$(wc -l < {0}/runs)/; s/SOON/$(date -u -d "+$(cat {0}/lifetime) seconds" +%Y-%m-%dT%H:%M:%SZ)/" {0}/output
exit $status
"""
GOOD = """{"Version": 1, "AccessKeyId": "AKIAMARKEDNUMBER", "SecretAccessKey": "marked-secret",
"SessionToken": "marked-token", "Expiration": "SOON"}"""


@dataclass(frozen=True, slots=True)
class Program:
    """A credential process: a script that counts its runs, and whose output and status the test sets."""

    folder: Path

    @property
    def flags(self) -> tuple[str, str]:
        """The mock's flag, with a quoted word as SDKs split it."""
        return "--credential-process", f'/bin/sh "{self.folder}/a script"'

    def set(self, output: str = GOOD, status: int = 0, lifetime: int = 7200) -> None:
        """Set what the next runs print, their exit status and the credentials' lifetime in seconds."""
        for name, value in (("output", output), ("status", str(status)), ("lifetime", str(lifetime))):
            (self.folder / "new").write_text(value)
            os.replace(self.folder / "new", self.folder / name)

    @property
    def runs(self) -> int:
        """The number of runs until now."""
        return len((self.folder / "runs").read_text().splitlines())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give a credential process that works."""
    (tmp_path / "a script").write_text(SCRIPT.format(tmp_path))
    made = Program(tmp_path)
    made.set()
    return made


@dataclass(frozen=True, slots=True)
class Controlled:
    """A running mock with a control path."""

    mock: Mock
    port: int

    def post(self, path: str, method: str = "POST") -> None:
        """Send a request to the control path."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as stream:
            stream.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost:{self.port}\r\n\r\n".encode())
            assert stream.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")

    def status(self, path: str) -> int:
        """Return the status of a read."""
        with self.mock.connect() as stream:
            return ask(stream, path)[0]

    def credentials(self, path: str = "/creds") -> Any:  # noqa: ANN401  (JSON)
        """Return the credentials that the mock serves now."""
        with self.mock.connect() as stream:
            return json.loads(ask(stream, path)[2])

    def line(self) -> str:
        """Return the next line on stderr that is no request."""
        while (line := self.mock.lines.get(timeout=TIMEOUT).removeprefix("imds-detourctl mock: ")).startswith("127."):
            pass
        return line

    def finish(self) -> str:
        """Stop the mock, and return the remaining lines on stderr."""
        self.mock.stop()
        assert self.mock.process.returncode == 0
        return "".join(self.mock.remaining_lines())


@contextlib.contextmanager
def controlled(*flags: str) -> Iterator[Controlled]:
    """Run a mock with a control path on a free port."""
    with running_mock("--control", "0", *flags) as mock:
        address = mock.lines.get(timeout=TIMEOUT).split()[4]
        assert address.startswith("http://127.0.0.1:")
        yield Controlled(mock, int(address.rpartition(":")[2]))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds that depends on another process."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_own_credentials_are_served_by_imdsv2_and_by_ecs(program: Program) -> None:
    """The command runs once at the start, for all requests. EC2 and ECS serve its output, and no log line has it."""
    with running_mock("--imdsv2", "required", *program.flags) as mock, mock.connect() as stream:
        assert program.runs == 1
        token = ask(stream, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", method="PUT")[2].decode()
        for _ in range(5):
            for path in (ROLE, "/creds", "/v2/credentials/x", "/role/any"):
                served = json.loads(ask(stream, path, f"X-aws-ec2-metadata-token: {token}")[2])
                assert (served["AccessKeyId"], served["Token"]) == ("AKIAMARKED1", "marked-token")
                assert served["SecretAccessKey"] == "marked-secret"  # the control: the mock has the secrets
        mock.stop()
        lines = "".join((mock.ready, *mock.remaining_lines()))
    assert (program.runs, "arked" in lines.lower()) == (1, False)
    assert lines.count("\n") == 22  # with the first line and the PUT


@pytest.mark.slow
def test_credentials_are_renewed_before_they_expire(program: Program) -> None:
    """Credentials that expire soon are renewed in time, again and again, and a line names the new expiry."""
    program.set(lifetime=6)
    with controlled(*program.flags) as mock:
        served = [mock.credentials()]
        while len(served) < 3:
            document = mock.credentials()
            assert document["Expiration"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            if document != served[-1]:
                served.append(document)
            time.sleep(0.02)  # the renewal depends on the clock
        assert [document["AccessKeyId"] for document in served] == [f"AKIAMARKED{n}" for n in (1, 2, 3)]
        assert mock.line() == f"credential process: new credentials until {served[1]['Expiration']}\n"
        assert "arked" not in mock.finish().lower()
    assert not (program.folder / "overlaps").exists()


@pytest.mark.slow
def test_failed_renewal_keeps_valid_credentials_and_is_told_once(program: Program) -> None:
    """While the command fails, its last credentials are served until they expire; then requests get 503."""
    with controlled(*program.flags) as mock:
        first = mock.credentials()
        program.set(status=9)
        for runs in (2, 3):
            mock.post("/rotate")
            wait_until(lambda runs=runs: program.runs == runs)  # type: ignore[misc]
        assert mock.credentials() == first
        kept = f"the previous credentials are valid until {first['Expiration']}"
        assert mock.line() == f"credential process: the command exited with status 9; {kept}\n"
        program.set(lifetime=6)
        mock.post("/rotate")
        assert mock.line().startswith("credential process: new credentials until ")
        program.set("marked-nonsense")
        mock.post("/rotate")
        while (line := mock.line()).startswith("credential process: new credentials until "):
            pass
        assert line.startswith("credential process: the command's output is not JSON; ")
        wait_until(lambda: {mock.status(path) for path in (ROLE, "/creds")} == {503})
        assert_served(mock.mock)
        program.set()
        mock.post("/rotate")
        wait_until(lambda: mock.status(ROLE) == 200)
        assert "arked" not in mock.finish().lower()


def test_running_command_blocks_no_request_and_runs_once(program: Program) -> None:
    """While the command runs, requests are answered, and more requests for new credentials start no second one."""
    os.mkfifo(program.folder / "gate")
    with controlled(*program.flags) as mock:
        os.rename(program.folder / "gate", program.folder / "wait")
        for _ in range(5):
            mock.post("/rotate")
            assert mock.credentials()["AccessKeyId"] == "AKIAMARKED1"
            assert_served(mock.mock)
        wait_until(lambda: program.runs == 2)
        os.rename(program.folder / "wait", program.folder / "gate")
        with open(program.folder / "gate", "w") as gate:
            gate.write("go\n")
        wait_until(lambda: mock.credentials()["AccessKeyId"] != "AKIAMARKED1")
        mock.finish()
    assert not (program.folder / "overlaps").exists()
    assert program.runs <= 3  # one more for the requests during the run


@pytest.mark.parametrize("started", [True, False])
def test_stop_ends_the_mock_and_the_running_command(program: Program, started: bool) -> None:
    """A signal during a run, the first one too, ends the mock at once with status 0, and the command with it."""
    os.mkfifo(program.folder / "gate")
    if not started:
        os.rename(program.folder / "gate", program.folder / "wait")
        command = [*COMMAND, "--listen", "127.0.0.1:0", *program.flags]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_until((program.folder / "runs").exists)
            process.send_signal(signal.SIGTERM)
            assert (process.wait(TIMEOUT), process.communicate()[1]) == (0, "")
    else:
        with controlled(*program.flags) as mock:
            os.rename(program.folder / "gate", program.folder / "wait")
            mock.post("/rotate")
            wait_until(lambda: program.runs == 2)
            mock.finish()
    with pytest.raises(OSError, match="No such device"):  # no process has the pipe open for reading
        os.open(program.folder / "wait", os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        (GOOD, 255, "the command exited with status 255"),
        ("marked", 0, "the command's output is not JSON"),
        ('{"Version": 1, "AccessKeyId": "marked"}', 0, "the command's output has no SecretAccessKey that is text"),
        (GOOD.replace("1,", "2,"), 0, 'the command\'s output has no "Version": 1'),
        (GOOD.replace("SOON", "2001-01-01T00:00:00Z"), 0, "the command's credentials expired at 2001-01-01T00:00:00Z"),
    ],
)
def test_failing_command_is_told_at_the_start(program: Program, output: str, status: int, reason: str) -> None:
    """A command that fails ends the start in one line, without its output."""
    program.set(output, status)
    line = start_failure("--listen", "127.0.0.1:0", *program.flags)
    assert line == f"imds-detour: --credential-process: {reason}; run the command in a terminal to see why\n"


def test_control_path_announces_rotates_and_fails() -> None:
    """The control path announces and withdraws notices, rotates credentials, and fails the next requests."""
    names = ("spot/instance-action", "spot/termination-time", "events/recommendations/rebalance")
    paths = [f"{META}/{name}" for name in names]
    with controlled() as mock:
        for request, announced in (("/interrupt", [200, 200, 404]), ("/rebalance", [404, 404, 200])):
            assert [mock.status(path) for path in paths] == [404] * 3
            mock.post(request)
            assert [mock.status(path) for path in paths] == announced
            mock.post(request, "DELETE")
        mock.post("/interrupt?in=3600")
        assert [mock.status(path) for path in paths] == [404] * 3
        first = mock.credentials(ROLE)
        mock.post("/rotate")
        assert mock.credentials(ROLE)["AccessKeyId"] != first["AccessKeyId"]
        mock.post("/fail?count=2&status=429")
        assert [mock.status("/") for _ in range(3)] == [429, 429, 200]
        assert "127.0.0.1 POST /fail?count=2&status=429 200 5 control\n" in mock.finish()


@pytest.mark.parametrize("flag", ["--hang", "--delay=1000"])
def test_control_path_has_no_faults(flag: str) -> None:
    """The control path answers at once while the metadata service hangs or is slow, and is the only one there."""
    with controlled(flag) as mock:
        mock.post("/interrupt")
        with socket.create_connection(("127.0.0.1", mock.port), timeout=TIMEOUT) as stream:
            assert ask(stream, "/latest/meta-data/instance-id")[0] == 403  # Host: mock
    with running_mock() as plain, plain.connect() as stream:
        assert ask(stream, "/interrupt", method="POST")[0] == 405  # the control: the service has no such path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        *(
            (("--control", text), "is not on loopback")
            for text in ("0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[fe80::1]:1")
        ),
        *((("--control", text), "write it like 1339") for text in ("", "x", "localhost:1", "65536", "127.0.0.1:")),
        (("--credential-process", "true"), "--credential-process needs --listen; it serves credentials to all who"),
        (("--listen", "127.0.0.1:0", "--credential-process", " "), "--credential-process is not a command; "),
        (("--listen", "127.0.0.1:0", "--credential-process", "a 'b"), "--credential-process is not a command; "),
    ],
)
def test_invalid_flags_are_refused_in_one_line(flags: tuple[str, ...], words: str) -> None:
    """A control path that others could reach, and a command without an address or a word, are refused in one line."""
    assert words in start_failure(*flags)


def test_control_port_in_use_is_refused_in_one_line() -> None:
    """A control port in use is refused in one line that names the flag; an IPv6 loopback address is accepted."""
    with running_mock() as other:
        line = start_failure("--listen", "127.0.0.1:0", "--control", str(other.port))
        assert line.endswith("it is in use; stop the program that listens there, or give another port with --control\n")
    with running_mock("--control", "[::1]:0") as mock:
        assert " control on http://[::1]:" in mock.lines.get(timeout=TIMEOUT)
