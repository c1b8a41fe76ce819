"""A small cluster network: a node that replaces kube-proxy, one pod, and the pod of a Service."""

import subprocess
import sys

from imds_detour.ctl.lab.hosts import link, start_host
from tests.support.hosts.network import APP, BIN, FAULTY_DNS, MOCK, PORT, Network, end
from tests.support.judges.kubernetes import Manifest

BACKEND = "10.244.1.5"
OTHER_BACKEND = "10.244.1.6"
CLUSTER_IP = "10.96.12.34"
CLUSTER_DNS = "10.96.0.10"
SERVICE = "mock-metadata"
PATH = f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
LINKS = {
    "MOCK_METADATA_SERVICE_HOST": CLUSTER_IP,
    "MOCK_METADATA_SERVICE_PORT": PORT,
    "MOCK_METADATA_PORT": f"tcp://{CLUSTER_IP}:{PORT}",
    "MOCK_METADATA_PORT_1338_TCP_ADDR": CLUSTER_IP,
}
"""The variables that the kubelet sets for a Service of that name (enableServiceLinks)."""
FIELDS = {"status.podIP": APP, "status.hostIP": MOCK}
"""What the downward API knows: the addresses of the pod and of its node."""


class Cluster(Network):
    """The network's other host is the node, which translates the pod's traffic to a ClusterIP."""

    def __init__(self, namespace: str = "default") -> None:
        """Make node, pod and backend; the pod's resolv.conf is that of a pod in ``namespace``."""
        super().__init__()
        self.node, self.pod = self.mock, self.app
        self.backend = self._stack.enter_context(start_host())
        link(self.node, self.backend, "eth1", "10.244.1.1/24", f"{BACKEND}/24")
        self.backend.ip("address", "add", f"{OTHER_BACKEND}/24", "dev", "eth1")
        self.backend.ip("route", "add", "default", "via", "10.244.1.1")
        self.node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.node.run("nft", "table ip kube_proxy { map services { type ipv4_addr : ipv4_addr; }; }")
        self.node.run(
            "nft",
            "add chain ip kube_proxy pre { type nat hook prerouting priority dstnat; }; "
            "add rule ip kube_proxy pre dnat to ip daddr map @services",
        )
        self.serve(CLUSTER_DNS, BACKEND)
        search = f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
        self.pod.write("resolv.conf", f"{search}nameserver {CLUSTER_DNS}\noptions ndots:5\n")

    def serve(self, cluster_ip: str, backend: str) -> None:
        """Translate a ClusterIP to a backend. A later call changes it for new connections."""
        self.node.run("nft", f"delete element ip kube_proxy services {{ {cluster_ip} }}", check=False)
        self.node.run("nft", f"add element ip kube_proxy services {{ {cluster_ip} : {backend} }}")

    def start_cluster_dns(self, namespace: str = "default") -> subprocess.Popen[str]:
        """Start a DNS server like CoreDNS, which knows the Service and prints each question."""
        zone = f"{SERVICE}.{namespace}.svc.cluster.local={CLUSTER_IP}"
        return self.start(self.backend, sys.executable, FAULTY_DNS, BACKEND, zone)

    def start_backend(self, *flags: str) -> subprocess.Popen[str]:
        """Start the mock's pod."""
        return self.start_mock(*flags, host=self.backend)

    def container(
        self, container: Manifest, shared: Manifest | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a container, with the pod's securityContext ``shared``, to its end; ``environ`` overrides its own."""
        return self.pod.run(
            *runtime_command(container, shared or {}), environ={**settings(container), **environ}, check=False
        )

    def start_container(self, container: Manifest, shared: Manifest) -> subprocess.Popen[str]:
        """Start a container of the pod in the same environment; it ends with the cluster."""
        process = self.pod.popen(
            *runtime_command(container, shared), environ=settings(container), stderr=subprocess.PIPE
        )
        self._stack.callback(end, process)
        return process

    def probe(self, probe: Manifest, address: str = APP) -> bool:
        """Ask the pod once as its node's kubelet does for an httpGet probe, which is met by 200 to 399."""
        request = probe["httpGet"]
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{request['port']}{request['path']}"
        timeout = str(probe["timeoutSeconds"])
        curl = ("curl", "-sS", "--max-time", timeout, "--output", "/dev/null", "--write-out", "%{http_code}", url)
        return "200" <= self.node.run(*curl, check=False).stdout < "400"


def settings(container: Manifest) -> dict[str, str]:
    """Return the environment of a container, whose ConfigMaps are resolved (kubernetes.with_settings())."""
    env = container.get("env", ())
    values = {item["name"]: item["value"] if "value" in item else FIELDS[_path(item)] for item in env}
    return {"PATH": PATH, **LINKS, **values}


def _path(item: Manifest) -> str:
    return str(item["valueFrom"]["fieldRef"]["fieldPath"])


def runtime_command(container: Manifest, shared: Manifest) -> list[str]:
    """Return its runtime's command line: root has only the added capabilities, other users none, as in Kubernetes."""
    context = {**shared, **container.get("securityContext", {})}
    steps = []
    if context.get("readOnlyRootFilesystem"):
        mounts = " && ".join(f"mount -o remount,bind,ro {place}" for place in ("/", "/run"))
        steps += ["unshare", "--mount", "--", "sh", "-c", f'{mounts} && exec "$@"', "runtime"]
    capabilities = context.get("capabilities", {})
    assert capabilities.get("drop") == ["ALL"]
    added = [f"+{name.lower()}" for name in capabilities.get("add", ())]
    steps += ["setpriv", "--inh-caps=-all", f"--bounding-set={','.join(['-all', *added])}"]
    if not context.get("allowPrivilegeEscalation", True):
        steps.append("--no-new-privs")
    if user := context.get("runAsUser"):
        steps += ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    return [*steps, *container["command"], *container.get("args", ())]
