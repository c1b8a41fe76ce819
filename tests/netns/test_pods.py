"""What Kubernetes does with a pod, acted out from the manifests: one network, containers in order, each restarted."""

from __future__ import annotations

import copy
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import ID_URL, INSTANCE, METADATA
from tests.support.hosts.pods import BACKEND, CLUSTER_IP, OTHER_BACKEND, SERVICE, Cluster
from tests.support.judges import kubernetes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.judges.kubernetes import Manifest

OTHER = "i-0ther0backend00"
REAL = "i-0real0real0real00"


@pytest.fixture
def cluster(other_users: None) -> Iterator[Cluster]:  # noqa: ARG001  (it skips where there are none)
    """Give a node, a pod in the namespace ``default``, and a backend."""
    with Cluster() as made:
        yield made


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    """Give a cluster whose DNS and mock answer."""
    cluster.start_cluster_dns()
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    return cluster


def pod() -> Manifest:
    """Return the spec of the example's pod with the init container."""
    deployment = kubernetes.find_manifest(kubernetes.render("example/init"), "Deployment", "app")
    spec: Manifest = kubernetes.pod_of(deployment)["spec"]
    return spec


def init(cluster: Cluster, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the init container as its manifest says."""
    return cluster.container(pod()["initContainers"][0], pod()["securityContext"], **environ)


class Sidecar:
    """The example's sidecar at work, started and asked by its startup probe as the kubelet does it."""

    def __init__(self, cluster: Cluster) -> None:
        """Start the container."""
        deployment = kubernetes.find_manifest(kubernetes.render("example/sidecar"), "Deployment", "app")
        spec = kubernetes.pod_of(deployment)["spec"]
        self._cluster, self._shared = cluster, spec["securityContext"]
        self._container: Manifest = spec["initContainers"][0]
        assert self._container["restartPolicy"] == "Always", "this makes it a sidecar"
        self.process = cluster.start_container(self._container, self._shared)

    def probe(self) -> bool:
        """Run the startup probe once, in the container: with its user and capabilities."""
        command = self._container["startupProbe"]["exec"]["command"]
        return self._cluster.container({**self._container, "command": command}, self._shared).returncode == 0

    def started(self) -> bool:
        """Probe until it succeeds, as often as the manifest allows."""
        return any(self.probe() for _ in range(self._container["startupProbe"]["failureThreshold"]))

    def end(self, number: int) -> None:
        """Send it a signal and wait for its end."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


def app(cluster: Cluster) -> str:
    """Run the app's container, which asks for the instance id and ends; return what it saw."""
    container = {**pod()["containers"][0], "command": ["curl", "-sS", "--max-time", "5", ID_URL]}
    done = cluster.container(container, pod()["securityContext"])
    return done.stdout or done.stderr


def firewall(cluster: Cluster) -> str:
    """Return every rule in the pod's network."""
    return cluster.pod.run("nft", "list", "ruleset").stdout + cluster.rules()


def without_counters(rules: str) -> str:
    """Return rules without what they have counted."""
    return "\n".join(line.partition(" packets ")[0] for line in rules.splitlines())


def test_the_app_reaches_the_mock_by_way_of_its_cluster_ip(running: Cluster) -> None:
    """With NET_ADMIN alone, a read-only root and no new privileges; the app is nobody, with no capability."""
    done = init(running)
    assert done.returncode == 0, done.stderr
    assert CLUSTER_IP in done.stdout
    assert INSTANCE in done.stdout
    assert app(running) == INSTANCE


def test_variables_of_a_service_are_no_typos(running: Cluster) -> None:
    """The kubelet's MOCK_METADATA_* are passed over in silence; a typo beside them is not."""
    container = {**pod()["initContainers"][0], "command": ["imds-detour", "true"]}  # the wrapper warns of typos
    assert "is not a setting" not in running.container(container).stderr
    assert "MOCK_PROT is not a setting of imds-detour" in running.container(container, MOCK_PROT="1338").stderr


def test_without_the_init_container_the_app_reaches_the_real_service(running: Cluster) -> None:
    """The control, and the reason for all of this: a node of a cloud leads the address to the real one."""
    running.node.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    running.start_real_service(running.node)
    assert app(running) == REAL
    assert init(running).returncode == 0
    assert app(running) == INSTANCE


def test_a_mock_that_is_not_there_keeps_the_app_from_starting(cluster: Cluster) -> None:
    """The init container fails, Kubernetes tries again, and the app waits; nothing of ours stays from the failure."""
    cluster.start_cluster_dns()
    before = firewall(cluster)
    done = init(cluster, MOCK_TIMEOUT="0.5")
    assert done.returncode == 125
    assert f"no mock after 0.5 s: {SERVICE} ({CLUSTER_IP}:1338)" in done.stderr
    assert firewall(cluster) == before
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    assert init(cluster).returncode == 0
    assert app(cluster) == INSTANCE


def test_the_rules_outlive_every_container(running: Cluster) -> None:
    """They belong to the pod's network: a restart of the app finds them, one of ours changes nothing."""
    assert init(running).returncode == 0
    rules = without_counters(firewall(running))
    assert METADATA in rules
    for _ in range(2):
        assert app(running) == INSTANCE
        assert init(running).returncode == 0
        assert without_counters(firewall(running)) == rules


def test_a_mock_that_is_rescheduled_is_followed_by_its_service(running: Cluster) -> None:
    """The ClusterIP stays: the next request goes to the new pod, and nothing of ours has to act."""
    running.backend.run("sh", "-c", f'echo \'{{"meta-data": {{"instance-id": "{OTHER}"}}}}\' > /run/other.json')
    assert init(running).returncode == 0
    assert app(running) == INSTANCE
    running.start_mock("--data", "/run/other.json", port="1400", host=running.backend)
    running.backend.run("nft", "table ip moved { chain pre { type nat hook prerouting priority dstnat; }; }")
    to_the_other = f"ip daddr {OTHER_BACKEND} tcp dport 1338 redirect to :1400"
    running.backend.run("nft", f"add rule ip moved pre {to_the_other}")
    running.serve(CLUSTER_IP, OTHER_BACKEND)
    assert app(running) == OTHER


@pytest.mark.slow
def test_the_app_starts_when_the_sidecars_probe_succeeds(cluster: Cluster) -> None:
    """Closed from the start, not ready while there is no mock; then the app reads from it."""
    cluster.start_cluster_dns()
    sidecar = Sidecar(cluster)
    assert sidecar.process.stderr is not None
    assert "aws is closed while there is no mock" in sidecar.process.stderr.readline()
    assert not sidecar.probe()
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    assert sidecar.started()
    assert app(cluster) == INSTANCE
    sidecar.end(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_sidecar_that_is_restarted_leaves_no_gap(running: Cluster, number: int) -> None:
    """The rules belong to the pod's network and stay; the next one takes them over. The real service hears nothing."""
    running.node.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    running.start_real_service(running.node)
    for _ in range(2):
        sidecar = Sidecar(running)
        assert sidecar.started()
        assert app(running) == INSTANCE
        sidecar.end(number)
        assert app(running) == INSTANCE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"capabilities": {"drop": ["ALL"]}}, "no NET_ADMIN capability"),
        ({"runAsUser": 1000, "runAsNonRoot": True}, "no NET_ADMIN capability"),
    ],
    ids=["no capability", "not root"],
)
def test_less_privilege_is_too_little(running: Cluster, change: Manifest, reason: str) -> None:
    """Neither the capability nor root can be left out; the message says what is missing, and the app does not start."""
    container = copy.deepcopy(pod()["initContainers"][0])
    container["securityContext"].update(change)
    done = running.container(container, pod()["securityContext"])
    assert done.returncode == 125
    assert reason in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "namespace", "queries"),
    [
        ("mock-metadata", "default", 2),
        ("mock-metadata.default", "team", 4),
        ("mock-metadata.default.svc.cluster.local", "team", 8),
        ("mock-metadata.default.svc.cluster.local.", "team", 2),
    ],
)
def test_how_the_name_is_written_decides_how_often_dns_is_asked(
    other_users: None,  # noqa: ARG001  (it skips where there are none)
    name: str,
    namespace: str,
    queries: int,
) -> None:
    """With ndots:5 the search list comes first, an A and an AAAA question each time; a final dot ends it."""
    with Cluster(namespace) as cluster:
        server = cluster.start_cluster_dns()
        cluster.start_backend()
        cluster.serve(CLUSTER_IP, BACKEND)
        done = init(cluster, MOCK_HOSTNAME=name)
        assert done.returncode == 0, done.stderr
        server.terminate()
        assert server.stdout is not None
        asked = [line for line in server.stdout.read().splitlines() if line.startswith(("udp", "tcp"))]
    assert len(asked) == queries, asked
