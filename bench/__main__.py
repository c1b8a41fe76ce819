"""Measure everything, print the table and write it down: ``make bench``.

``make bench QUICK=1`` prints the table from few samples, in less than three minutes, and writes nothing. ``python -m
bench NAME...`` runs the named measurements. With KEEP=1 their results replace the same ones of the last complete run.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench import crowd, datapath, footprint, plots, pods, reaction, sidecar, startup, subjects, table, waiting
from imds_detour import __version__
from imds_detour.ctl.lab import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.rows import Row

QUICK, KEEP = (os.getenv(name, "") not in ("", "0") for name in ("QUICK", "KEEP"))
RESULTS = os.path.join(subjects.HERE, "results.json")


def main() -> int:
    """Prepare outside the sandbox and measure inside; names after ``python -m bench`` select measurements."""
    if not sandbox.inside():
        if why := sandbox.missing():
            sys.stderr.write(f"bench: {why}\n")
            return 2
        missing = [*subjects.prepare(), *filter(None, [pods.missing()])]
        os.environ["BENCH_MISSING"] = json.dumps(missing)
        return sandbox.run([sys.executable, "-m", "bench", *sys.argv[1:]], os.environ)
    wanted = sys.argv[1:]
    machine = table.machine()  # its load before we load it
    rows: list[Row] = []
    stages: dict[str, list[tuple[str, float]]] = {}
    measurements: dict[str, Callable[[], list[Row]]] = {
        "startup": lambda: startup.measure(10 if QUICK else 60, quick=QUICK),
        "reaction": lambda: reaction.measure(5 if QUICK else 50, quick=QUICK),
        "waiting": lambda: waiting.measure(2 if QUICK else 20),
        "stop": lambda: reaction.stop(3 if QUICK else 20, quick=QUICK),
        "datapath": lambda: datapath.measure(worlds=1 if QUICK else 6, quick=QUICK),
        "footprint": footprint.measure,
        "sidecar": lambda: sidecar.measure(idle=10 if QUICK else 60, moves=3 if QUICK else 20, quick=QUICK),
        "crowd": lambda: crowd.measure((50, 200) if QUICK else (50, 100, 200), 1 if QUICK else 5),
        "pods": pods.measure,
    }
    for name, measure in measurements.items():
        if not wanted or name in wanted:
            began = time.monotonic()
            rows += measure()
            sys.stderr.write(f"bench: {name} took {time.monotonic() - began:.0f} s\n")
    if not QUICK and (not wanted or "startup" in wanted):  # for a plot
        stages = startup.stages(40)
    missing = json.loads(os.environ.get("BENCH_MISSING", "[]"))
    date, version = dt.datetime.now(tz=dt.UTC).date().isoformat(), _version()
    sys.stdout.write(table.text(rows, missing, f"imds-detour {version}, {date}, {machine}"))
    results = {
        "date": date,
        "version": version,
        "machine": machine.partition(", load ")[0],
        "quick": QUICK,
        "rows": [row.plain() for row in rows],
        "stages": stages,
        "missing": missing,
    }
    if wanted and KEEP:
        results = _merged(results)
    if KEEP or not (wanted or QUICK):
        with open(RESULTS, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
        plots.draw(results)
    return 0


def _version() -> str:
    """Return imds-detour's version, with the commit if this is a checkout."""
    command = ["git", "-C", subjects.ROOT, "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{__version__} ({done.stdout.strip()})" if done.returncode == 0 else __version__


def _merged(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results of the last complete run, with these groups replaced."""
    with open(RESULTS) as file:
        before: dict[str, Any] = json.load(file)
    groups = {row["group"] for row in results["rows"]}
    rows = [row for row in before["rows"] if row["group"] not in groups] + results["rows"]
    return {**results, "rows": rows, "stages": results["stages"] or before["stages"]}


if __name__ == "__main__":
    sys.exit(main())
