"""Podman, rootful and rootless: entrypoint, users, networks, volume, sidecar, builds and pods."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.podman.conftest import LAN, MOCK, PREFIX, start
from tests.podman.engine import ID_URL, ROOT, Podman, eventually
from tests.support.hosts.network import INSTANCE

FOLDER = "/opt/imds-detour"
CTL = f"{FOLDER}/bin/imds-detourctl"
APP, PLAIN, SIDECAR = f"{PREFIX}/app", f"{PREFIX}/plain", f"{PREFIX}/ctl"
SETTINGS = ("--env", f"MOCK_HOSTNAME={MOCK}:1338")
REDIRECTED = (*SETTINGS, "--cap-add", "NET_ADMIN")
CAPABILITIES = ("CapPrm", "CapEff", "CapAmb")


def once(podman: Podman, *arguments: str, network: str = LAN) -> tuple[int, str, str]:
    """Run a container to its end, and return its status and its streams."""
    options = ("--rm", "--pull", "never", "--network", network)
    done = podman.run("run", *options, *arguments, check=False)
    return done.returncode, done.stdout, done.stderr


def test_app_reads_the_mock_by_nftables(podman: Podman) -> None:
    """The app reads the mock. Podman gives no NET_RAW, so nftables redirects. Control: an app without imds-detour."""
    status, answer, log = once(podman, *REDIRECTED, APP, "get", ID_URL)
    assert (status, answer) == (0, INSTANCE), log
    assert f", nftables, verified IMDSv2 {INSTANCE}" in log
    status, answer, _ = once(podman, PLAIN, "get", ID_URL)
    assert status
    assert not answer


@pytest.mark.parametrize(("options", "uid"), [(("--user", "1000"), "1000"), (("--env", "MOCK_USER=app"), "1000")])
def test_another_user_starts_and_keeps_no_capability(podman: Podman, options: tuple[str, ...], uid: str) -> None:
    """`--user` keeps NET_ADMIN as an ambient capability, so MOCK_USER is not needed; the app has none either way."""
    script = f"id -u; get {ID_URL}; echo; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status"
    status, output, log = once(podman, *REDIRECTED, *options, APP, "sh", "-c", script)
    assert status == 0, log
    lines = output.splitlines()
    assert lines[:2] == [uid, INSTANCE]
    assert {line.split(":")[0]: int(line.split()[1], 16) for line in lines[2:]} == dict.fromkeys(CAPABILITIES, 0)


def test_app_does_not_start_without_net_admin_or_a_mock(podman: Podman) -> None:
    """Without NET_ADMIN, or without a mock in time, the app does not start and a line says why."""
    for options, reason in (
        (SETTINGS, "no NET_ADMIN capability"),
        (("--cap-add=NET_ADMIN", "--env=MOCK_HOSTNAME=no-such-host", "--env=MOCK_TIMEOUT=1"), "no-such-host"),
    ):
        status, output, log = once(podman, *options, APP, "get", ID_URL)
        assert (status, output) == (125, "")
        assert reason in log


def test_init_repairs_a_network_that_was_disconnected(podman: Podman, name: str) -> None:
    """After disconnect and connect the app gets no answer, until `imds-detourctl init` runs in it; no restart."""
    start(podman, "--name", name, *REDIRECTED, APP)
    podman.says(name, "; exec sleep")
    assert podman.asks(name) == INSTANCE
    podman.run("network", "disconnect", LAN, name)
    assert podman.asks(name) == ""
    podman.run("network", "connect", LAN, name)
    assert podman.asks(name) == ""
    podman.run("exec", name, CTL, "init")
    assert podman.asks(name) == INSTANCE


def test_unmodified_image_starts_from_a_volume(podman: Podman, name: str) -> None:
    """`imds-detourctl copy` fills a named volume, and a plain image starts imds-detour from there."""
    copy = ("--read-only", "--cap-drop", "ALL", "--volume", f"{name}:/volume", "--entrypoint", CTL)
    for said in ("files written", "up to date"):
        status, output, log = once(podman, *copy, f"{PREFIX}/bundle", "copy", "/volume", network="none")
        assert status == 0, log
        assert said in output
    options = ("--volume", f"{name}:{FOLDER}:ro", "--entrypoint", f"{FOLDER}/bin/imds-detour")
    assert once(podman, *REDIRECTED, *options, PLAIN, "get", ID_URL)[:2] == (0, INSTANCE)
    podman.run("volume", "rm", name)


def sidecar_options() -> list[str]:
    """Return compose.sidecar.yaml's service of the sidecar as options of `podman run`."""
    with open(f"{ROOT}/docker/compose.sidecar.yaml") as file:
        service = yaml.safe_load(file)["services"]["metadata"]
    health = service["healthcheck"]
    assert (service["read_only"], health["test"][0]) == (True, "CMD")
    return [
        *(f"--cap-drop={name}" for name in service["cap_drop"]),
        *(f"--cap-add={name}" for name in service["cap_add"]),
        *(f"--security-opt={name}" for name in service["security_opt"]),
        "--read-only",
        f"--health-cmd={json.dumps(health['test'][1:])}",
        f"--health-interval={health['interval']}",
    ]


def test_sidecar_serves_an_unmodified_image(podman: Podman, name: str) -> None:
    """An app in the sidecar's network reads the mock, and the health check of the Compose file succeeds."""
    side = f"{name}-side"
    start(podman, "--name", side, *SETTINGS, *sidecar_options(), SIDECAR)
    try:
        podman.says(side, "verified")
        start(podman, "--name", name, PLAIN, "sleep", "3600", network=f"container:{side}")
        assert podman.asks(name) == INSTANCE
        assert podman.run("healthcheck", "run", side).returncode == 0
    finally:
        podman.run("rm", "--force", "--time", "0", "--depend", side)


def test_build_in_oci_format_drops_the_health_check(podman: Podman, archives: Path) -> None:
    """`podman build` drops HEALTHCHECK, so the Compose file has one; `--format docker` keeps it (the control)."""
    kept = f"{PREFIX}/ctl-docker"
    context = ("--file", str(archives / "ctl.Dockerfile"), str(archives / "plain"))
    podman.run("build", "--pull-never", "--format", "docker", "--tag", kept, *context)
    inspect = ("image", "inspect", "--format", "{{json .HealthCheck}}")
    assert ["imds-detourctl" in podman.run(*inspect, image).stdout for image in (kept, SIDECAR)] == [True, False]


@pytest.fixture
def pods(podman: Podman) -> str:
    """Return a file with the pods of examples/podman-kube, with the images of these tests."""
    with open(f"{ROOT}/examples/podman-kube/app.yaml") as file:
        text = file.read()
    text, changes = re.subn(
        r"image: (\S+)", lambda found: f"image: {PREFIX}/{'app' if 'my-app' in found[1] else 'mock'}", text
    )
    assert changes == 2
    path = f"{podman.folder}/pods.yaml"
    with open(path, "w") as file:
        file.write(text)
    return path


def test_pod_behind_the_entrypoint_starts_again(podman: Podman, pods: str) -> None:
    """The app of examples/podman-kube reads the mock pod, and again after `podman pod stop` and `start`."""
    try:
        podman.run("kube", "play", "--network", LAN, pods)
        podman.says("app-main", "; exec sleep")
        assert podman.asks("app-main") == INSTANCE
        podman.run("pod", "stop", "--time", "0", "app")
        assert podman.asks("app-main") == ""
        # The exit policy of such pods, `stop`, is carried out late: it can stop the pod that has just been started.
        start_again = ("pod", "start", "app")
        assert eventually(lambda: podman.run(*start_again).returncode == 0 and podman.asks("app-main") == INSTANCE)
    finally:
        podman.run("pod", "rm", "--force", "--all", "--time", "0")
