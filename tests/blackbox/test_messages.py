"""Mistakes that people make, and the line that tells them the way out: a row for each."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imds_detour.advice import commands
from imds_detour.advice.failure import MORE
from imds_detour.config import settings
from imds_detour.ctl import main
from imds_detour.errors import DetourError
from imds_detour.system.capabilities import NET_ADMIN
from tests.support.faults.capabilities import without
from tests.support.hosts.network import CTL, DETOUR, MOCK, NAME, PORT, Network

HOST_GATEWAY = "host.docker.internal:host-gateway"
OTHER_NAME = "mock-metadata"
TO_OTHER_USER = ("setpriv", "--reuid", "65534", "--clear-groups")
NOWHERE = {"MOCK_ENDPOINTS": "aws,ecs=nowhere", "MOCK_TIMEOUT": "0.3"}


@dataclass(frozen=True)
class Row:
    """A mistake, and what its message says.

    Attributes:
        words: the command line; its first word is the program.
        says: parts of the last line.
        never: what the line must not say.

    """

    words: tuple[str, ...]
    says: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    never: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    status: int = 125


WRONG = {
    "host.docker.internal on Linux": Row(
        (DETOUR, "true"), (HOST_GATEWAY, MORE), {"MOCK_HOSTNAME": "host.docker.internal"}
    ),
    "host.docker.internal, doctor": Row(
        (CTL, "doctor"), (HOST_GATEWAY,), {"MOCK_HOSTNAME": "host.docker.internal"}, status=1
    ),
    "another spelling": Row(
        (DETOUR, "true"), (f"correct MOCK_HOSTNAME: {NAME} exists", MORE), {"MOCK_HOSTNAME": OTHER_NAME}
    ),
    "another spelling, doctor": Row(
        (CTL, "doctor"), (f"correct MOCK_HOSTNAME: {NAME} exists",), {"MOCK_HOSTNAME": OTHER_NAME}, status=1
    ),
    "another name": Row((DETOUR, "true"), ("start it", "`services: {no-mock: ...}`"), {"MOCK_HOSTNAME": "no-mock"}),
    "a:b:c": Row((DETOUR, "true"), ("one host, perhaps with :port",), {"MOCK_HOSTNAME": "a:b:c"}, ("8 parts", MORE)),
    "two addresses": Row(
        (DETOUR, "true"), ("one host, perhaps with :port",), {"MOCK_HOSTNAME": f"{MOCK},10.88.0.9"}, ("octets",)
    ),
    "a flag": Row(
        (DETOUR, "--port", "1338", "true"), ("takes no flags", "MOCK_PORT=1338"), {}, ("install it", MORE), status=127
    ),
    "a flag with =": Row(
        (DETOUR, "--mock=mock:80", "true"), ("takes no flags", "MOCK_HOSTNAME=mock:80"), {}, (MORE,), status=127
    ),
    "another flag": Row((DETOUR, "-v", "true"), ("takes no flags", "command comes first"), status=127),
    "a verb": Row(
        (DETOUR, "doctor"), ("a verb of imds-detourctl: `imds-detourctl doctor`",), {}, ("install it",), status=127
    ),
    "one word": Row((DETOUR, "sleep 3600"), ('["sleep", "3600"]', '["sh", "-c", "sleep 3600"]'), status=127),
    "a real name (control)": Row((DETOUR, "slep"), ("correct it, or install it in the image",), status=127),
    "no sudo, init": Row(
        (CTL, "init", "--host"),
        ("sudo -E imds-detourctl init --host", "docker exec --user root"),
        {},
        ("cap_add", "MOCK_USER"),
        TO_OTHER_USER,
    ),
    **{
        f"no sudo, {verb}": Row((CTL, verb), (f"sudo imds-detourctl {verb}",), {}, ("MOCK_USER",), TO_OTHER_USER)
        for verb in ("status", "remove")
    },
    "ecs=nowhere": Row((DETOUR, "true"), ("correct `ecs=` in MOCK_ENDPOINTS",), NOWHERE, ("correct MOCK_HOSTNAME",)),
    "ecs=nowhere, doctor": Row(
        (CTL, "doctor"), ("correct `ecs=` in MOCK_ENDPOINTS",), NOWHERE, ("correct MOCK_HOSTNAME",), status=1
    ),
    "the port of ecs": Row(
        (DETOUR, "true"), ("correct the port of `ecs=` in MOCK_ENDPOINTS",), {"MOCK_ENDPOINTS": f"aws,ecs={MOCK}:1"}
    ),
    "docter": Row((CTL, "docter"), ("'docter' is no verb: did you mean doctor?",), status=2),
    "no word like a verb": Row((CTL, "xyz"), ("lists the verbs",), {}, ("did you mean",), status=2),
    **{
        f"{host}": Row(
            (DETOUR, "true"),
            ("is this container itself", "`imds-detourctl init` after it", MORE),
            {"MOCK_HOSTNAME": host, "MOCK_PORT": "1"},
        )
        for host in ("localhost", "127.0.0.1", "::1")
    },
    "localhost, doctor": Row(
        (CTL, "doctor"),
        ("is this container itself", "`imds-detourctl init` after it"),
        {"MOCK_HOSTNAME": "127.0.0.1", "MOCK_PORT": "1"},
        status=1,
    ),
    "another port (control)": Row(
        (DETOUR, "true"), ("correct MOCK_PORT",), {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "1"}, ("container itself",)
    ),
    "MOCK_HOST": Row(
        (DETOUR, "true"),
        ("MOCK_HOSTNAME is not set, but MOCK_HOST is (did you mean MOCK_HOSTNAME?)",),
        {"MOCK_HOSTNAME": "unset", "MOCK_HOST": "mock"},
        (MORE,),
    ),
    "another user namespace": Row(
        (DETOUR, "true"),
        ("belongs to another user namespace", "`unshare --user`", MORE),
        {},
        ("another program", "modprobe"),
        ("unshare", "--user", "--map-root-user"),
    ),
}


@pytest.fixture(scope="module")
def named(running: Network) -> Network:
    """Give a network with a mock, and with a DNS server that knows it."""
    running.start_dns()
    return running


def outcome(network: Network, row: Row) -> subprocess.CompletedProcess[str]:
    """Run the mistake, with the mock's name and port unless it has others."""
    wanted = network.settings(None, **{"MOCK_TIMEOUT": "0.5", **row.environ})
    return network.app.run(*row.prefix, *row.words, environ=wanted, check=False)


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_told_with_the_way_out(named: Network, mistake: str, request: pytest.FixtureRequest) -> None:
    """A common mistake ends with one line that names it and the way out, and nothing that leads astray."""
    row = WRONG[mistake]
    if row.prefix == TO_OTHER_USER:
        request.getfixturevalue("other_users")
    done = outcome(named, row)
    assert done.returncode == row.status, done
    last = (done.stdout if row.words[1] == "doctor" and row.words[0] == CTL else done.stderr).splitlines()[-1]
    assert [part for part in row.says if part not in last] == [], last
    assert [part for part in row.never if part in last] == [], last


def test_verbs_of_the_advice_are_those_of_the_tool() -> None:
    """The verbs that a start recognises as such are all of imds-detourctl's."""
    assert tuple(main.VERBS) == commands.VERBS


def test_remove_inside_the_app_names_docker_exec(network: Network) -> None:
    """Inside the app, which has lost NET_ADMIN, `remove` and `doctor` say that this is meant, and name docker exec."""
    network.start_mock()
    network.wanted["MOCK_HOSTNAME"] = MOCK
    for verb in ("remove", "doctor"):
        done = network.detour("sh", "-c", f"exec {CTL} {verb} 2>&1")
        last = done.stdout.splitlines()[-1]
        assert "imds-detour drops it on purpose when it starts the app" in last, done
        assert "docker exec --user root" in last
    # Control: without a guard the capability was not dropped, but never given.
    assert network.ctl("remove").returncode == 0
    assert "cap_add" in network.ctl("remove", prefix=without("net_admin")).stderr


def test_doctor_without_resolv_conf_names_the_path_once(running: Network) -> None:
    """Without /etc/resolv.conf the doctor's line has its path once."""
    script = f"mount -t tmpfs tmpfs /etc; exec {CTL} doctor --json"
    done = running.app.run(
        "unshare", "--mount", "sh", "-c", script, environ=running.settings(None, MOCK_HOSTNAME="mock"), check=False
    )
    (resolver,) = (row for row in json.loads(done.stdout)["findings"] if row["name"] == "resolver")
    assert resolver["state"] == "fail"
    assert resolver["seen"].count("/etc/resolv.conf") == 1, resolver


def refusal(**environ: str) -> str:
    """Return the reason of the error for these settings."""
    with pytest.raises(DetourError) as error:
        settings.parse({"MOCK_HOSTNAME": "mock", **environ})
    assert error.value.reason.isprintable()
    return error.value.reason


CAUSES = [
    ("MOCK_HOSTNAME", "", "it is empty", ""),
    ("MOCK_HOSTNAME", "'mock'", "its quotes are part of it", "mock"),
    ("MOCK_HOSTNAME", '"mock"', "its quotes are part of it", "mock"),
    ("MOCK_HOSTNAME", "mock\r", r"it ends with \r", "mock"),
    ("MOCK_PORT", "1338\r", r"it ends with \r", "1338"),
    ("MOCK_HOSTNAME", " mock ", "it has blanks", "mock"),
    ("MOCK_PORT", " 80", "it has blanks", "80"),
    ("MOCK_HOSTNAME", "http://mock:80/", "it is a URL", "mock:80"),
    (
        "MOCK_HOSTNAME",
        '"http://mock:80/latest"\r',
        r"it ends with \r, as lines in files of Windows do, its quotes are part of it, it is a URL",
        "mock:80",
    ),
    ("MOCK_HOSTNAME", "mock:80/", "it has a path", "mock:80"),
    ("MOCK_HOSTNAME", "möck", "names have the letters a to z", ""),
    ("MOCK_HOSTNAME", "mock1 mock2", "it is one host, perhaps with :port", ""),
    ("MOCK_ENDPOINTS", "aws,ecs=http://creds/x", "it is a URL", "aws,ecs=creds"),
    ("MOCK_ENDPOINTS", "aws gcp", "", "aws,gcp"),
    ("MOCK_ENDPOINTS", "aws,", "an empty entry", "aws"),
    ("MOCK_ENDPOINTS", "awz,Amazon", "'awz' is none of them", "aws,aws"),
    ("MOCK_BACKEND", "iptables", "", "legacy"),
    ("MOCK_BACKEND", "iptables-nft", "", "nft"),
    ("MOCK_BACKEND", "'nft'", "its quotes are part of it", "nft"),
    ("MOCK_TIMEOUT", "2m", "", "120"),
    ("MOCK_TIMEOUT", "500ms", "", "0.5"),
    ("MOCK_TIMEOUT", "1,5", "", "1.5"),
    ("MOCK_PORT", "1338/tcp", "", "1338"),
    ("MOCK_PORT", "tcp://10.0.0.1:80", "", "80"),
    ("MOCK_PROBE", "latest/meta-data/", "", "/latest/meta-data/"),
    ("MOCK_GUARD", "none", "", "off"),
    ("MOCK_KEEP_NET_ADMIN", "'true'", "its quotes are part of it", "true"),
    ("MOCK_LOG", "verbose", "", "debug"),
    ("MOCK_NO_PROXY", "keeep", "", "keep"),
]


@pytest.mark.parametrize(("name", "value", "cause", "meant"), CAUSES)
def test_wrong_value_gets_its_cause_and_what_was_meant(name: str, value: str, cause: str, meant: str) -> None:
    """The cause of a wrong value is named, and the valid value that was probably meant."""
    reason = refusal(**{name: value})
    assert cause in reason
    assert reason.endswith(f"did you mean {meant}?)") if meant else "did you mean" not in reason
    if meant:
        settings.parse({"MOCK_HOSTNAME": "mock", name: meant})


@pytest.mark.parametrize(("name", "value"), [("MOCK_PORT", "http"), ("MOCK_USER", ":"), ("MOCK_LOG", "qqq")])
def test_value_without_a_likely_meaning_gets_no_hint(name: str, value: str) -> None:
    """Control: a value that resembles no valid one gets no question."""
    assert "did you mean" not in refusal(**{name: value})


KUBERNETES = {
    "MOCK_SERVICE_HOST": "10.0.0.1",
    "MOCK_SERVICE_PORT": "80",
    "MOCK_PORT": "tcp://10.0.0.1:80",
    "MOCK_PORT_80_TCP": "tcp://10.0.0.1:80",
    "MOCK_PORT_80_TCP_ADDR": "10.0.0.1",
    "MOCK_HOSTNAME_SERVICE_HOST": "10.0.0.2",
    "MOCK_HOSTNAME_PORT": "tcp://10.0.0.2:80",
}
"""The variables of the Services mock and mock-hostname (Kubernetes documentation, "Accessing the Service")."""
LINKED = {
    "MOCK_NAME": "/app/mock",
    "MOCK_PORT": "tcp://172.17.0.2:1338",
    "MOCK_PORT_1338_TCP": "tcp://172.17.0.2:1338",
    "MOCK_PORT_1338_TCP_PROTO": "tcp",
    "MOCK_ENV_PATH": "/bin",
}
"""The variables of ``--link mock:mock`` (Docker documentation, "Legacy container links")."""


@pytest.mark.parametrize("injected", [KUBERNETES, LINKED], ids=["Kubernetes", "--link"])
def test_variables_of_a_platform_are_ignored(injected: dict[str, str]) -> None:
    """What Kubernetes and --link set for a service `mock` is no setting; MOCK_PORT then has its default."""
    environ = {"MOCK_HOSTNAME": "mock", **injected}
    (service,) = settings.parse(environ).services
    assert (service.mock.port, service.mock.default_port, settings.unknown(environ)) == (80, True, ())
    # Controls: the same form without the platform's other variables, and a port beside them, are the user's.
    assert "MOCK_PORT=" in refusal(MOCK_PORT=injected["MOCK_PORT"])
    (service,) = settings.parse({**environ, "MOCK_PORT": "1338"}).services
    assert (service.mock.port, service.mock.default_port) == (1338, False)


@pytest.mark.parametrize(
    ("environ", "default"),
    [
        ({"MOCK_HOSTNAME": "mock"}, True),
        ({"MOCK_HOSTNAME": "mock", "MOCK_PORT": ""}, True),
        ({"MOCK_HOSTNAME": "mock:80"}, False),
        ({"MOCK_HOSTNAME": "mock", "MOCK_PORT": "80"}, False),
        ({"MOCK_ENDPOINTS": "aws=mock"}, True),
        ({"MOCK_ENDPOINTS": "aws=mock:80"}, False),
    ],
)
def test_mock_address_knows_whether_a_setting_gives_its_port(environ: dict[str, str], default: bool) -> None:
    """A port that no setting gives is a default, and otherwise the same address."""
    (service,) = settings.parse(environ).services
    (other,) = settings.parse({"MOCK_HOSTNAME": "mock:80"}).services
    assert (service.mock.default_port, service.mock) == (default, other.mock)


ELSEWHERE = {
    "http://other:1338": "AWS_EC2_METADATA_SERVICE_ENDPOINT leads to http://other:1338",
    "http://user:secret@other/path": "AWS_EC2_METADATA_SERVICE_ENDPOINT leads to http://other",
    "http://169.254.169.254": "",
    "http://169.254.169.254:80/": "",
    f"http://{MOCK}:{PORT}/": "",
    "": "",
}


@pytest.mark.parametrize("value", ELSEWHERE)
def test_endpoint_variable_that_leads_elsewhere_is_a_warning(running: Network, value: str) -> None:
    """A start warns of an endpoint variable that leads neither to the redirect nor to the mock, as doctor does."""
    environ = running.settings(None, MOCK_HOSTNAME=MOCK, AWS_EC2_METADATA_SERVICE_ENDPOINT=value)
    stderr = running.app.run(DETOUR, "true", environ=environ).stderr
    doctor = running.app.run(CTL, "doctor", environ=environ).stdout
    expected = ELSEWHERE[value]
    for text in (stderr, doctor):
        assert expected in text
        assert "secret" not in text
        assert ("SDKs that follow it ask there" in text) is bool(expected), text


def test_endpoint_mode_ipv6_without_a_redirect_there_is_a_warning(running: Network) -> None:
    """A start warns of the mode IPv6 when the IPv6 address is not redirected; IPv4 (control) is no reason to warn."""
    for mode, warned in (("IPv6", True), ("IPv4", False)):
        environ = running.settings(None, MOCK_HOSTNAME=MOCK, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=mode)
        stderr = running.app.run(DETOUR, "true", environ=environ).stderr
        assert ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6: " in stderr) is warned, stderr


@pytest.mark.usefixtures("other_users")
def test_env_backend_of_an_ordinary_user_keeps_sudo_working(running: Network) -> None:
    """MOCK_BACKEND=env as an ordinary user sets no no_new_privs, so sudo works; as root it drops NET_ADMIN."""
    environ = running.settings(None, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="env")
    command = (DETOUR, "grep", "-E", "NoNewPrivs|CapBnd", "/proc/self/status")
    bounding, privileges = running.app.run(*TO_OTHER_USER, *command, environ=environ).stdout.splitlines()
    assert int(bounding.split()[1], 16) & NET_ADMIN, "the bounding set of an ordinary user on a laptop"
    assert privileges.split() == ["NoNewPrivs:", "0"]
    bounding, privileges = running.app.run(*command, environ=environ).stdout.splitlines()
    assert not int(bounding.split()[1], 16) & NET_ADMIN


def test_failing_start_ends_with_where_to_look_next(running: Network) -> None:
    """The last line of a failing start, and its JSON, end with doctor; errors of usage do not."""
    late = running.settings(None, MOCK_HOSTNAME=MOCK, MOCK_PORT="1", MOCK_TIMEOUT="0.2")
    assert running.app.run(DETOUR, "true", environ=late, check=False).stderr.endswith(f"; {MORE}\n")
    logged = running.app.run(DETOUR, "true", environ={**late, "MOCK_LOG": "json"}, check=False).stderr
    assert json.loads(logged.splitlines()[-1])["remedy"].endswith(f"; {MORE}")
    for words in ((DETOUR,), (DETOUR, "no-such")):
        assert MORE not in running.app.run(*words, environ=late, check=False).stderr


def test_other_spelling_is_looked_up_in_bounded_time(network: Network) -> None:
    """A DNS server that leaves questions open delays the failing start by little; libc alone would wait for 5 s."""
    network.start_dns("half:other=10.88.0.9")
    began = time.monotonic()
    assert "no-such-mock: ...}" in network.failure("true", MOCK_HOSTNAME="no-such-mock", MOCK_TIMEOUT="0.5")
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("word", ["nftables", "NFT"])
def test_flags_take_the_words_that_variables_take(running: Network, word: str) -> None:
    """A flag takes the same words as its variable; one that means nothing certain is wrong usage."""
    plan = (CTL, "plan", "--mock", MOCK, "--backend")
    assert running.app.run(*plan, word).stdout == running.app.run(*plan, "nft").stdout
    done = running.app.run(*plan, "iptables", check=False)
    assert (done.returncode, "'legacy'" in done.stderr) == (2, True)


def test_failure_without_advice_is_still_reported(running: Network, tmp_path: Path) -> None:
    """If the advice cannot be loaded, as by a user who may not read it, the failure is reported without it."""
    without = "import sys; sys.modules['imds_detour.advice.failure'] = None"
    script = f"{without}; from imds_detour.bootstrap.pip import main; main()"
    program = tmp_path / "program"
    program.write_bytes(b"#!/no/such/interpreter\n")
    program.chmod(0o755)
    environ = running.settings(None, MOCK_HOSTNAME=MOCK)
    for command, status, reason in (
        ("doctor", 127, "command not found in PATH: 'doctor'; correct it, or install it in the image"),
        (str(program), 127, f"cannot execute '{program}': no such file or directory"),
    ):
        done = running.app.run(sys.executable, "-c", script, command, environ=environ, check=False)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (status, f"imds-detour: {reason}")
