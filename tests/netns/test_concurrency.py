"""Several imds-detour processes and other programs write rules at once: no rule is lost or doubled."""

import json
import re
import subprocess
import sys
import time
from importlib.util import cache_from_source, find_spec

import pytest

from tests.support.faults.injection import Injection, strace
from tests.support.faults.lock import held_lock
from tests.support.hosts.cloud import BACKENDS, LONG, SERVERS_PORT, Cloud
from tests.support.hosts.network import DETOUR, MOCK, Network, read_line

WRITERS = 8 if LONG else 4
INSTALLS = 50 if LONG else 20


def own_rules(cloud: Cloud, backend: str) -> list[str]:
    """Return imds-detour's rules without counters, the mock's address replaced by MOCK."""
    ip = cloud.ip
    if backend == "nft":
        text = cloud.app.run("nft", "list", "table", ip.nft, "imds_detour").stdout
    else:
        tables = ("nat", "filter")
        text = "".join(cloud.app.run(f"{ip.iptables}-save", "-t", table).stdout for table in tables)
        text = "\n".join(line for line in text.splitlines() if "IMDS_DETOUR" in line)
    for mock in (ip.mock, ip.other):
        text = text.replace(ip.at(mock, SERVERS_PORT), "MOCK")
    return [line.strip() for line in re.sub(r"packets \d+ bytes \d+ |\[\d+:\d+\]", "", text).splitlines()]


def install_once(cloud: Cloud, backend: str) -> list[str]:
    """Install the rules once without other writers, and return them: the expected end state."""
    cloud.writer(backend, 0, cloud.mocks[0]).end()
    lines = own_rules(cloud, backend)
    assert sum("MOCK" in line for line in lines) == 1, lines
    return lines


IPTABLES = "{iptables} -w -t $t {{}} OUTPUT -d {address} -m comment --comment $i -j RETURN"
FOREIGN = {
    # Each step also adds and deletes a rule: an unchanged number of rules hides a change from the kernel's check.
    "iptables": "for t in nat filter; do " + "; ".join(IPTABLES.replace("{{}}", how) for how in ("-A", "-I", "-D")),
    # With a separate lock file, as in another container. Without the pause no other process could commit.
    "iptables without the lock": "export XTABLES_LOCKFILE=/run/another.lock\n"
    "for t in nat filter; do until " + IPTABLES.replace("{{}}", "-A") + "; do :; done; sleep 0.01",
    "nft": 'for t in nat filter; do nft add rule {nft} foreign $t {nft} daddr {address} return comment \\"$i\\"',
}
"""Shell loops of the other program: one rule for each table and step."""
QUICK_PAIRS = [("legacy", "iptables"), ("legacy", "iptables without the lock"), ("nft", "nft")]
PAIRS = [(backend, foreign) for backend in BACKENDS for foreign in FOREIGN] if LONG else QUICK_PAIRS


@pytest.mark.parametrize(("backend", "foreign"), PAIRS, ids=[" and ".join(pair) for pair in PAIRS])
def test_concurrent_writers_lose_no_rules(cloud: Cloud, backend: str, foreign: str) -> None:
    """Processes that change the target while another program adds rules leave one copy and every foreign rule."""
    ip = cloud.ip
    expected = install_once(cloud, backend)
    address = "192.0.2.9" if ip.version == 4 else "2001:db8::9"
    chains = "; ".join(
        f"add chain {ip.nft} foreign {name} {{ type {name} hook output priority 7; }}" for name in ("nat", "filter")
    )
    cloud.app.run("nft", f"add table {ip.nft} foreign; {chains}")
    # Half of the writers begin with the other mock, so that each install changes a rule.
    writers = [cloud.writer(backend, INSTALLS, *cloud.mocks[:: 1 if n % 2 else -1]) for n in range(WRITERS)]
    step = FOREIGN[foreign].format(iptables=ip.iptables, nft=ip.nft, address=address)
    # The loop prints a line at four rules in each table, and their number at the end.
    four = '[ "$i" != 4 ] || echo four'
    script = f"i=0; while [ ! -e /run/enough ]; do i=$((i + 1)); {step}; done; {four}; done 2>/dev/null; echo $i"
    other = cloud.app.popen("sh", "-uc", script, stdout=subprocess.PIPE)
    for writer in writers:
        writer.tell("go")
    assert read_line(other) == "four\n"
    done = [int(writer.end()) for writer in writers]
    cloud.app.run("touch", "/run/enough")
    steps = int(other.communicate(timeout=30)[0])
    print(f"{backend}: {done} installs, and {steps} rules in each table by {foreign}")  # noqa: T201  (figures, for -rP)
    assert min(done) >= INSTALLS
    assert own_rules(cloud, backend) == expected
    for table in ("nat", "filter"):
        assert foreign_rules(cloud, foreign, table) == [str(number) for number in range(1, steps + 1)]
    assert set(json.loads(cloud.client(10).end())) <= {"A", "B"}


def foreign_rules(cloud: Cloud, foreign: str, table: str) -> list[str]:
    """Return the numbers of the other program's rules in a table, in order."""
    ip = cloud.ip
    if foreign == "nft":
        text = cloud.app.run("nft", "list", "chain", ip.nft, "foreign", table).stdout
    else:
        text = cloud.app.run(f"{ip.iptables}-save", "-t", table).stdout
    return [match[1] for match in re.finditer(r'comment "?(\d+)"?', text)]


LOCK_AT_A_FORK = """
from imds_detour.firewall import lock
from imds_detour.firewall.iptables.helper import start_helper

with lock.namespace_lock("held", 0.5):
    helper = start_helper(4)
with lock.namespace_lock("held", 0.5):
    print(lock._skipped)
helper.close()
"""


CALLS_IN_A_ROW = """
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.helper import start_helper

helper = start_helper(4)
read = ("installed", ("nat",))
helper.ask([read, ("nothing", ()), read], 10)
print(helper.answer(10))
try:
    helper.answer(10)
except DetourError as error:
    print(error.reason)
helper.ask([read, read], 10)
try:
    helper.call("something", remaining=10)
except DetourError as error:
    print(error.reason)
helper.close()
"""


def test_answers_of_a_helper_belong_to_its_calls(network: Network) -> None:
    """Of calls in a row each has its answer, until one fails. An answer that nobody took is not the next call's."""
    failed = "the firewall helper failed: KeyError"
    said = network.app.run(sys.executable, "-c", CALLS_IN_A_ROW).stdout
    assert said.splitlines() == ["()", f"{failed}: 'nothing'", f"{failed}: 'something'"]


def test_helper_does_not_keep_a_lock_that_was_held_at_its_fork(network: Network) -> None:
    """A sidecar that starts another helper inside its lock gives the lock back, while the helper runs."""
    assert network.app.run(sys.executable, "-c", LOCK_AT_A_FORK).stdout == "set()\n"


@pytest.mark.slow
def test_helper_that_loads_slowly_has_all_of_its_time_for_the_lock(network: Network) -> None:
    """A helper that loads for longer than LOCK_TIMEOUT waits as long for a lock that is held meanwhile."""
    network.start_mock()
    library = find_spec("iptc")
    assert library is not None
    assert library.origin is not None
    file = cache_from_source(library.origin.replace("__init__", "ip4tc"))
    slow = strace(Injection("openat", "delay_enter=4500000", 1), paths=[file], children=True)
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": "legacy"}
    with held_lock(network.app):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        start = network.app.popen(*slow, DETOUR, "echo", "started", environ=network.settings(None, **settings), **pipes)
        time.sleep(5.5)  # one that loaded at once would have given up after LOCK_TIMEOUT, which is the control
    out, err = start.communicate()
    assert (start.returncode, out) == (0, "started\n"), err
