"""imds-detourctl doctor: the check that fails for each missing precondition, and its fix."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from imds_detour.advice.access import BUILD_FOR_MACHINE
from imds_detour.ctl import doctor
from imds_detour.ctl.doctor import kernel
from imds_detour.errors import DetourError
from imds_detour.firewall.nftables.backend import LOAD
from tests.support.faults.capabilities import without
from tests.support.faults.host_namespace import BY_HARDWARE
from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import METADATA, MOCK, NAME, PORT, Network
from tests.support.judges.rules_listing import all_rules
from tests.support.marks import first_quick

RESOURCES = "ip route; cat /etc/hosts"
CHECKS = (*doctor.CONTAINER_CHECKS, *doctor.MOCK_CHECKS, *doctor.APP_CHECKS)
ALL_OK = "all is well: imds-detour can start here"


class Report:
    """The report of one run of the doctor."""

    def __init__(self, network: Network, *prefix: str, **settings: str) -> None:
        run = network.ctl("doctor", "--json", prefix=prefix, **settings)
        assert run.stderr == ""
        self.status = run.returncode
        reply = json.loads(run.stdout)
        assert reply["schema"] == 1
        self.findings: dict[str, dict[str, Any]] = {finding["name"]: finding for finding in reply["findings"]}
        self.change = reply["change"]

    def state(self, name: str) -> str:
        """Return the state of a check: ok, warn, fail or skip."""
        return str(self.findings[name]["state"])

    def assert_fails(self, name: str, seen: str, remedy: str) -> None:
        """Assert that this check is the first that fails, and that its remedy is the reported change."""
        failed = [finding["name"] for finding in self.findings.values() if finding["state"] == "fail"]
        assert failed[:1] == [name], self.findings
        assert seen in self.findings[name]["seen"]
        assert remedy in self.change
        assert (self.change, self.status) == (self.findings[name]["remedy"], 1)


def test_doctor_reports_ok_and_changes_nothing(ready: Network) -> None:
    """When every check succeeds, --all prints one line each; without it they are counted. Nothing is changed."""
    before = all_rules(ready.app, RESOURCES)
    counted = f"{len(CHECKS) - 1} checks ok, 1 skipped; `imds-detourctl doctor --all` shows them"
    assert ready.ctl("doctor").stdout == f"{counted}\n\n{ALL_OK}\n"
    done = ready.ctl("doctor", "--all")
    *lines, empty, last = done.stdout.splitlines()
    assert (empty, last, done.stderr) == ("", ALL_OK, "")
    assert (len(lines), {line.split()[0] for line in lines}) == (len(CHECKS), {"ok", "skip"})
    assert [line for line in lines if line.startswith("skip")] == [
        f"skip  {'redirect':27}none is installed yet, or none can be seen"
    ]
    assert any("who answers" in line and "IMDSv2 i-1234567890abcdef0" in line for line in lines)
    assert all_rules(ready.app, RESOURCES) == before


def test_doctor_ends_with_the_fix(ready: Network) -> None:
    """The doctor's last line is the fix of the failed check, as a line for Compose and for docker run."""
    done = ready.ctl("doctor", prefix=without("net_admin"))
    assert done.returncode == 1
    first, *_ = done.stdout.splitlines()
    assert first == f"fail  {'NET_ADMIN':27}no NET_ADMIN capability"
    assert done.stdout.splitlines()[-1] == (
        "Fix (NET_ADMIN): add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
    )


def test_doctor_shows_failures_and_warnings_first(ready: Network) -> None:
    """Rows that fail come first, then warnings, in the order of the checks. Only --all shows the others, after them."""
    settings = {"MOCK_PORT": "1", "AWS_EC2_METADATA_DISABLED": "true", "MOCK_PROT": "1338"}
    texts = [ready.ctl("doctor", *words, **settings).stdout.split("\n\n")[0] for words in ((), ("--all",))]
    rows = [re.findall(r"^\S+", text, re.MULTILINE) for text in texts]  # without the lines that name a heading
    assert rows[0][:3] == rows[1][:3] == ["fail", "fail", "warn"]
    assert rows[0][3:] == [str(len(CHECKS) - 3 - rows[1].count("skip"))]  # the line that counts them
    assert (len(rows[1]), set(rows[1][3:])) == (len(CHECKS), {"ok", "skip"})


WITHOUT_RIGHTS = {
    "setpriv --reuid 65534 --clear-groups": ("NET_ADMIN", "uid 65534 is not root", "no `USER` in the Dockerfile"),
    "unshare --user --map-root-user": ("user namespace", "belongs to another user namespace", "`unshare --user`"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", WITHOUT_RIGHTS)
def test_doctor_detects_a_user_without_rights(ready: Network, command: str, request: pytest.FixtureRequest) -> None:
    """The doctor names the `USER` line for a user other than root, and a user namespace without rights here."""
    if "--reuid" in command:
        request.getfixturevalue("other_users")
    Report(ready, *command.split()).assert_fails(*WITHOUT_RIGHTS[command])


LEGACY_ALONE = {
    "NET_RAW": (
        without("net_raw"),
        "which legacy iptables needs to open its socket",
        "`cap_add: [NET_ADMIN, NET_RAW]`",
    ),
    "legacy iptables": (kernel_without("legacy"), "no legacy iptables here", "`modprobe iptable_filter`"),
    "libraries": (
        *(("env", "XTABLES_LIBDIR=/run/empty"), "an iptables extension is missing"),
        "`RUN apt-get update && apt-get install -y iptables`",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEGACY_ALONE)
def test_doctor_requires_parts_of_legacy_iptables_for_legacy_only(ready: Network, name: str) -> None:
    """Without a part of legacy iptables the doctor accepts auto, which uses nftables, and rejects legacy."""
    prefix, seen, remedy = LEGACY_ALONE[name]
    ready.app.run("mkdir", "/run/empty")
    auto = Report(ready, *prefix)
    assert (auto.status, auto.state(name)) == (0, "ok")
    assert "nftables would be used" in auto.findings["firewall"]["seen"]
    assert name != "legacy iptables" or auto.findings[name]["seen"].endswith("nftables takes its place")
    Report(ready, *prefix, MOCK_BACKEND="legacy").assert_fails(name, seen, remedy)


@pytest.mark.slow
def test_doctor_warns_without_setpcap(ready: Network) -> None:
    """Without SETPCAP the doctor warns, unless MOCK_KEEP_NET_ADMIN=1 makes the capability unnecessary."""
    report = Report(ready, *without("setpcap"))
    assert (report.status, report.state("SETPCAP")) == (0, "warn")
    assert "`cap_add: [NET_ADMIN, SETPCAP]`" in report.findings["SETPCAP"]["remedy"]
    assert Report(ready, *without("setpcap"), MOCK_KEEP_NET_ADMIN="1").state("SETPCAP") == "ok"


MODULES = "`modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`"


@pytest.mark.parametrize(
    ("missing", "backend", "legacy"), first_quick([("both", "auto", "warn"), ("nftables", "nft", "skip")])
)
def test_doctor_names_the_modules_of_nftables(ready: Network, missing: str, backend: str, legacy: str) -> None:
    """Without nftables the doctor fails for MOCK_BACKEND=nft, or if the kernel lacks legacy iptables too."""
    report = Report(ready, *kernel_without(missing), MOCK_BACKEND=backend)
    report.assert_fails("nftables", "the kernel has none", MODULES)
    assert report.state("legacy iptables") == legacy
    assert Report(ready, *kernel_without("nftables")).status == 0  # legacy iptables takes its place


def test_doctor_warns_of_a_misspelled_setting(ready: Network) -> None:
    """The doctor warns of an unknown MOCK_ variable and suggests the correct name."""
    done = ready.ctl("doctor", MOCK_PROT="1338")
    warning = f"warn  {'settings':27}MOCK_PROT is not a setting of imds-detour (did you mean MOCK_PORT?)\n"
    assert warning in done.stdout
    assert done.stdout.splitlines()[-2].startswith("worth a look (settings): correct its name")


@pytest.mark.slow
def test_doctor_detects_a_silent_dns_server(mocked: Network) -> None:
    """The doctor fails without a DNS reply, as on Docker's default bridge, and skips the checks of the mock."""
    report = Report(mocked)
    report.assert_fails("resolver", f"{MOCK} sends no proper reply", "`docker network create`")
    assert [report.state(name) for name in ("name", "TCP", "HTTP", "who answers")] == ["fail", "skip", "skip", "skip"]


@pytest.mark.parametrize(("server", "remedy"), first_quick([("169.254.169.254", "MOCK_GUARD=off"), (MOCK, "")]))
def test_doctor_warns_of_dns_beside_a_name_in_the_hosts_file(mocked: Network, server: str, remedy: str) -> None:
    """With the mock's name in /etc/hosts the doctor warns of a silent DNS server, or of the metadata address as one."""
    mocked.app.write("hosts", f"{MOCK} {NAME}\n")
    mocked.app.write("resolv.conf", f"nameserver {server}\n")
    report = Report(mocked)
    assert (report.status, report.state("resolver"), report.state("name")) == (0, "warn", "ok")
    assert remedy in report.findings["resolver"]["remedy"]


def test_doctor_detects_a_wrong_name_or_port(ready: Network) -> None:
    """The doctor names an invalid value and the allowed ones, quotes the DNS server, and suggests port 1338."""
    report = Report(ready, MOCK_PORT="http")
    report.assert_fails("settings", "MOCK_PORT='http' is not valid", "allowed: 1 to 65535")
    assert "resolver" not in report.findings  # the checks of the mock are skipped
    report = Report(ready, MOCK_HOSTNAME="no-such-mock")
    report.assert_fails("name", f"{MOCK} says there is no such name (NXDOMAIN)", "`services: {no-such-mock: ...}`")
    assert report.state("resolver") == "ok"
    report = Report(ready, MOCK_PORT="80")
    report.assert_fails("TCP", f"{MOCK}:80 refuses", '`MOCK_PORT: "1338"`')
    assert [report.state(name) for name in ("HTTP", "who answers")] == ["skip", "skip"]


def test_doctor_finds_a_mock_at_1338_as_a_start_does(ready: Network) -> None:
    """Without a port, doctor accepts a mock at 1338 and warns, as a start does. Control: with port 80 it fails."""
    report = Report(ready, MOCK_PORT="")
    assert (report.status, report.state("TCP"), report.state("who answers")) == (0, "warn", "ok")
    assert f"{MOCK}:80 refuses, and a mock answers at {MOCK}:1338" in report.findings["TCP"]["seen"]
    assert 'MOCK_PORT: "1338"' in report.findings["TCP"]["remedy"]
    assert ready.detour("true", MOCK_PORT="").returncode == 0
    assert Report(ready, MOCK_PORT="80").status == 1


def test_doctor_accepts_a_missing_route_to_the_metadata_address_only(ready: Network) -> None:
    """Without a route to the mock the doctor names the networks of Compose; a start adds one to the other address."""
    ready.app.ip("route", "del", "default")
    report = Report(ready, MOCK_HOSTNAME="192.0.2.9")
    report.assert_fails("route", "no route to the mock at 192.0.2.9", "`networks:`")
    report = Report(ready)
    assert report.status == 0
    assert report.findings["route"]["seen"].endswith("one to 169.254.169.254 over lo would be added")


NO_HTTP = ("HTTP", f"{MOCK}:{PORT}: it does not speak HTTP", "plain HTTP")
PROBE = "`environment: {MOCK_PROBE: /a/path/that/it/answers}`"
OTHER_SERVERS = {
    "GET=tls": NO_HTTP,
    "GET=garbage": NO_HTTP,
    "GET=500": ("who answers", "it answers 500 to GET /latest/meta-data/instance-id", PROBE),
}


@pytest.mark.parametrize("plan", first_quick(OTHER_SERVERS, 2))
def test_doctor_detects_another_server(network: Network, plan: str) -> None:
    """The doctor fails for a server without plain HTTP, and for one that fails."""
    network.start_dns()
    network.start_faulty(plan)
    Report(network).assert_fails(*OTHER_SERVERS[plan])


@pytest.mark.parametrize(("plan", "seen"), [("404", "it answers 404 to"), ("body:<html>a page</html>", "a web page")])
def test_doctor_warns_of_a_server_that_may_be_no_mock(network: Network, plan: str, seen: str) -> None:
    """The doctor accepts what a start accepts, with a warning and the setting that tells which path the mock has."""
    network.start_dns()
    network.start_faulty(f"GET={plan}")
    report = Report(network)
    assert (report.status, report.state("who answers")) == (0, "warn")
    assert seen in report.findings["who answers"]["seen"]
    assert PROBE in report.findings["who answers"]["remedy"]


@pytest.mark.slow
def test_doctor_detects_an_outdated_redirect(ready: Network) -> None:
    """The doctor warns of a redirect to the mock's old port, and fails for a redirect that is blocked."""
    assert ready.detour("true").returncode == 0
    ok_report = Report(ready)
    assert (ok_report.status, ok_report.state("redirect")) == (0, "ok")
    ready.start_mock(port="1400")
    moved = Report(ready, MOCK_PORT="1400")
    assert (moved.status, moved.state("redirect")) == (0, "warn")
    assert "leads to 10.88.0.3:1338, and the mock is at 10.88.0.3:1400" in moved.findings["redirect"]["seen"]
    ready.app.run("nft", "add table ip t; add chain ip t c { type filter hook output priority 9; }")
    ready.app.run("nft", "add rule ip t c ct status dnat reject")
    Report(ready).assert_fails("redirect", f"169.254.169.254:80 -> {MOCK}:{PORT}", "`imds-detourctl remove`")


@pytest.mark.slow
def test_doctor_accepts_a_proxy_with_exemptions(ready: Network) -> None:
    """The doctor fails for a proxy only if MOCK_NO_PROXY=keep is set and NO_PROXY lacks the addresses."""
    extend = Report(ready, HTTP_PROXY="http://10.88.0.3:3128")
    assert (extend.status, extend.state("proxy variables")) == (0, "ok")
    keep = Report(ready, HTTP_PROXY="http://10.88.0.3:3128", MOCK_NO_PROXY="keep", NO_PROXY="example.com")
    keep.assert_fails("proxy variables", "HTTP_PROXY is set", 'NO_PROXY: "example.com,169.254.169.254,')
    exempt = "169.254.169.254,fd00:ec2::254,[fd00:ec2::254]"
    assert Report(ready, HTTP_PROXY="http://x", MOCK_NO_PROXY="keep", NO_PROXY=exempt, no_proxy=exempt).status == 0


def test_doctor_names_variables_that_mislead_sdks(ready: Network) -> None:
    """The doctor fails for AWS_EC2_METADATA_DISABLED=true, and warns of an endpoint variable with another address."""
    name = "AWS_EC2_METADATA_DISABLED"
    Report(ready, **{name: "true"}).assert_fails(name, "do not ask", f'`environment: {{{name}: "false"}}`')
    assert Report(ready, **{name: "false"}).status == 0
    name = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    report = Report(ready, **{name: "http://other:1338"})
    assert (report.status, report.state("endpoint variables")) == (0, "warn")
    assert report.findings["endpoint variables"]["seen"].startswith(f"{name} leads to http://other:1338: ")
    assert report.findings["endpoint variables"]["remedy"] == "remove it, unless it is meant"
    assert Report(ready, **{name: "http://169.254.169.254"}).state("endpoint variables") == "ok"


def test_doctor_skips_kernel_checks_for_the_env_backend(ready: Network) -> None:
    """With MOCK_BACKEND=env the doctor skips the firewall's checks and succeeds without NET_ADMIN."""
    report = Report(ready, *without("net_admin"), MOCK_BACKEND="env")
    assert report.status == 0, report.findings
    kernel = ("legacy iptables", "libraries", "nftables", "firewall")
    assert [report.state(name) for name in kernel] == ["skip"] * 4


def test_doctor_checks_each_mock(ready: Network) -> None:
    """With two services the doctor checks both mocks, and fails for the one that does not listen."""
    report = Report(ready, MOCK_ENDPOINTS=f"aws,ecs={MOCK}:1500")
    assert report.status == 1
    assert report.findings["TCP (ecs)"]["seen"].startswith(f"{MOCK}:1500 refuses")
    assert (report.state("TCP (aws)"), report.change) == ("ok", report.findings["TCP (ecs)"]["remedy"])


@pytest.mark.slow
def test_doctor_checks_each_redirect_of_one_address(ready: Network) -> None:
    """For services that differ only in the port, the doctor compares each redirect with its service's mock."""
    ready.start_mock(port="1400")
    both = f"aws,169.254.169.254:8080={MOCK}:1400"
    assert ready.detour("true", MOCK_ENDPOINTS=both).returncode == 0
    report = Report(ready, MOCK_ENDPOINTS=both)
    redirects = {name: finding for name, finding in report.findings.items() if name.startswith("redirect")}
    assert [finding["state"] for finding in redirects.values()] == ["ok", "ok"], redirects
    moved = Report(ready, MOCK_ENDPOINTS=both, MOCK_PORT="1400")
    assert [moved.state(name) for name in redirects] == ["warn", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize(("prefix", "tables"), [(BY_HARDWARE, ""), ((), "filter nat")])
def test_doctor_in_the_host_netns_creates_no_table(ready: Network, prefix: tuple[str, ...], tables: str) -> None:
    """In the host's network namespace the doctor creates no iptables table; elsewhere (control) it does."""
    done = ready.ctl("doctor", "--all", prefix=prefix)
    made = ready.app.run("cat", "/proc/net/ip_tables_names").stdout
    assert (" ".join(sorted(made.split())), done.stderr) == (tables, "")
    in_host_netns = "\nFix (network namespace): give the container a network of its own" in done.stdout
    assert in_host_netns is (done.returncode == 1) is (tables == "")
    assert done.stdout.count("not asked for in the host's own network namespace") == (3 if in_host_netns else 0)


@pytest.mark.parametrize(("host", "endpoints"), [(METADATA, "aws"), ("192.0.2.7", "192.0.2.7:80")])
def test_doctor_sends_nothing_to_a_metadata_address(ready: Network, host: str, endpoints: str) -> None:
    """If the mock's name leads to a metadata address, the doctor says so and sends no packet there."""
    chain = "add table ip t; add chain ip t c { type filter hook output priority 0; }"
    ready.app.run("nft", f"{chain}; add rule ip t c ip daddr {host} counter reject")
    ready.app.write("hosts", f"{host} elsewhere\n")
    report = Report(ready, MOCK_HOSTNAME="elsewhere", MOCK_ENDPOINTS=endpoints)
    assert re.search(f"{host}, .*it is a metadata address", report.findings["name"]["seen"])
    assert report.state("name") == "fail"
    assert {report.state(name) for name in ("TCP", "HTTP", "who answers", "redirect")} == {"skip"}
    assert "counter packets 0 " in ready.app.run("nft", "list", "table", "ip", "t").stdout
    ready.app.run("curl", "-sS", "--max-time", "2", f"http://{host}/", check=False)  # the control
    assert "counter packets 0 " not in ready.app.run("nft", "list", "table", "ip", "t").stdout


def test_doctor_asks_through_a_complete_redirect_only(ready: Network, backend: str) -> None:
    """A redirect whose jump was flushed has no effect, so the doctor asks nothing there; a whole one is asked."""
    ready.success("true", MOCK_BACKEND=backend)
    assert Report(ready).state("redirect") == "ok"
    flush = {
        "legacy": ("iptables-legacy", "-t", "nat", "-F", "OUTPUT"),
        "nft": ("nft", "flush chain ip imds_detour nat_output"),
    }
    ready.app.run(*flush[backend])
    assert Report(ready).state("redirect") == "skip"


@pytest.mark.parametrize("emulated", [True, False])
def test_doctor_names_the_emulator_instead_of_modules(monkeypatch: pytest.MonkeyPatch, emulated: bool) -> None:
    """Under QEMU's user mode the fix is an image for this machine; elsewhere (control) it is modprobe."""
    monkeypatch.setattr(kernel, "is_emulated", lambda: emulated)
    refusal = DetourError("firewall", "no nf_tables", "")
    selector, settings = SimpleNamespace(nft_refusal=lambda: refusal), SimpleNamespace(backend="nft")
    context: Any = SimpleNamespace(settings=settings, capabilities=refusal, selector=selector, legacy_refusal=refusal)
    result = kernel.nftables(context)
    assert (result.state.value, result.remedy) == ("fail", BUILD_FOR_MACHINE if emulated else LOAD)


SAME_WORDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "no NET_ADMIN": (without("net_admin"), {}),
    "no NET_RAW": (without("net_raw"), {"MOCK_BACKEND": "legacy"}),
    "no nftables": (kernel_without("nftables"), {"MOCK_BACKEND": "nft"}),
    "another user namespace": (("unshare", "--user", "--map-root-user"), {}),
    "the host's network namespace": (BY_HARDWARE, {}),
    "a wrong value": ((), {"MOCK_PORT": "'1338'"}),
    "a wrong name": ((), {"MOCK_HOSTNAME": "no-such-mock"}),
    "a wrong name in an entry": ((), {"MOCK_ENDPOINTS": "aws,ecs=no-such-mock"}),
    "no route": ((), {"MOCK_HOSTNAME": "203.0.113.9"}),
    "nothing listens": ((), {"MOCK_PORT": "1"}),
    "localhost": ((), {"MOCK_HOSTNAME": "127.0.0.1"}),
}


@pytest.mark.parametrize("fault", SAME_WORDS)
def test_doctor_and_a_failing_start_have_the_same_fix(ready: Network, fault: str) -> None:
    """The fix of the doctor is what the remedy of a start that fails by the same fault begins with."""
    prefix, settings = SAME_WORDS[fault]
    if fault == "no route":
        ready.app.ip("route", "del", "default")
    change = Report(ready, *prefix, **settings).change
    stderr = ready.failure("true", prefix=prefix, MOCK_LOG="json", MOCK_TIMEOUT="0.4", **settings)
    assert json.loads(stderr.splitlines()[-1])["remedy"].startswith(change)
