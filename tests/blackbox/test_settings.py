"""Bad settings give one line and status 125 before any change. MOCK_LOG selects the messages."""

import json
import subprocess

import pytest

from imds_detour.config.variables import BY_NAME
from tests.support.faults.injection import strace
from tests.support.hosts.network import DETOUR, INSTANCE, METADATA, MOCK, PORT, SETTINGS, Network

BAD = {
    "MOCK_HOSTNAME": (
        *("", "a b", "-x", ";rm", "a" * 300, "a" * 64, "mock:0", "mock:65536", "mock:", "mock:http", "http://mock/"),
        *("999.1.1.1", "127.1", "0x7f000001", "010.0.0.1", METADATA, f"{METADATA}:80", "[::ffff:169.254.169.254]:80"),
        *("fd00:ec2::254", "0.0.0.0", "[::]:80", "224.0.0.1", "255.255.255.255", "fe80::1%eth0", "möck", "m\udcffck"),
        *("mock\nimds-detour: all is well", "mock\x1b[2J"),
    ),
    "MOCK_PORT": ("0", "65536", "http", "-1", "80.0", "+80", " 80", "8_0", "٨٠", "1" * 300),
    "MOCK_TIMEOUT": ("abc", "-1", "nan", "inf", "1e9", "86401", "86401s", "s", " 1", "1m", "9" * 400),
    "MOCK_ENDPOINTS": (
        *("ec3", ",", "aws,", "aws,,gcp", "aws=", "=mock", "aws=a:0", "aws,gcp=other", "192.0.2.7", "mock:80"),
        *("127.0.0.1:80", "0.0.0.0:80", "[::ffff:169.254.169.254]:80"),
    ),
    "MOCK_BACKEND": ("iptables", "1", "AUTO "),
    "MOCK_PROBE": ("ja", "latest/", "/a b", "/a\r\nHost: x"),
    "MOCK_GUARD": ("2", "all", "O"),
    "MOCK_NO_PROXY": ("off", "1"),
    "MOCK_KEEP_NET_ADMIN": ("2", "-1", "keep"),
    "MOCK_USER": (":", "app:", ":app", "a:b:c", "4294967295", "9" * 5000, "0:4294967295", "a\nb"),
    "MOCK_LOG": ("x", "xml"),
}


def failure(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the message of a start that failed by its settings, and check that it is one printable line."""
    assert (done.returncode, done.stdout) == (125, b"")
    line, end = done.stderr.decode().split("\n")
    assert end == ""
    assert line.isprintable()
    assert len(line) < 400
    assert line.startswith("imds-detour: ")
    return line.removeprefix("imds-detour: ")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in BAD for value in BAD[name]], ids=lambda text: text[:40]
)
def test_bad_value_is_refused_with_the_allowed_ones(running: Network, name: str, value: str) -> None:
    """A bad value is refused with variable, value and allowed values, and the app does not start."""
    line = failure(running.raw(DETOUR, "echo", "started", environ={**SETTINGS, name: value}))
    assert line.startswith(f"{name}='")
    if value.isprintable():  # how others are shown: test_unprintable_value_is_escaped
        assert line.startswith(f"{name}='{value[:80]}{'...' if len(value) > 80 else ''}' is")
    assert " is not valid" in line
    assert f"; allowed: {BY_NAME[name].allowed}" in line


def test_missing_mock_hostname_has_a_remedy(running: Network) -> None:
    """Without MOCK_HOSTNAME, which has no default, the message shows how to set it."""
    environ = {name: value for name, value in SETTINGS.items() if name != "MOCK_HOSTNAME"}
    line = failure(running.raw(DETOUR, "true", environ=environ))
    assert line.startswith("MOCK_HOSTNAME is not set; set it to ")
    assert line.endswith("in Compose: `environment: {MOCK_HOSTNAME: mock_metadata}`")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("m\udcffck", r"'m\xffck'"), ("a\nb", r"'a\nb'"), ("\x1b[2J", r"'\x1b[2J'"), ("a\u202eb", r"'a\u202eb'")],
    ids=["not UTF-8", "newline", "escape sequence", "right to left"],
)
def test_unprintable_value_is_escaped(running: Network, value: str, shown: str) -> None:
    """Control characters and invalid bytes of a value are escaped."""
    line = failure(running.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_HOSTNAME": value}))
    assert line.startswith(f"MOCK_HOSTNAME={shown} is not valid")


def test_bad_settings_change_nothing(network: Network) -> None:
    """Bad settings end the start without a socket, a rule or a process, and also the helper that has started."""
    trace = strace(log="/run/trace", calls=["socket"], children=True)
    plain = {**SETTINGS, "HOME": "/root"}  # without it the interpreter itself asks the user database, over a socket
    for wrong in ({"MOCK_PORT": "http"}, {"MOCK_LOG": "x"}, {"MOCK_TIMEOUT": "nan"}, {"MOCK_USER": "no-such-user"}):
        assert network.app.run(*trace, DETOUR, "true", environ={**plain, **wrong}, check=False).returncode == 125
        lines = network.app.run("cat", "/run/trace").stdout.splitlines()
        assert not [line for line in lines if "socket(" in line], lines
        assert lines[-1].endswith("+++ exited with 125 +++")  # after the helper
    assert network.detour_rules() == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("MOCK_HOSTNAMES", "MOCK_HOSTNAMES is not a setting of imds-detour (did you mean MOCK_HOSTNAME?)"),
        ("MOCK_TIME_OUT", "MOCK_TIME_OUT is not a setting of imds-detour (did you mean MOCK_TIMEOUT?)"),
        ("MOCK_SERVER_URL", "MOCK_SERVER_URL is not a setting of imds-detour"),
        ("MOCK_\n\x1b[2J\udcff", "MOCK_\\n\\x1b[2J\\xff is not a setting of imds-detour"),
    ],
)
def test_unknown_variable_is_a_warning(running: Network, name: str, shown: str) -> None:
    """An unknown MOCK_ variable gives a warning, with control characters escaped, and the app starts."""
    done = running.raw(DETOUR, "echo", "started", environ={**SETTINGS, name: "x"})
    assert (done.returncode, done.stdout) == (0, b"started\n")
    first, second, end = done.stderr.decode().split("\n")
    assert first == f"imds-detour: {shown}; `imds-detour --help` lists them"
    assert second.startswith(f"imds-detour: {METADATA}:80 -> ")
    assert end == ""


def objects(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    """Return the JSON objects on stderr, one per line."""
    lines = done.stderr.decode("ascii").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def test_json_reports_success_as_one_object(running: Network) -> None:
    """MOCK_LOG=json reports a start as one object with the facts by name."""
    (ready,) = objects(running.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_LOG": "json"}))
    milliseconds = ready.pop("milliseconds")
    assert isinstance(milliseconds, float)
    assert 1 < milliseconds < 10_000
    assert ready == {
        "event": "ready",
        "endpoint": f"{METADATA}:80",
        "mock": MOCK,
        "address": f"{MOCK}:{PORT}",
        "backend": "legacy iptables",
        "verified": f"IMDSv2 {INSTANCE}",
        "exec": "true",
    }


def test_json_reports_failure_with_step_reason_and_remedy(running: Network) -> None:
    """With MOCK_LOG=json failures, waits and warnings are objects. A failure has step, reason and remedy."""
    bad = {**SETTINGS, "MOCK_LOG": "json", "MOCK_PORT": "\udcff\n"}
    (settings,) = objects(running.raw(DETOUR, "true", environ=bad))
    assert settings == {
        "event": "failed",
        "step": "settings",
        "reason": r"MOCK_PORT='\xff\n' is not valid (it has blanks or line breaks around it)",
        "remedy": "allowed: 1 to 65535",
    }
    (command,) = objects(running.raw(DETOUR, "no-such", environ={**SETTINGS, "MOCK_LOG": "json"}))
    assert (command["step"], command["remedy"]) == ("command", "correct it, or install it in the image")
    late = {**SETTINGS, "MOCK_LOG": "json", "MOCK_PORT": "1", "MOCK_TIMEOUT": "1", "MOCK_X": "\udcff"}
    warning, waiting, failed = objects(running.raw(DETOUR, "true", environ=late))
    assert [warning["event"], waiting["event"], failed["event"]] == ["warning", "waiting", "failed"]
    assert (waiting["step"], failed["step"]) == ("probe", "probe")
    assert all(failed[key] for key in ("reason", "remedy"))


def test_quiet_shows_only_failures(running: Network) -> None:
    """MOCK_LOG=quiet shows neither waits nor warnings, and one line for a failure."""
    quiet = {**SETTINGS, "MOCK_LOG": "quiet", "MOCK_X": "1"}
    done = running.raw(DETOUR, "true", environ=quiet)
    assert (done.returncode, done.stderr) == (0, b"")
    assert failure(running.raw(DETOUR, "true", environ={**quiet, "MOCK_PORT": "1", "MOCK_TIMEOUT": "1"}))


def test_debug_shows_steps_with_times(running: Network) -> None:
    """MOCK_LOG=debug shows each step with its time, in order."""
    done = running.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_LOG": "debug"})
    *steps, last, end = done.stderr.decode().split("\n")
    texts = []
    for step in steps:
        time, text = step.removeprefix("imds-detour: ").split(" ms  ")
        assert time.strip().isdigit()
        texts.append(text.split(":")[0])
    wanted = ["guard", "the mock answers", "redirect", "verified", "NET_ADMIN is dropped"]
    assert [text for text in texts if text in wanted] == wanted
    assert last.endswith("; exec true")
    assert end == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"MOCK_HOSTNAME": f"{MOCK}:{PORT}", "MOCK_PORT": "1"},
        {"MOCK_ENDPOINTS": "aws, aws"},
        {"MOCK_ENDPOINTS": f"aws={MOCK}:{PORT}", "MOCK_PORT": "1"},
        {"MOCK_TIMEOUT": "0"},
        {"MOCK_TIMEOUT": "2.5"},
        {"MOCK_PROBE": "/latest/meta-data/hostname"},
        {"MOCK_PROBE": "off"},
        {"MOCK_BACKEND": "legacy"},
        {"MOCK_GUARD": "off"},
        *({name: ""} for name in BAD if name != "MOCK_HOSTNAME"),
        {"MOCK_HOSTNAME": "", "MOCK_ENDPOINTS": f"aws={MOCK}:{PORT}"},
        *({"MOCK_BACKEND": word} for word in ("AUTO", "nftables", "NFT")),
        *({"MOCK_PROBE": word} for word in ("yes", "ON", "1", "true")),
        *({"MOCK_GUARD": word} for word in ("1", "ON", "no", "Chosen")),
        *({"MOCK_KEEP_NET_ADMIN": word} for word in ("yes", "true", "False")),
        *({"MOCK_ENDPOINTS": word} for word in ("ec2", "EC2,Google", "AWS")),
        *({"MOCK_TIMEOUT": word} for word in ("30s", "2.5S")),
        {"MOCK_NO_PROXY": "Keep"},
        {"MOCK_LOG": "TEXT"},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_valid_value_starts_the_app(running: Network, settings: dict[str, str]) -> None:
    """Each valid form of a value starts the app."""
    if settings == {"MOCK_PORT": ""}:  # empty is the default, 80, so the mock's address has the port
        settings = {"MOCK_PORT": "", "MOCK_HOSTNAME": f"{MOCK}:{PORT}"}
    done = running.raw(DETOUR, "echo", "started", environ={**SETTINGS, **settings})
    assert (done.returncode, done.stdout) == (0, b"started\n"), done.stderr
