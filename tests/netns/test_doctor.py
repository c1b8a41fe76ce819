"""imds-detourctl doctor: each precondition broken in turn, and the one thing to change for it."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from imds_detour.ctl import doctor
from tests.support import SUPPORT
from tests.support.faults.host_namespace import BY_HARDWARE
from tests.support.hosts.network import CTL, MOCK, NAME, PORT

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

WITHOUT = f"{SUPPORT}/faults/seccomp.py"
WELL = "all is well: imds-detour can start here"


class Visit:
    """What the doctor said."""

    def __init__(self, network: Network, *prefix: str, **settings: str) -> None:
        run = network.app.run(*prefix, CTL, "doctor", "--json", environ=network.settings(None, **settings), check=False)
        assert run.stderr == ""
        self.status = run.returncode
        said = json.loads(run.stdout)
        assert said["schema"] == 1
        self.findings: dict[str, dict[str, Any]] = {finding["name"]: finding for finding in said["findings"]}
        self.change = said["change"]

    def state(self, name: str) -> str:
        """Return how it is with a precondition."""
        return str(self.findings[name]["state"])

    def fails(self, name: str, seen: str, remedy: str) -> None:
        """Assert that this is the first thing that is wrong, and what is to be changed."""
        failed = [finding["name"] for finding in self.findings.values() if finding["state"] == "fail"]
        assert failed[:1] == [name], self.findings
        assert seen in self.findings[name]["seen"]
        assert remedy in self.change
        assert self.change == self.findings[name]["remedy"]
        assert self.status == 1


def without(capability: str) -> tuple[str, ...]:
    """Return what starts a command without a capability, as under ``cap_drop``."""
    return ("setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}")


def lacking(what: str) -> tuple[str, ...]:
    """Return what starts a command on a kernel without some kind of tables."""
    return (sys.executable, WITHOUT, what)


def everything(network: Network) -> str:
    """Return all rules, routes and names of the app's host."""
    saved = "for c in iptables-legacy-save ip6tables-legacy-save; do for t in nat filter; do $c -t $t; done; done"
    text = network.app.run("sh", "-c", f"{saved}; nft list ruleset; ip route; cat /etc/hosts").stdout
    return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in text.splitlines() if not line.startswith("#"))


@pytest.fixture
def ready(network: Network) -> Network:
    """Give a network in which all is well."""
    network.start_dns()
    network.start_mock()
    return network


def test_when_all_is_well_it_says_so_and_changes_nothing(ready: Network) -> None:
    """Each precondition has its line, in the order of need; exit status 0; rules, routes and names stay."""
    before = everything(ready)
    done = ready.app.run(CTL, "doctor", environ=ready.settings(None))
    *lines, empty, last = done.stdout.splitlines()
    assert (empty, last, done.stderr) == ("", WELL, "")
    checks = (*doctor.CONTAINER_CHECKS, *doctor.MOCK_CHECKS, *doctor.APP_CHECKS)
    assert len(lines) == len(checks)
    assert {line.split()[0] for line in lines} == {"ok", "skip"}
    assert [line for line in lines if line.startswith("skip")] == [
        f"skip  {'redirect':27}none is installed yet, or none can be seen"
    ]
    assert any("who answers" in line and "IMDSv2 i-1234567890abcdef0" in line for line in lines)
    assert everything(ready) == before


def test_it_ends_with_the_one_thing_to_change(ready: Network) -> None:
    """What people see: the failure among the rest, and the last line with the Compose line."""
    done = ready.app.run(*without("net_admin"), CTL, "doctor", environ=ready.settings(None), check=False)
    assert done.returncode == 1
    assert f"\nfail  {'NET_ADMIN':27}not given\n" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "Fix (NET_ADMIN): add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("other_users")
def test_a_user_without_capabilities_is_told_about_the_user_line(ready: Network) -> None:
    """``USER`` in the Dockerfile takes an added capability away."""
    visit = Visit(ready, "setpriv", "--reuid", "65534", "--clear-groups")
    visit.fails("NET_ADMIN", "this is uid 65534", "no `USER` line in the Dockerfile")


@pytest.mark.slow
def test_a_user_namespace_below_the_containers(ready: Network) -> None:
    """Root in a user namespace that does not own the network has every capability, and none that counts."""
    visit = Visit(ready, "unshare", "--user", "--map-root-user")
    visit.fails("user namespace", "belongs to another user namespace", "`unshare --user`")


@pytest.mark.slow
def test_net_raw_is_missed_by_legacy_iptables_alone(ready: Network) -> None:
    """Podman and ``cap_drop: ALL``: auto goes on with nftables; MOCK_BACKEND=legacy cannot."""
    auto = Visit(ready, *without("net_raw"))
    assert (auto.status, auto.state("NET_RAW")) == (0, "ok")
    assert "nftables would be taken" in auto.findings["firewall"]["seen"]
    legacy = Visit(ready, *without("net_raw"), MOCK_BACKEND="legacy")
    legacy.fails("NET_RAW", "opens a raw socket", "`cap_add: [NET_ADMIN, NET_RAW]`")


@pytest.mark.slow
def test_setpcap_is_a_warning(ready: Network) -> None:
    """It works without, with a side effect that is named."""
    visit = Visit(ready, *without("setpcap"))
    assert (visit.status, visit.state("SETPCAP")) == (0, "warn")
    assert "`cap_add: [NET_ADMIN, SETPCAP]`" in visit.findings["SETPCAP"]["remedy"]
    kept = Visit(ready, *without("setpcap"), MOCK_KEEP_NET_ADMIN="1")
    assert kept.state("SETPCAP") == "ok"


@pytest.mark.slow
def test_a_kernel_without_legacy_iptables(ready: Network) -> None:
    """Auto goes on with nftables; for MOCK_BACKEND=legacy a module must be loaded."""
    auto = Visit(ready, *lacking("legacy"))
    assert (auto.status, auto.state("legacy iptables")) == (0, "ok")
    assert auto.findings["legacy iptables"]["seen"].endswith("nftables takes its place")
    legacy = Visit(ready, *lacking("legacy"), MOCK_BACKEND="legacy")
    legacy.fails("legacy iptables", "no legacy iptables here", "`modprobe iptable_filter`")


@pytest.mark.slow
def test_a_kernel_without_nftables(ready: Network) -> None:
    """Nobody misses it but MOCK_BACKEND=nft."""
    assert Visit(ready, *lacking("nftables")).status == 0
    visit = Visit(ready, *lacking("nftables"), MOCK_BACKEND="nft")
    visit.fails(
        "nftables",
        "the kernel has none",
        "`modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`",
    )


def test_a_kernel_without_either(ready: Network) -> None:
    """That is the end of it."""
    visit = Visit(ready, *lacking("both"))
    visit.fails(
        "nftables",
        "the kernel has none",
        "`modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`",
    )
    assert visit.state("legacy iptables") == "warn"


@pytest.mark.slow
def test_libraries_that_are_missing(ready: Network) -> None:
    """The package is named, as a line of the Dockerfile."""
    ready.app.run("mkdir", "/run/empty")
    auto = Visit(ready, XTABLES_LIBDIR="/run/empty")
    assert (auto.status, auto.state("libraries")) == (0, "ok")
    legacy = Visit(ready, XTABLES_LIBDIR="/run/empty", MOCK_BACKEND="legacy")
    legacy.fails("libraries", "an iptables extension is missing", "`RUN apt-get update && apt-get install -y iptables`")


def test_settings_that_make_no_sense(ready: Network) -> None:
    """The variable, the value, and what is allowed; the mock cannot be looked for then."""
    visit = Visit(ready, MOCK_PORT="http")
    visit.fails("settings", "MOCK_PORT='http' is not valid", "allowed: 1 to 65535")
    assert "resolver" not in visit.findings


def test_a_typo_in_a_setting_is_worth_a_look(ready: Network) -> None:
    """It stops nothing, and it is named."""
    done = ready.app.run(CTL, "doctor", environ=ready.settings(None, MOCK_PROT="1338"))
    assert (
        f"\nwarn  {'settings':27}MOCK_PROT is not a setting of imds-detour (did you mean MOCK_PORT?)\n" in done.stdout
    )
    assert done.stdout.splitlines()[-2].startswith("worth a look (settings): correct its name")


@pytest.mark.slow
def test_no_dns_server_answers(network: Network) -> None:
    """The network has none, as Docker's default bridge has none for names of containers."""
    network.start_mock()
    visit = Visit(network)
    visit.fails("resolver", f"{MOCK} sends no proper reply", "`docker network create`")
    assert [visit.state(name) for name in ("name", "TCP", "HTTP", "who answers")] == ["fail", "skip", "skip", "skip"]


@pytest.mark.slow
def test_a_name_in_the_hosts_file_needs_no_dns_server(network: Network) -> None:
    """A warning, and all the rest is well."""
    network.start_mock()
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    visit = Visit(network)
    assert (visit.status, visit.state("resolver"), visit.state("name")) == (0, "warn", "ok")


def test_a_dns_server_that_the_guard_would_close(network: Network) -> None:
    """On Google Cloud the metadata address is the DNS server too; nobody is asked there."""
    network.start_mock()
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    network.app.write("resolv.conf", "nameserver 169.254.169.254\n")
    visit = Visit(network)
    assert (visit.status, visit.state("resolver")) == (0, "warn")
    assert "MOCK_GUARD=off" in visit.findings["resolver"]["remedy"]


def test_a_name_that_is_not_there(ready: Network) -> None:
    """What the server says of it, and where names come from in Compose."""
    visit = Visit(ready, MOCK_HOSTNAME="nobody")
    visit.fails("name", f"{MOCK} says there is no such name (NXDOMAIN)", "`services: {nobody: ...}`")
    assert visit.state("resolver") == "ok"


def test_no_route_to_the_mock(ready: Network) -> None:
    """Two networks with nothing in common."""
    ready.app.ip("route", "del", "default")
    visit = Visit(ready, MOCK_HOSTNAME="192.0.2.9")
    visit.fails("route", "no route to the mock at 192.0.2.9", "`networks:`")


def test_no_route_to_the_metadata_address_is_well(ready: Network) -> None:
    """Networks without a gateway: a route that imds-detour adds is enough."""
    ready.app.ip("route", "del", "default")
    visit = Visit(ready)
    assert visit.status == 0
    assert visit.findings["route"]["seen"].endswith("one to 169.254.169.254 over lo would be added")


def test_nothing_listens_at_the_mocks_port(ready: Network) -> None:
    """The port is the usual mistake: 80 is the default, and amazon-ec2-metadata-mock listens at 1338."""
    visit = Visit(ready, MOCK_PORT="80")
    visit.fails("TCP", f"{MOCK}:80 refuses", '`MOCK_PORT: "1338"`')
    assert [visit.state(name) for name in ("HTTP", "who answers")] == ["skip", "skip"]


@pytest.mark.parametrize("plan", ["GET=tls", "GET=garbage"])
def test_what_listens_speaks_no_http(network: Network, plan: str) -> None:
    """TLS, for example."""
    network.start_dns()
    network.start_faulty(plan)
    Visit(network).fails("HTTP", f"{MOCK}:{PORT}: it does not speak HTTP", "plain HTTP")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "seen"),
    [
        ("GET=404", "it answers 404 to GET /latest/meta-data/instance-id"),
        ("GET=body:<html>a page</html>", "which is no instance id"),
    ],
)
def test_what_answers_is_no_metadata_service(network: Network, plan: str, seen: str) -> None:
    """A web server at that port is not a mock."""
    network.start_dns()
    network.start_faulty(plan)
    Visit(network).fails("who answers", seen, "`environment: {MOCK_PROBE: /a/path/that/it/answers}`")


@pytest.mark.slow
def test_a_redirect_that_leads_nowhere_any_more(ready: Network) -> None:
    """It is installed, the mock has moved, and nothing answers through it."""
    assert ready.detour("true").returncode == 0
    well = Visit(ready)
    assert (well.status, well.state("redirect")) == (0, "ok")
    ready.start_mock(port="1400")
    moved = Visit(ready, MOCK_PORT="1400")
    assert (moved.status, moved.state("redirect")) == (0, "warn")
    assert "leads to 10.88.0.3:1338, and the mock is at 10.88.0.3:1400" in moved.findings["redirect"]["seen"]
    ready.app.run("nft", "add table ip t; add chain ip t c { type filter hook output priority 9; }")
    ready.app.run("nft", "add rule ip t c ct status dnat reject")
    Visit(ready).fails("redirect", f"169.254.169.254:80 -> {MOCK}:{PORT}", "`imds-detourctl remove`")


@pytest.mark.slow
def test_a_proxy_is_well_while_we_exempt_the_addresses(ready: Network) -> None:
    """Unless that is forbidden: then the lines that do so are printed."""
    extend = Visit(ready, HTTP_PROXY="http://10.88.0.3:3128")
    assert (extend.status, extend.state("proxy variables")) == (0, "ok")
    keep = Visit(ready, HTTP_PROXY="http://10.88.0.3:3128", MOCK_NO_PROXY="keep", NO_PROXY="example.com")
    keep.fails("proxy variables", "HTTP_PROXY is set", 'NO_PROXY: "example.com,169.254.169.254,')
    exempt = "169.254.169.254,fd00:ec2::254,[fd00:ec2::254]"
    well = Visit(ready, HTTP_PROXY="http://x", MOCK_NO_PROXY="keep", NO_PROXY=exempt, no_proxy=exempt)
    assert well.status == 0


@pytest.mark.slow
def test_sdks_that_are_told_not_to_ask(ready: Network) -> None:
    """From a parent image, for example."""
    visit = Visit(ready, AWS_EC2_METADATA_DISABLED="true")
    visit.fails("AWS_EC2_METADATA_DISABLED", "do not ask", '`environment: {AWS_EC2_METADATA_DISABLED: "false"}`')
    assert Visit(ready, AWS_EC2_METADATA_DISABLED="false").status == 0


def test_a_variable_that_leads_sdks_elsewhere_is_worth_a_look(ready: Network) -> None:
    """It may be meant."""
    name = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    visit = Visit(ready, **{name: "http://other:1338"})
    assert (visit.status, visit.state("endpoint variables")) == (0, "warn")
    assert visit.findings["endpoint variables"]["remedy"].startswith(f"remove {name}")
    assert Visit(ready, **{name: "http://169.254.169.254"}).state("endpoint variables") == "ok"


def test_endpoint_variables_need_nothing_of_the_kernel(ready: Network) -> None:
    """MOCK_BACKEND=env is for places without NET_ADMIN: all is well there."""
    visit = Visit(ready, *without("net_admin"), MOCK_BACKEND="env")
    assert visit.status == 0, visit.findings
    kernel = ("legacy iptables", "libraries", "nftables", "firewall")
    assert [visit.state(name) for name in kernel] == ["skip"] * 4


def test_each_mock_is_looked_at(ready: Network) -> None:
    """Two services, two mocks: the second does not listen."""
    visit = Visit(ready, MOCK_ENDPOINTS=f"aws,ecs={MOCK}:1500")
    assert visit.status == 1
    assert visit.findings["TCP (ecs)"]["seen"].startswith(f"{MOCK}:1500 refuses")
    assert visit.state("TCP (aws)") == "ok"
    assert visit.change == visit.findings["TCP (ecs)"]["remedy"]


@pytest.mark.slow
def test_two_services_at_one_address_have_a_redirect_each(ready: Network) -> None:
    """They differ in their port alone, and each redirect is held against the mock of its own service."""
    ready.start_mock(port="1400")
    both = f"aws,169.254.169.254:8080={MOCK}:1400"
    assert ready.detour("true", MOCK_ENDPOINTS=both).returncode == 0
    visit = Visit(ready, MOCK_ENDPOINTS=both)
    redirects = {name: finding for name, finding in visit.findings.items() if name.startswith("redirect")}
    assert [finding["state"] for finding in redirects.values()] == ["ok", "ok"], redirects
    moved = Visit(ready, MOCK_ENDPOINTS=both, MOCK_PORT="1400")
    assert [moved.state(name) for name in redirects] == ["warn", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize(("prefix", "tables"), [(BY_HARDWARE, ""), ((), "filter nat")])
def test_in_the_hosts_own_network_not_even_an_empty_table_is_made(
    ready: Network, prefix: tuple[str, ...], tables: str
) -> None:
    """Legacy iptables makes its tables when it is asked for them; elsewhere, the control, they are there afterwards."""
    done = ready.app.run(*prefix, CTL, "doctor", environ=ready.settings(None), check=False)
    made = ready.app.run("cat", "/proc/net/ip_tables_names").stdout
    assert (" ".join(sorted(made.split())), done.stderr) == (tables, "")
    on_the_host = "\nFix (network namespace): give the container a network of its own" in done.stdout
    assert on_the_host is (done.returncode == 1) is (tables == "")
    assert done.stdout.count("not asked for in the host's own network namespace") == (3 if on_the_host else 0)
