"""Our rules in legacy iptables, as the child process puts them there.

python-iptables is used with autocommit off, throughout: it swallows the errors of its own commits. A change is one
commit a table, made under a lock, tried again when somebody else changed the table meanwhile, and read back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from ipaddress import ip_address, ip_interface
from itertools import count

from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables import loader, preflight
from imds_detour.firewall.lock import TablesLock
from imds_detour.firewall.rules import COMMENT, LEGACY, Dnat, Drop, Installed, Jump, Redirect, Reject, Rule, redirects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from imds_detour.firewall.rules import Action

OUR_CHAINS = {"filter": LEGACY.guard, "nat": LEGACY.redirect}
CONTENDED = (os.strerror(errno.EAGAIN), os.strerror(errno.EINVAL))
"""What a commit fails with when somebody else has changed the table meanwhile."""
PAUSE = 0.001
"""Seconds between two commits while another writer, one that takes no lock, keeps changing the table."""

MAX_KNOWN = 1000
"""Entries that are remembered: some for each address that a mock has had, and a sidecar lives for months."""
ANYWHERE = {4: "0.0.0.0/0.0.0.0", 6: "::/0"}
"""How python-iptables writes that an address does not matter."""


def load(version: int) -> dict[str, Callable[..., object]]:
    """Return the functions that the parent may call, for one IP version.

    Raises:
        DetourError: when legacy iptables cannot work here, naming the capability or library.

    """
    preflight.require_capabilities()
    tables = _Tables(loader.load(version), version)
    return {"ready": tables.ready, "apply": tables.apply, "installed": tables.installed}


class _Tables:
    def __init__(self, iptc: loader.Library, version: int) -> None:
        self._iptc = iptc
        self._version = version
        self._table_class = iptc.table
        self._rule_class = iptc.rule
        self._known: dict[tuple[str, bytes | None, bytes], Rule | None] = {}
        # To tell a chain from an extension it looks into every table, which creates those that nobody uses.
        self._table_class.existing_table_names.update(mangle=False, raw=False, security=False)

    def ready(self) -> None:
        """Build a redirect, for nobody: the extensions that it needs load one by one, and may be missing.

        It is here that the kernel's tables are first touched, and not while loading: that begins before anybody knows
        whether they will be.
        """
        preflight.require_tables(self._version)
        nowhere = Endpoint(ip_address("192.0.2.1" if self._version == 4 else "2001:db8::1"), 80)  # RFC 5737, RFC 3849
        try:
            for rule in redirects([Redirect(nowhere, nowhere)], LEGACY):
                if isinstance(rule.target, Dnat):
                    self._to_iptc(rule)
        except self._iptc.missing as error:
            where = os.environ["XTABLES_LIBDIR"]
            reason = f"an iptables extension is missing in {where}, or of another version ({error})"
            raise DetourError("firewall", reason, loader.PACKAGES) from None

    def apply(self, name: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        give_up = time.monotonic() + timeout
        with TablesLock(timeout):
            table = self._table(name)
            before = self._read(table)
            self._make(table, name, rules, give_up)
        return tuple(found.rule for found in before if found.rule is not None)

    def installed(self, table: str | None) -> tuple[Installed, ...]:
        """Read our rules; a table that has not been made yet is not made for that, and holds none."""
        made = preflight.tables_made(self._version)
        names = [name for name in OUR_CHAINS if table in (name, None) and (made is None or name in made)]
        return tuple(found for name in names for found in self._read(self._table(name)))

    def _table(self, name: str) -> Any:  # noqa: ANN401  (python-iptables has no types)
        table = self._table_class(name, autocommit=False)
        table.refresh()  # the object is shared and may be older than the kernel's state
        return table

    def _make(self, table: Any, name: str, wanted: tuple[Rule, ...], give_up: float) -> None:  # noqa: ANN401  (as above)
        """Make ``wanted`` the rules of ours in one table; none means that our chain goes as well."""
        failure = "the rules read back are not the ones written"
        for attempt in count(1):
            if self._stands(table, name, wanted):
                return
            # EAGAIN: somebody changed the table since we read it. EINVAL may come after a commit that worked.
            final = failure.startswith("can't commit") and not failure.endswith(CONTENDED)
            if attempt > 1 and (final or time.monotonic() > give_up):
                raise DetourError("firewall", f"iptables refused our rules in table {name}: {failure}")
            self._change(table, name, wanted)
            try:
                table.commit()
            except self._iptc.refused as error:
                what, _, why = str(error).partition("b'")  # it formats bytes as they are
                failure = what + why.removesuffix("'")
                time.sleep(PAUSE)
            table = self._table(name)

    def _stands(self, table: Any, name: str, wanted: tuple[Rule, ...]) -> bool:  # noqa: ANN401  (as above)
        if not wanted:
            return not table.is_chain(OUR_CHAINS[name])
        jumps = [position for position, _ in self._jumps(table)]
        first = jumps == list(range(len(jumps)))  # behind somebody's ACCEPT they would stand there and do nothing
        return first and tuple(found.rule for found in self._read(table)) == wanted

    def _change(self, table: Any, name: str, wanted: tuple[Rule, ...]) -> None:  # noqa: ANN401  (as above)
        ours, output = OUR_CHAINS[name], self._iptc.chain(table, "OUTPUT")
        for _, jump in list(self._jumps(table)):
            output.delete_rule(self._rule_class(jump, output))
        if table.is_chain(ours):
            table.flush_entries(ours)
        elif wanted:
            table.create_chain(ours)
        chain = self._iptc.chain(table, ours)
        for rule in (rule for rule in wanted if rule.chain == ours):
            chain.append_rule(self._to_iptc(rule))
        for rule in reversed([rule for rule in wanted if rule.chain == "OUTPUT"]):
            output.insert_rule(self._to_iptc(rule))
        if not wanted and table.is_chain(ours):
            table.delete_chain(ours)

    def _to_iptc(self, rule: Rule) -> Any:  # noqa: ANN401  (as above)
        entry = self._rule_class()
        if rule.destination is not None:
            entry.dst = str(rule.destination)
        if rule.protocol is not None:
            entry.protocol = rule.protocol  # before the target: DNAT takes a port only where the protocol has ports
        if rule.port is not None:
            entry.create_match("tcp").dport = str(rule.port)  # a string: an int makes a rule without a port
        entry.create_match("comment").comment = COMMENT
        match rule.target:
            case Jump(chain):
                entry.create_target(chain)
            case Dnat(to):
                entry.create_target("DNAT").to_destination = str(to)
            case Reject(reply):
                entry.create_target("REJECT").reject_with = reply
            case Drop():
                entry.create_target("DROP")
        return entry

    def _read(self, table: Any) -> list[Installed]:  # noqa: ANN401  (as above)
        ours = OUR_CHAINS[table.name]
        jumps = [entry for _, entry in self._jumps(table)]
        own = list(_entries(table, ours)) if table.is_chain(ours) else []
        return [
            Installed(self._understood(entry, table, chain), entry.counters.pcnt)
            for chain, entries in (("OUTPUT", jumps), (ours, own))
            for entry in entries
        ]

    def _jumps(self, table: Any) -> Iterator[tuple[int, Any]]:  # noqa: ANN401  (as above)
        """Yield position and entry of each rule of OUTPUT that leads into our chain.

        Other people's rules are not decoded: the extensions that they use may be of another version, or missing here.
        """
        ours = OUR_CHAINS[table.name].encode()
        for position, entry in enumerate(_entries(table, "OUTPUT")):
            if table.get_target(entry) == ours:
                yield position, entry

    def _understood(self, entry: Any, table: Any, chain: str) -> Rule | None:  # noqa: ANN401  (as above)
        """Return what an entry says; the same bytes say the same, and reading them takes 0.3 ms."""
        key = chain, table.get_target(entry), _bytes(entry)
        if key not in self._known:
            if len(self._known) > MAX_KNOWN:
                self._known.clear()
            try:
                rule = self._rule_class(entry, self._iptc.chain(table, chain))
                self._known[key] = _from_iptc(rule, table.name, chain, self._version)
            except (ValueError, self._iptc.refused, self._iptc.missing):
                # An address range, a list of ports, an extension that is not here: not of our making.
                self._known[key] = None
        return self._known[key]


def _bytes(entry: Any) -> bytes:  # noqa: ANN401  (python-iptables has no types)
    """Return an entry with its matches and its target as the kernel has them, but for what it counts."""
    counters = type(entry).counters
    whole = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
    return whole[: counters.offset] + whole[counters.offset + counters.size :]


def _entries(table: Any, chain: str) -> Iterator[Any]:  # noqa: ANN401  (python-iptables has no types)
    entry = table.first_rule(chain)
    while entry:
        yield entry
        entry = table.next_rule(entry)


def _from_iptc(entry: Any, table: str, chain: str, version: int) -> Rule | None:  # noqa: ANN401  (as above)
    """Read a rule back; None when it says anything that no rule of ours says."""
    matches = {match.name: match.get_all_parameters() for match in entry.matches}
    parameters = entry.target.get_all_parameters()
    match entry.target.name:
        case "DNAT" if set(parameters) == {"to-destination"}:
            target: Action = Dnat(_endpoint(parameters["to-destination"][0]))
        case "REJECT" if set(parameters) == {"reject-with"}:
            target = Reject(parameters["reject-with"][0])
        case "DROP":
            target = Drop()
        case name if name in OUR_CHAINS.values():
            target = Jump(name)
        case _:
            return None
    port = matches.pop("tcp", {})
    rule = Rule(
        table,
        chain,
        target,
        destination=None if entry.dst == ANYWHERE[version] else ip_interface(entry.dst).ip,
        protocol=None if entry.protocol == "ip" else entry.protocol,
        port=int(port.pop("dport")[0]) if "dport" in port else None,
        version=version,
    )
    fragment = version == 4 and entry.fragment  # IPv6 has a match for it
    interfaces = entry.in_interface or entry.out_interface
    plain = entry.src == ANYWHERE[version] and not (interfaces or port or fragment or entry.target.goto)
    exact = rule.destination is None or ip_interface(entry.dst).network.num_addresses == 1
    return rule if plain and exact and matches == {"comment": {"comment": [COMMENT]}} else None


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(ip_address(host.strip("[]")), int(port))
