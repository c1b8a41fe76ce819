"""The rules in legacy iptables, installed and read by python-iptables inside a helper.

python-iptables is used with autocommit off, because it swallows the errors of its own commits. A change is one commit a
table, made under a lock, retried when another program changed the table meanwhile, and read back.
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
from imds_detour.firewall.rules import (
    COMMENT,
    LEGACY,
    Dnat,
    Drop,
    Installed,
    Jump,
    Redirect,
    Reject,
    Rule,
    redirect_rules,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from imds_detour.firewall.rules import Action

CHAINS = {"filter": LEGACY.guard, "nat": LEGACY.redirect}
CONTENDED = (os.strerror(errno.EAGAIN), os.strerror(errno.EINVAL))
"""How a commit fails when another program has changed the table meanwhile."""
PAUSE = 0.001
"""Seconds between two commits while a writer that takes no lock keeps changing the table."""
MAX_DECODED = 1000
"""Decoded entries to keep: a sidecar decodes some for each address that a mock has had, and runs for months."""
ANY_ADDRESS = {4: "0.0.0.0/0.0.0.0", 6: "::/0"}
"""How python-iptables writes that an address does not matter."""


def load(version: int) -> dict[str, Callable[..., object]]:
    """Return the functions that the parent may call, for one IP version."""
    preflight.require_capabilities()
    tables = _Tables(loader.load(version), version)
    return {"ready": tables.ready, "apply": tables.apply, "installed": tables.installed}


class _Tables:
    def __init__(self, library: loader.Library, version: int) -> None:
        self._library = library
        self._version = version
        self._decoded: dict[tuple[str, bytes | None, bytes], Rule | None] = {}
        # To tell a chain from an extension, python-iptables looks into every table, which would create unused ones.
        library.table.existing_table_names.update(mangle=False, raw=False, security=False)

    def ready(self) -> None:
        """Build a redirect without installing it: the extensions that it needs load one by one, and may be missing.

        The kernel's tables are touched here for the first time, not while loading: the parent may not need them.
        """
        preflight.require_tables(self._version)
        example = Endpoint(ip_address("192.0.2.1" if self._version == 4 else "2001:db8::1"), 80)  # RFC 5737, RFC 3849
        try:
            for rule in redirect_rules([Redirect(example, example)], LEGACY):
                if isinstance(rule.action, Dnat):
                    self._encode(rule)
        except self._library.missing as error:
            folder = os.environ["XTABLES_LIBDIR"]
            reason = f"an iptables extension is missing in {folder}, or of another version ({error})"
            raise DetourError("firewall", reason, loader.PACKAGES) from None

    def apply(self, name: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        deadline = time.monotonic() + timeout
        with TablesLock(timeout):
            table = self._table(name)
            before = self._read(table)
            self._install(table, name, rules, deadline)
        return tuple(entry.rule for entry in before if entry.rule is not None)

    def installed(self, table: str | None) -> tuple[Installed, ...]:
        """Read our rules. A table that does not exist yet is not created by that; it has none."""
        existing = preflight.existing_tables(self._version)
        names = [name for name in CHAINS if table in (name, None) and (existing is None or name in existing)]
        return tuple(entry for name in names for entry in self._read(self._table(name)))

    def _table(self, name: str) -> Any:  # noqa: ANN401  (python-iptables has no types)
        table = self._library.table(name, autocommit=False)
        table.refresh()  # the object is shared, and may be older than the kernel's state
        return table

    def _install(self, table: Any, name: str, wanted: tuple[Rule, ...], deadline: float) -> None:  # noqa: ANN401  (as above)
        """Make these our rules in a table; without any, the chain is removed too."""
        failure = "the rules read back are not the ones written"
        for attempt in count(1):
            if self._is_installed(table, name, wanted):
                return
            # EAGAIN: the table was changed since it was read. EINVAL may follow a commit that worked.
            final = failure.startswith("can't commit") and not failure.endswith(CONTENDED)
            if attempt > 1 and (final or time.monotonic() > deadline):
                raise DetourError("firewall", f"iptables refused our rules in table {name}: {failure}")
            self._change(table, name, wanted)
            try:
                table.commit()
            except self._library.refused as error:
                text, _, reason = str(error).partition("b'")  # it formats bytes as they are
                failure = text + reason.removesuffix("'")
                time.sleep(PAUSE)
            table = self._table(name)

    def _is_installed(self, table: Any, name: str, wanted: tuple[Rule, ...]) -> bool:  # noqa: ANN401  (as above)
        if not wanted:
            return not table.is_chain(CHAINS[name])
        positions = [position for position, _ in self._jumps(table)]
        first = positions == list(range(len(positions)))  # after a foreign ACCEPT they would do nothing
        return first and tuple(entry.rule for entry in self._read(table)) == wanted

    def _change(self, table: Any, name: str, wanted: tuple[Rule, ...]) -> None:  # noqa: ANN401  (as above)
        chain, output = CHAINS[name], self._library.chain(table, "OUTPUT")
        for _, jump in list(self._jumps(table)):
            output.delete_rule(self._library.rule(jump, output))
        if table.is_chain(chain):
            table.flush_entries(chain)
        elif wanted:
            table.create_chain(chain)
        entries = self._library.chain(table, chain)
        for rule in (rule for rule in wanted if rule.chain == chain):
            entries.append_rule(self._encode(rule))
        for rule in reversed([rule for rule in wanted if rule.chain == "OUTPUT"]):
            output.insert_rule(self._encode(rule))
        if not wanted and table.is_chain(chain):
            table.delete_chain(chain)

    def _encode(self, rule: Rule) -> Any:  # noqa: ANN401  (as above)
        entry = self._library.rule()
        if rule.destination is not None:
            entry.dst = str(rule.destination)
        if rule.protocol is not None:
            entry.protocol = rule.protocol  # before the target: DNAT takes a port only if the protocol has ports
        if rule.port is not None:
            entry.create_match("tcp").dport = str(rule.port)  # a string: an int makes a rule without a port
        entry.create_match("comment").comment = COMMENT
        match rule.action:
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
        chain = CHAINS[table.name]
        jumps = [entry for _, entry in self._jumps(table)]
        entries = list(_entries(table, chain)) if table.is_chain(chain) else []
        return [
            Installed(self._decode(entry, table, name), entry.counters.pcnt)
            for name, of_chain in (("OUTPUT", jumps), (chain, entries))
            for entry in of_chain
        ]

    def _jumps(self, table: Any) -> Iterator[tuple[int, Any]]:  # noqa: ANN401  (as above)
        """Yield position and entry of each rule of OUTPUT that jumps to our chain.

        Foreign rules are not decoded: their extensions may be of another version, or missing.
        """
        chain = CHAINS[table.name].encode()
        for position, entry in enumerate(_entries(table, "OUTPUT")):
            if table.get_target(entry) == chain:
                yield position, entry

    def _decode(self, entry: Any, table: Any, chain: str) -> Rule | None:  # noqa: ANN401  (as above)
        """Return the rule of an entry, None for a foreign one. Decoding is slow, so results are kept by bytes."""
        key = chain, table.get_target(entry), _bytes(entry)
        if key not in self._decoded:
            if len(self._decoded) > MAX_DECODED:
                self._decoded.clear()
            try:
                rule = self._library.rule(entry, self._library.chain(table, chain))
                self._decoded[key] = _from_iptc(rule, table.name, chain, self._version)
            except (ValueError, self._library.refused, self._library.missing):
                self._decoded[key] = None  # a range, a list of ports, a missing extension: a foreign rule
        return self._decoded[key]


def _bytes(entry: Any) -> bytes:  # noqa: ANN401  (python-iptables has no types)
    """Return an entry with its matches and target as the kernel has them, without its counters."""
    counters = type(entry).counters
    whole = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
    return whole[: counters.offset] + whole[counters.offset + counters.size :]


def _entries(table: Any, chain: str) -> Iterator[Any]:  # noqa: ANN401  (python-iptables has no types)
    entry = table.first_rule(chain)
    while entry:
        yield entry
        entry = table.next_rule(entry)


def _from_iptc(entry: Any, table: str, chain: str, version: int) -> Rule | None:  # noqa: ANN401  (as above)
    """Return the rule that an entry was made from; None if it has anything that no rule of imds-detour has."""
    matches = {match.name: match.get_all_parameters() for match in entry.matches}
    parameters = entry.target.get_all_parameters()
    match entry.target.name:
        case "DNAT" if set(parameters) == {"to-destination"}:
            action: Action = Dnat(_endpoint(parameters["to-destination"][0]))
        case "REJECT" if set(parameters) == {"reject-with"}:
            action = Reject(parameters["reject-with"][0])
        case "DROP":
            action = Drop()
        case name if name in CHAINS.values():
            action = Jump(name)
        case _:
            return None
    port = matches.pop("tcp", {})
    rule = Rule(
        table,
        chain,
        action,
        destination=None if entry.dst == ANY_ADDRESS[version] else ip_interface(entry.dst).ip,
        protocol=None if entry.protocol == "ip" else entry.protocol,
        port=int(port.pop("dport")[0]) if "dport" in port else None,
        version=version,
    )
    fragment = version == 4 and entry.fragment  # IPv6 has a match for it
    interfaces = entry.in_interface or entry.out_interface
    plain = entry.src == ANY_ADDRESS[version] and not (interfaces or port or fragment or entry.target.goto)
    exact = rule.destination is None or ip_interface(entry.dst).network.num_addresses == 1
    return rule if plain and exact and matches == {"comment": {"comment": [COMMENT]}} else None


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(ip_address(host.strip("[]")), int(port))
