"""Many pods with the sidecar of deploy/kubernetes on one node, which probes them as a kubelet. As a program it prints.

Run it in a sandbox:

    .venv/bin/python -m imds_detour.ctl.lab.sandbox .venv/bin/python -m tests.support.hosts.sidecar_fleet 60
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.support import SUPPORT
from tests.support.hosts.fleet import AT_THE_GATE, FIRST_POD, HUB, Fleet
from tests.support.hosts.network import CTL, FAULTY_DNS, ID_URL, METADATA, end
from tests.support.hosts.pods import SERVICE, runtime_command, settings
from tests.support.judges import kubernetes

KUBELET = f"{SUPPORT}/clients/kubelet.py"
REAL = "i-0real0real0real00"
COUNTED = f"ip daddr {METADATA} counter name leaked"
NICE = ("nice", "-n", "19")
"""So that other tests, which measure times, run undisturbed. It changes nothing on an idle machine."""
ASK = ("curl", "-sS", "--max-time", "5", ID_URL)


@dataclass(frozen=True, slots=True)
class Rollout:
    """The result of a start of many pods.

    Attributes:
        seconds: from the start of all sidecars to each pod's first successful probe, the earliest first.
        probes: HTTP probes in all.
        leaked: packets from pods to the real metadata service.
        answers: the distinct answers to the apps, which start when the probes have succeeded.

    """

    seconds: tuple[float, ...]
    probes: int
    leaked: int
    answers: frozenset[str]


class SidecarFleet(Fleet):
    """A node whose pods have the real service behind their default route, as in a cloud."""

    def __init__(self, pods: int) -> None:
        """Make the node and the pods; nothing runs in them yet."""
        super().__init__(pods)
        self.hub.run(
            "nft", "table ip node { counter leaked {}; chain in { type filter hook prerouting priority -300; }; }"
        )
        self.hub.run("nft", f"add rule ip node in {COUNTED}")
        self.hub.ip("address", "add", f"{METADATA}/32", "dev", "lo")
        for pod in self.pods:
            pod.ip("route", "add", "default", "via", str(HUB.ip))
        rendered = kubernetes.render("example/sidecar")
        spec = kubernetes.with_settings(kubernetes.find_manifest(rendered, "Deployment", "app"), rendered)
        self._container, self._shared = spec["initContainers"][0], spec["securityContext"]
        self._stack.callback(self._end)
        self._running: list[subprocess.Popen[str]] = []

    def start_servers(self) -> None:
        """Start the DNS server, the mock of the Service, and the real service."""
        data = json.dumps({"meta-data": {"instance-id": REAL}})
        self.hub.run("sh", "-c", f"echo '{data}' > /run/real.json")
        real = (CTL, "mock", "--listen", f"{METADATA}:80", "--data", "/run/real.json")
        for command in (
            (sys.executable, FAULTY_DNS, str(HUB.ip), f"{SERVICE}={HUB.ip}"),
            (CTL, "mock", "--listen", "0.0.0.0:1338"),
            real,
        ):
            self._running.append(self._server(*command))

    def leaked(self) -> int:
        """Return the number of packets to the real service since the last call."""
        listed = self.hub.run("nft", "--json", "reset", "counter", "ip", "node", "leaked").stdout
        return sum(item["counter"]["packets"] for item in json.loads(listed)["nftables"] if "counter" in item)

    def ask(self) -> str:
        """Return what the metadata address answers in the first pod."""
        return self.pods[0].run(*ASK, check=False).stdout

    def roll_out(self, limit: float) -> Rollout:
        """Start all sidecars at once, probe them for ``limit`` seconds at most, and start an app in each ready pod."""
        probe = self._container["startupProbe"]
        request, times = probe["httpGet"], (str(probe["periodSeconds"]), str(probe["timeoutSeconds"]), str(limit))
        urls = [f"http://{FIRST_POD + number}:{request['port']}{request['path']}" for number in range(len(self.pods))]
        gate, opener = os.pipe()
        kubelet = self.hub.popen(sys.executable, KUBELET, *times, *urls, stdin=gate, stdout=subprocess.PIPE)
        command = (*NICE, "sh", "-c", AT_THE_GATE, "gate", *runtime_command(self._container, self._shared))
        for pod in self.pods:
            environ = settings(self._container)
            self._running.append(pod.popen(*command, environ=environ, stdin=gate, stderr=subprocess.DEVNULL))
        os.close(gate)
        os.close(opener)
        reports = [json.loads(line) for line in kubelet.communicate(timeout=limit + 60)[0].splitlines()]
        ready = [report for report in reports if report["ready"]]
        apps = [pod.popen(*ASK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for pod in self.pods]
        return Rollout(
            seconds=tuple(sorted(report["seconds"] for report in ready)),
            probes=sum(report["probes"] for report in reports),
            leaked=self.leaked(),
            answers=frozenset(app.communicate(timeout=60)[0] for app in apps),
        )

    def _end(self) -> None:
        for process in self._running:
            end(process)


def main(say: Callable[[str], object] = sys.stdout.write) -> None:
    """Print the result of a roll-out of each size on the command line."""
    for size in [int(size) for size in sys.argv[1:]] or [60]:
        with SidecarFleet(size) as fleet:
            fleet.start_servers()
            seen = fleet.roll_out(300.0)
        first, last = (seen.seconds[0], seen.seconds[-1]) if seen.seconds else (0.0, 0.0)
        say(f"{size} pods: {len(seen.seconds)} ready, the first after {first:.1f} s and the last after {last:.1f} s; ")
        say(f"{seen.probes} probes, {seen.leaked} packets to the real service\n")


if __name__ == "__main__":
    main()
