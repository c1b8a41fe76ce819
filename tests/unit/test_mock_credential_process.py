"""The output of a credential process, and what the mock's documents make of it."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour_mock import credential_process
from imds_detour_mock.clouds.credentials import NoCredentialsError, Rotation
from imds_detour_mock.clouds.documents import timestamp
from imds_detour_mock.credential_process import LIFETIME, CredentialProcess, ProcessError, parse, run
from tests.support.servers.clouds import NOW, get, json_body, mock

SECRET = "marked-secret"  # noqa: S105  (what the tests look for)
GOOD = {"Version": 1, "AccessKeyId": "AKIAMARKED", "SecretAccessKey": SECRET}
LATER = {**GOOD, "SessionToken": "marked-token", "Expiration": timestamp(NOW + 3600)}
ROLE = "/latest/meta-data/iam/security-credentials/imds-detour-mock-role"
AWS_PATHS = (ROLE, "/v2/credentials/x", "/creds", "/role/x", "/v1/credentials")
OTHER_PATHS = (
    "/computeMetadata/v1/instance/service-accounts/default/token",
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r",
    "/latest/meta-data/ram/security-credentials/imds-detour-mock-role",
)
HEADERS = {"authorization": "x", "metadata-flavor": "Google", "metadata": "true"}


@pytest.mark.parametrize(
    ("document", "served", "lifetime"),
    [
        (GOOD, {"Token": ""}, LIFETIME),
        (LATER, {"Token": "marked-token"}, 3600),
        ({**LATER, "Expiration": "2023-11-15T00:13:20+01:00"}, {"Token": "marked-token"}, 3600),
        ({**LATER, "Expiration": "2023-11-14T23:13:20"}, {"Token": "marked-token"}, 3600),
        (
            {**GOOD, "AccountId": "210987654321", "SessionToken": None},
            {"Token": "", "AccountId": "210987654321"},
            LIFETIME,
        ),
        ({**GOOD, "SessionToken": "", "Other": [1]}, {"Token": ""}, LIFETIME),
    ],
)
def test_output_becomes_a_metadata_document(document: Any, served: dict[str, str], lifetime: float) -> None:  # noqa: ANN401  (any JSON)
    """The document has SDKs' required members, with an empty token if there is none, and an expiry in UTC."""
    keys = {"AccessKeyId": "AKIAMARKED", "SecretAccessKey": SECRET, "Expiration": timestamp(NOW + lifetime)}
    assert parse(json.dumps(document).encode(), NOW) == ({**keys, **served}, NOW + lifetime)


INVALID = {
    "": "not JSON",
    f"{{{SECRET}": "not JSON",
    "[" * 100_000: "not JSON",
    f'"{SECRET}"': 'no "Version": 1',
    json.dumps({**GOOD, "Version": 2}): 'no "Version": 1',
    json.dumps({**GOOD, "AccessKeyId": ""}): "no AccessKeyId that is text",
    json.dumps({**GOOD, "SecretAccessKey": [SECRET]}): "no SecretAccessKey that is text",
    json.dumps({"Version": 1, "AccessKeyId": SECRET}): "no SecretAccessKey that is text",
    json.dumps({**GOOD, "SessionToken": {"a": SECRET}}): "no SessionToken that is text",
    json.dumps({**GOOD, "Expiration": "marked-secret"}): "no ISO 8601 time",
    json.dumps({**GOOD, "Expiration": 1}): "no ISO 8601 time",
    json.dumps({**GOOD, "Expiration": "0001-01-01T00:00:00+14:00"}): "no ISO 8601 time|expired",
    json.dumps({**GOOD, "Expiration": timestamp(NOW)}): "expired at 2023-11-14T22:13:20Z",
}


@pytest.mark.parametrize("output", INVALID, ids=lambda text: text[:40])
def test_invalid_output_is_refused_without_repeating_it(output: str) -> None:
    """Each kind of invalid output is refused with its reason, which contains none of the output."""
    with pytest.raises(ProcessError, match=INVALID[output]) as error:
        parse(output.encode(), NOW)
    assert "marked" not in str(error.value)
    assert error.value.__cause__ is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)))
def test_any_expiration_is_refused_or_served(value: object) -> None:
    """Any Expiration is refused as a ProcessError, or served as a time after now; so is any date."""
    for expiration in (value, "9999-12-31T23:59:59-12:00"):
        try:
            members, end = parse(json.dumps({**GOOD, "Expiration": expiration}).encode(), NOW)
        except ProcessError:
            continue
        assert (end > NOW, members["Expiration"]) == (True, timestamp(end))


def refused(_now: float) -> dict[str, Any]:
    """Act as a credential process without valid credentials."""
    raise NoCredentialsError


def test_own_credentials_are_served_at_the_aws_paths_only() -> None:
    """EC2, ECS and EKS serve the process's members, other clouds their own; the built-in account id is removed."""
    members = parse(json.dumps(LATER).encode(), NOW)[0]
    own, failing = (mock(rotation=Rotation(issued=issued)) for issued in (lambda _now: members, refused))
    for path in AWS_PATHS:
        document = json_body(get(path, HEADERS, clouds=own))
        assert members.items() <= document.items()
        assert "AccountId" not in document
        assert "mock-se" not in json.dumps(document)
        refusal = get(path, HEADERS, clouds=failing)
        assert (refusal.status, refusal.cloud) == (503, {ROLE: "aws", "/v1/credentials": "eks"}.get(path, "ecs"))
    for path in OTHER_PATHS:
        headers = {**HEADERS, **({"host": "100.100.100.200"} if "ram" in path else {})}
        assert get(path, headers, clouds=failing).body == get(path, headers).body
    assert get(ROLE.rpartition("/")[0], clouds=failing).status == 200  # the role's name


AT_HOME = (
    *("169.254.170.2", "10.0.0.1:80", "[fd00:ec2::23]:80", "mock_metadata:1338", "localhost", "creds", ""),
    *("metadata.google.internal", "metadata.google.internal.:80"),
)
ABROAD = (
    "evil.example",
    "evil.example:1338",
    "EVIL.Example.",
    "1.2.3.evil:80",
    "metadata.google.internal.evil.example",
)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({"host": host}, 200) for host in AT_HOME),
        *(({"host": host}, 403) for host in ABROAD),
        ({"host": "169.254.170.2", "origin": "http://evil.example"}, 403),
    ],
)
def test_own_credentials_are_refused_to_web_pages(headers: dict[str, str], status: int) -> None:
    """A request of a page in the user's browser, by its Origin or its domain, gets no credentials of the user."""
    members = parse(json.dumps(LATER).encode(), NOW)[0]
    reply = get("/creds", headers, clouds=mock(rotation=Rotation(issued=lambda _now: members)))
    assert (reply.status, b"marked" in reply.body) == (status, status == 200)
    assert get("/creds", headers, clouds=mock(rotation=Rotation())).status == 200  # built-in ones are no secret


def test_rotation_on_request_renews_credentials_without_a_schedule() -> None:
    """`rotate` changes keys and tokens, with the same lifetime, and ends the current set of a schedule early."""
    rotation = Rotation()
    first = json_body(get("/creds", clouds=mock(rotation=rotation)))
    assert first == json_body(get("/creds"))
    rotation.rotate(NOW)
    second = json_body(get("/creds", clouds=mock(rotation=rotation)))
    assert {name for name in first if first[name] != second[name]} == {"AccessKeyId", "SecretAccessKey", "Token"}
    scheduled = Rotation(3600, NOW)
    scheduled.rotate(NOW + 100)
    assert scheduled.current_set(NOW + 100) == (1, NOW + 100, NOW + 3700)
    assert scheduled.current_set(NOW + 3400)[0] == 2


def shell(script: str) -> tuple[str, ...]:
    """Return the command of a shell script."""
    return ("/bin/sh", "-c", script)


def outcome(*command: str, environ: dict[str, str] | None = None) -> str:
    """Run a command as the mock does, and return its stdout or the error."""
    try:
        return asyncio.run(run(command, environ or {})).decode()
    except ProcessError as error:
        return str(error)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (shell(f"echo {SECRET} >&2; echo {SECRET}; exit 7"), "the command exited with status 7"),
        (shell(f"echo {SECRET}; kill -9 $$"), "the command was ended by signal 9"),
        (("/nowhere/no-program", SECRET), "cannot run /nowhere/no-program: no such file or directory"),
        (("/", SECRET), "cannot run /: permission denied"),
        (shell("cat; echo no terminal"), "no terminal\n"),
        (shell("echo $AWS_EC2_METADATA_DISABLED"), "true\n"),
    ],
)
def test_command_is_run_without_a_terminal_and_told_without_its_output(command: tuple[str, ...], text: str) -> None:
    """A failed command is told by its status or signal alone; stdin is empty, and IMDS is off for the command."""
    assert outcome(*command) == text
    assert (
        outcome(*shell("echo $AWS_EC2_METADATA_DISABLED"), environ={"AWS_EC2_METADATA_DISABLED": "false"}) == "false\n"
    )


def test_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the timeout the command and its children are killed."""
    monkeypatch.setattr(credential_process, "TIMEOUT", 0.5)
    pids = tmp_path / "pids"
    assert (
        outcome(*shell(f"sleep 1000 & echo $$ $! > {pids}; echo {SECRET}; wait"))
        == "the command did not end within 0.5 s"
    )
    deadline = time.monotonic() + 10
    for pid in pids.read_text().split():
        while os.path.exists(f"/proc/{pid}") and state(pid) != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)  # the kernel kills a process group without a notice to its sender


def test_daemon_of_the_command_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the command leaves behind, with its stdout, is no reason to wait, and lives on."""
    monkeypatch.setattr(credential_process, "TIMEOUT", 10.0)
    pid = int(outcome(*shell("sleep 1000 & echo $!")))
    os.kill(pid, signal.SIGKILL)  # fails if it does not exist


def state(pid: str) -> str:
    """Return the state of a process in /proc, such as Z for a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_secrets_are_in_no_representation() -> None:
    """The repr of a credential process has no word of its command, environment or credentials."""
    process = CredentialProcess(shell(f"echo '{json.dumps(GOOD)}'"), {"TOKEN": SECRET}, lambda _line: None)
    asyncio.run(process.refresh())
    assert process.current(time.time())["SecretAccessKey"] == SECRET  # the control
    assert "marked" not in repr(process)
