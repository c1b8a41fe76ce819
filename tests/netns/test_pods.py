"""The steps of Kubernetes for a pod, from the manifests: one network, containers in order, and restarts."""

import copy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import APP, APP6, FAULTY_DNS, ID_URL, INSTANCE, METADATA, MOCK, output, read_until
from tests.support.hosts.pods import BACKEND, CLUSTER_IP, OTHER_BACKEND, SERVICE, Cluster, settings
from tests.support.judges import kubernetes, rules_listing
from tests.support.judges.kubernetes import Manifest
from tests.support.judges.rules_listing import all_rules

OTHER = "i-0ther0backend00"
EKS = {SERVICE: CLUSTER_IP, "mock-pod-identity": "10.96.12.35"}
"""The Services of the example for EKS, and their ClusterIPs."""
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
    rendered = kubernetes.render(f"example/{example}")
    return kubernetes.with_settings(kubernetes.find_manifest(rendered, "Deployment", "app"), rendered)


def init(cluster: Cluster, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the init container of the manifest."""
    return cluster.container(pod()["initContainers"][0], pod()["securityContext"], **environ)


class Sidecar:
    """The example's sidecar, started and probed as by the kubelet."""

    def __init__(self, cluster: Cluster, *prefix: str, example: str = "sidecar") -> None:
        """Start the container, by another command if ``prefix`` is given."""
        spec = pod(example)
        self._cluster, self._shared = cluster, spec["securityContext"]
        self._container: Manifest = spec["initContainers"][0]
        assert self._container["restartPolicy"] == "Always", "a sidecar has this"
        self._container["command"] = [*prefix, *self._container["command"]]
        self.process = cluster.start_container(self._container, self._shared)

    def probe(self, address: str = APP) -> bool:
        """Make the startup probe once, at an address of the pod."""
        return self._cluster.probe(self._container["startupProbe"], address)

    def started(self, address: str = APP) -> bool:
        """Probe each period until it succeeds, as often as the manifest allows."""
        probe = self._container["startupProbe"]
        for _ in range(probe["failureThreshold"]):
            if self.probe(address):
                return True
            time.sleep(probe["periodSeconds"])  # the kubelet's period
        return False

    def end(self, number: int) -> list[str]:
        """Send the sidecar a signal, wait for its end, and return the lines of its stderr that were not read yet."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[1].splitlines()


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
@pytest.mark.parametrize("case", ["IPv6", "IPv4 only", "a kernel without IPv6"])
def test_kubelet_probes_the_sidecar_over_either_ip_version(running: Cluster, case: str) -> None:
    """The sidecar answers the kubelet at the pod's IPv4 address, also without IPv6, and at its IPv6 address."""
    if case == "IPv6":
        running.add_ipv6()
    else:
        running.without_ipv6()
    prefix = kernel_without("ipv6") if "kernel" in case else ()
    assert Sidecar(running, *prefix).started(APP6 if case == "IPv6" else APP)


@pytest.mark.slow
def test_waiting_sidecar_says_why_once(cluster: Cluster) -> None:
    """While the pods of a headless Service are silent, the reason is logged once, though its seconds differ."""
    addresses = ",".join(f"10.244.1.{number}" for number in range(11, 16))
    cluster.start(
        cluster.backend, sys.executable, FAULTY_DNS, BACKEND, f"{SERVICE}.default.svc.cluster.local={addresses}"
    )
    silent = "type filter hook forward priority 0; tcp dport 1338 drop;"
    cluster.node.run("nft", f"table ip silent {{ chain forwarded {{ {silent} }}; }}")
    sidecar = Sidecar(cluster)
    for _ in range(7):
        assert not sidecar.probe()
        time.sleep(1)  # the kubelet's period
    lines = sidecar.end(signal.SIGTERM)
    assert [line for line in lines if "is closed while there is no mock" in line] == lines[:1]


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


def test_eks_example_serves_both_addresses(cluster: Cluster) -> None:
    """The example's sidecar redirects IMDS and the EKS Pod Identity agent, each to its Service."""
    zones = (f"{name}.default.svc.cluster.local={address}" for name, address in EKS.items())
    cluster.start(cluster.backend, sys.executable, FAULTY_DNS, BACKEND, "+".join(zones))
    cluster.start_backend()
    for address in EKS.values():
        cluster.serve(address, BACKEND)
    assert Sidecar(cluster, example="eks").started()
    assert app(cluster) == INSTANCE
    container = pod("eks")["containers"][0]
    url = settings(container)["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    ask = {**container, "command": ["curl", "-sS", "--max-time", "5", "-H", "Authorization: token", url]}
    assert "AccessKeyId" in cluster.container(ask, pod("eks")["securityContext"]).stdout


@pytest.mark.parametrize("example", ["init", "sidecar"])
def test_pod_in_its_nodes_network_is_refused(running: Cluster, example: str) -> None:
    """With hostNetwork the pod's address is its node's: nothing is changed there, even if the node is a container."""
    done = running.container(pod(example)["initContainers"][0], pod(example)["securityContext"], K8S_POD_IP=MOCK)
    assert done.returncode == 125
    assert f"this pod has the network of its node, {MOCK} (hostNetwork)" in done.stderr
    assert METADATA not in all_rules(running.pod)


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
