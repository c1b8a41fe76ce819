"""Read and change the legacy tables by python-iptables, inside a helper.

Autocommit is off, because python-iptables ignores errors of its own commits. A change is a commit of a table, under a
lock. It is retried when another program changed the table meanwhile, and the rules are read back.
"""

from __future__ import annotations

import errno
import os
import time
from ipaddress import ip_address
from itertools import count

from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables import codec, loader, preflight
from imds_detour.firewall.lock import LOCK_TIMEOUT, legacy_tables_lock
from imds_detour.firewall.rules import LEGACY, Installed, Redirect, Rule, dnat_rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from imds_detour.firewall.change import Change

    Iptc: TypeAlias = Any  # an object of python-iptables, which has no types

CHAINS = {"filter": LEGACY.guard, "nat": LEGACY.redirect}
"""imds-detour's chain in each table."""
SHARED = {table: tuple(chain for (of, _), chain in LEGACY.hooks.items() if of == table) for table in CHAINS}
"""The shared chains of each table that may jump to it."""
CONTENDED = (os.strerror(errno.EAGAIN), os.strerror(errno.EINVAL))
"""Messages of a commit after another program has changed the table."""
PAUSE = 0.001
"""Seconds between two commits, when a writer without the lock changes the table at the same time."""
JUMPS = frozenset(chain.encode() for chain in CHAINS.values())
MAX_DECODED = 1000
"""Decoded entries to keep. A sidecar runs for months, and each new address of a mock adds some."""


def load(version: int) -> dict[str, Callable[..., object]]:
    """Return the functions for an IP version that the parent may call, by name."""
    tables = _Tables(loader.load(version), version)
    return {"check": tables.check, "apply": tables.apply, "installed": tables.installed}


class _Tables:
    def __init__(self, library: loader.Library, version: int) -> None:
        self._library = library
        self._version = version
        self._decoded: dict[tuple[object, ...], Rule | None] = {}
        # To tell a chain from an extension, python-iptables reads all tables but these. Reading would create them.
        library.table.existing_table_names.update(mangle=False, raw=False, security=False)

    def check(self) -> None:
        """Raise DetourError if an extension or a table is missing. This makes the kernel create the tables."""
        preflight.require_tables(self._version)
        example = Endpoint(ip_address("192.0.2.1" if self._version == 4 else "2001:db8::1"), 80)  # RFC 5737, RFC 3849
        try:  # building a rule loads the extensions that it uses; this one is not installed
            codec.encode(self._library, dnat_rule(Redirect(example, example), LEGACY))
        except self._library.missing as error:
            folder = os.environ["XTABLES_LIBDIR"]
            reason = f"an iptables extension is missing in {folder}, or of another version ({error})"
            raise DetourError("firewall", reason, loader.PACKAGES) from None

    def apply(self, change: Change, deadline: float) -> tuple[Rule, ...]:
        """Change imds-detour's rules in a table, and return the previous ones.

        ``deadline`` is when the caller stops waiting, on the monotonic clock, which all processes share. Another writer
        is waited for until then, and for LOCK_TIMEOUT at most.
        """
        now = time.monotonic()
        deadline = min(deadline, now + LOCK_TIMEOUT)
        with legacy_tables_lock(max(0.0, deadline - now)):
            table = self._table(change.table)
            installed = self._read(table)
            previous = tuple(entry.rule for entry in installed if entry.rule is not None)
            wanted = tuple(rule for rule in change.wanted(previous, LEGACY) if rule.version == self._version)
            self._install(table, installed, wanted, deadline)
        return previous

    def installed(self, table: str | None) -> tuple[Installed, ...]:
        """Read imds-detour's rules, in one table or in both, without creating a table."""
        existing = preflight.existing_tables(self._version)
        names = [name for name in CHAINS if table in (name, None) and (existing is None or name in existing)]
        return tuple(entry for name in names for entry in self._read(self._table(name)))

    def _table(self, name: str) -> Iptc:
        table = self._library.table(name, autocommit=False)
        table.refresh()  # python-iptables keeps one object a table, with the state of its last read
        return table

    def _install(self, table: Iptc, installed: list[Installed], wanted: tuple[Rule, ...], deadline: float) -> None:
        """Replace imds-detour's rules, ``installed`` as just read. If none are wanted, remove the chain too."""
        failure = "the rules read back are not the ones written"
        for attempt in count(1):
            if _are_installed(table, installed, wanted):
                return
            # EAGAIN: the table has changed since it was read. EINVAL can follow a commit that the kernel accepted.
            final = failure.startswith("can't commit") and not failure.endswith(CONTENDED)
            if attempt > 1 and (final or time.monotonic() > deadline):
                raise DetourError("firewall", f"iptables refused imds-detour's rules in table {table.name}: {failure}")
            self._change(table, wanted)
            try:
                table.commit()
            except self._library.refused as error:
                text, _, reason = str(error).partition("b'")  # its messages contain the repr of bytes
                failure = text + reason.removesuffix("'")
                time.sleep(PAUSE)
            table = self._table(table.name)
            installed = self._read(table)

    def _change(self, table: Iptc, wanted: tuple[Rule, ...]) -> None:
        chain = CHAINS[table.name]
        if table.is_chain(chain):
            table.flush_entries(chain)
        elif wanted:
            table.create_chain(chain)
        entries = self._library.chain(table, chain)
        for rule in (rule for rule in wanted if rule.chain == chain):
            entries.append_rule(codec.encode(self._library, rule))
        encoded: dict[tuple[object, ...], Iptc] = {}  # a jump of each kind, because encoding is slow
        for shared in SHARED[table.name]:
            for position in reversed([position for position, _ in _jumps(table, shared)]):
                self._library.delete(table, shared, position)
            for rule in (rule for rule in reversed(wanted) if rule.chain == shared):
                alike = rule.destination is None, rule.protocol, rule.port, rule.comment  # all have one action
                if alike not in encoded:
                    encoded[alike] = codec.entry_bytes(codec.encode(self._library, rule))
                if rule.destination is not None:
                    codec.set_destination(encoded[alike], rule.destination)
                table.insert_entry(shared, encoded[alike], 0)
        if not wanted and table.is_chain(chain):
            table.delete_chain(chain)

    def _read(self, table: Iptc) -> list[Installed]:
        chain = CHAINS[table.name]
        installed = []
        for shared in SHARED[table.name]:
            for index, (position, entry) in enumerate(_jumps(table, shared)):
                # A jump after a foreign rule may have no effect. It counts as foreign too.
                rule = self._decode(entry, table, shared) if position == index else None
                installed.append(Installed(rule, entry.counters.pcnt))
        entries = _entries(table, chain) if table.is_chain(chain) else ()
        installed += (Installed(self._decode(entry, table, chain), entry.counters.pcnt) for entry in entries)
        return installed

    def _decode(self, entry: Iptc, table: Iptc, chain: str) -> Rule | None:
        """Return an entry's rule, None for a foreign one. Of jumps that differ in chain or address, one is decoded."""
        target = table.get_target(entry)
        destination, masked = codec.masked_bytes(entry, self._version, jumps=target in JUMPS)
        alike = table.name, None if destination else chain, target, masked
        key = (*alike, chain, destination)
        if key not in self._decoded:
            if len(self._decoded) > MAX_DECODED:
                self._decoded.clear()
            if alike not in self._decoded:
                try:
                    rule = self._library.rule(entry, self._library.chain(table, chain))
                    self._decoded[alike] = codec.decode(rule, table.name, chain, self._version)
                except (ValueError, self._library.refused, self._library.missing):
                    self._decoded[alike] = None  # a foreign rule: a range, a list of ports, a missing extension
            first = self._decoded[alike]
            self._decoded[key] = first.replace(chain=chain, destination=destination) if first and destination else first
        return self._decoded[key]


def _are_installed(table: Iptc, installed: list[Installed], wanted: tuple[Rule, ...]) -> bool:
    if not wanted:
        return not table.is_chain(CHAINS[table.name])
    return len(installed) == len(wanted) and all(
        [entry.rule for entry in installed if entry.rule and entry.rule.chain == chain]
        == [rule for rule in wanted if rule.chain == chain]
        for chain in (*SHARED[table.name], CHAINS[table.name])
    )


def _jumps(table: Iptc, shared: str) -> Iterator[tuple[int, Iptc]]:
    """Yield the position and the entry of every rule of a shared chain that jumps to imds-detour's chain."""
    chain = CHAINS[table.name].encode()
    for position, entry in enumerate(_entries(table, shared)):
        # Foreign rules are not decoded: an extension that they need may be missing, or of another version.
        if table.get_target(entry) == chain:
            yield position, entry


def _entries(table: Iptc, chain: str) -> Iterator[Iptc]:
    entry = table.first_rule(chain)
    while entry:
        yield entry
        entry = table.next_rule(entry)
