"""The steps of Kubernetes for a pod, from the manifests: one network, containers in order, and restarts."""

import copy
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, output, read_until
from tests.support.hosts.pods import BACKEND, CLUSTER_IP, OTHER_BACKEND, SERVICE, Cluster
from tests.support.judges import kubernetes, rules_listing
from tests.support.judges.kubernetes import Manifest
from tests.support.judges.rules_listing import all_rules

OTHER = "i-0ther0backend00"
REAL = "i-0real0real0real00"


@pytest.fixture
def cluster(other_users: None) -> Iterator[Cluster]:  # noqa: ARG001  (it may skip)
    """Give a node, a pod in the namespace ``default``, and a backend."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    """Give a cluster whose DNS and mock answer."""
    cluster.start_cluster_dns()
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    return cluster


def pod(example: str = "init") -> Manifest:
    """Return the spec of an example's pod."""
    deployment = kubernetes.find_manifest(kubernetes.render(f"example/{example}"), "Deployment", "app")
    spec: Manifest = kubernetes.pod_of(deployment)["spec"]
    return spec


def init(cluster: Cluster, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the init container of the manifest."""
    return cluster.container(pod()["initContainers"][0], pod()["securityContext"], **environ)


class Sidecar:
    """The example's sidecar, started and probed as by the kubelet."""

    def __init__(self, cluster: Cluster) -> None:
        """Start the container."""
        spec = pod("sidecar")
        self._cluster, self._shared = cluster, spec["securityContext"]
        self._container: Manifest = spec["initContainers"][0]
        assert self._container["restartPolicy"] == "Always", "a sidecar has this"
        self.process = cluster.start_container(self._container, self._shared)

    def probe(self) -> bool:
        """Run the startup probe once in the container, with its user and capabilities."""
        command = self._container["startupProbe"]["exec"]["command"]
        return self._cluster.container({**self._container, "command": command}, self._shared).returncode == 0

    def started(self) -> bool:
        """Probe until it succeeds, as often as the manifest allows."""
        return any(self.probe() for _ in range(self._container["startupProbe"]["failureThreshold"]))

    def end(self, number: int) -> None:
        """Send the sidecar a signal, and wait for its end."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


def app(cluster: Cluster) -> str:
    """Run the app's container, which asks for the instance id, and return its output."""
    container = {**pod()["containers"][0], "command": ["curl", "-sS", "--max-time", "5", ID_URL]}
    done = cluster.container(container, pod()["securityContext"])
    return done.stdout or done.stderr


def test_app_reaches_the_mock_by_its_cluster_ip(running: Cluster) -> None:
    """The init container has NET_ADMIN only. Control: without it, a cloud's node sends the app to the real service."""
    running.node.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    running.start_real_service(running.node)
    assert app(running) == REAL
    done = init(running)
    assert done.returncode == 0, done.stderr
    assert CLUSTER_IP in done.stdout
    assert INSTANCE in done.stdout
    assert app(running) == INSTANCE


def test_variables_of_a_service_give_no_warning(running: Cluster) -> None:
    """The kubelet's variables MOCK_METADATA_* give no warning, and a typo does."""
    container = {**pod()["initContainers"][0], "command": ["imds-detour", "true"]}  # the wrapper warns of typos
    assert "is not a setting" not in running.container(container).stderr
    assert "MOCK_PROT is not a setting of imds-detour" in running.container(container, MOCK_PROT="1338").stderr


def test_missing_mock_fails_the_init_container(cluster: Cluster) -> None:
    """Without a mock the init container fails and leaves the guard only. Its next run with a mock succeeds."""
    cluster.start_cluster_dns()
    done = init(cluster, MOCK_TIMEOUT="0.5")
    assert done.returncode == 125
    assert f"no mock after 0.5 s: {SERVICE} ({CLUSTER_IP}:1338)" in done.stderr
    listed = cluster.pod.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), METADATA in rules_listing.guarded(listed)) == (set(), True)
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    assert (init(cluster).returncode, app(cluster)) == (0, INSTANCE)


def test_rules_outlive_every_container(running: Cluster) -> None:
    """The rules belong to the pod's network: a restarted app uses them, and a restarted init container keeps them."""
    assert init(running).returncode == 0
    rules = all_rules(running.pod)
    assert METADATA in rules
    for _ in range(2):
        assert (app(running), init(running).returncode, all_rules(running.pod)) == (INSTANCE, 0, rules)


def test_service_follows_a_rescheduled_mock(running: Cluster) -> None:
    """The ClusterIP stays, so the next request reaches the new pod without a change of the redirect."""
    running.backend.run("sh", "-c", f'echo \'{{"meta-data": {{"instance-id": "{OTHER}"}}}}\' > /run/other.json')
    assert (init(running).returncode, app(running)) == (0, INSTANCE)
    running.start_mock("--data", "/run/other.json", port="1400", host=running.backend)
    running.backend.run("nft", "table ip moved { chain pre { type nat hook prerouting priority dstnat; }; }")
    to_the_other = f"ip daddr {OTHER_BACKEND} tcp dport 1338 redirect to :1400"
    running.backend.run("nft", f"add rule ip moved pre {to_the_other}")
    running.serve(CLUSTER_IP, OTHER_BACKEND)
    assert app(running) == OTHER


@pytest.mark.slow
def test_app_starts_when_the_sidecars_probe_succeeds(cluster: Cluster) -> None:
    """The sidecar is not ready without a mock; after its probe succeeds, the app reads from the mock."""
    cluster.start_cluster_dns()
    sidecar = Sidecar(cluster)
    assert "aws is closed while there is no mock" in read_until(sidecar.process)
    assert not sidecar.probe()
    cluster.start_backend()
    cluster.serve(CLUSTER_IP, BACKEND)
    assert sidecar.started()
    assert app(cluster) == INSTANCE
    sidecar.end(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_restarted_sidecar_leaves_no_gap(running: Cluster, number: int) -> None:
    """The rules stay in the pod's network until the next sidecar uses them, and the real service gets no request."""
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
def test_missing_privileges_fail_the_init_container(running: Cluster, change: Manifest, reason: str) -> None:
    """Without the capability or without root, the init container fails and names what is missing."""
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
def test_form_of_the_name_determines_the_dns_queries(
    other_users: None,  # noqa: ARG001  (it may skip)
    name: str,
    namespace: str,
    queries: int,
) -> None:
    """With ndots:5 each search domain costs an A and an AAAA query, unless the name ends with a dot."""
    with Cluster(namespace) as cluster:
        server = cluster.start_cluster_dns()
        cluster.start_backend()
        cluster.serve(CLUSTER_IP, BACKEND)
        done = init(cluster, MOCK_HOSTNAME=name)
        assert done.returncode == 0, done.stderr
        asked = [line for line in output(server).splitlines() if line.startswith(("udp", "tcp"))]
    assert len(asked) == queries, asked
