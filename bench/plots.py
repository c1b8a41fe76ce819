"""The two plots of docs/performance.md, as SVG for light and dark pages."""

from __future__ import annotations

import os
import sys
from typing import Any

from bench.subjects import HERE

FOLDER = os.path.join(HERE, "plots")
INK = "#7d8590"
"""A grey with a contrast of over 3.5 to white and to GitHub's dark page; there is no background."""
STAGES = ["#4c8eda", "#d9822b", "#3fa36b", "#a371d9", "#d0567a", "#8c9a2f", "#2fa3a3", "#b07f52"]
DETOUR_COLOUR, PEER_COLOUR = "#3fa36b", "#d9822b"


def draw(results: dict[str, Any]) -> None:
    """Write startup.svg and reaction.svg from the results."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  (an optional dependency: pip install imds-detour[bench])
    except ImportError:
        sys.stderr.write("bench: no matplotlib, no plots: pip install -e .[bench]\n")
        return
    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "imds-detour",  # the same numbers make the same file
            "font.family": "sans-serif",
            "font.size": 11,
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "ytick.major.size": 0,
        }
    )
    os.makedirs(FOLDER, exist_ok=True)
    _startup(results["stages"])
    _reaction(results["rows"])


def _startup(stages: dict[str, list[tuple[str, float]]]) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415  (as above)
    from matplotlib.patches import Patch  # noqa: PLC0415  (as above)

    labels = list(dict.fromkeys(label for split in stages.values() for label, _ in split))
    colours = dict(zip(labels, STAGES * 2, strict=False))
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.6 * len(stages)))
    for position, (name, split) in enumerate(reversed(stages.items())):
        left = 0.0
        for label, milliseconds in split:
            axes.barh(position, milliseconds, left=left, height=0.55, color=colours[label])
            left += milliseconds
        axes.text(left, position, f"  {left:.0f} ms", va="center")
        axes.text(-0.01, position, name, va="center", ha="right", transform=axes.get_yaxis_transform())
    axes.set_yticks([])
    axes.set_xlabel("milliseconds from start to the app")
    handles = [Patch(color=colours[label]) for label in labels]
    figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False, fontsize=9)
    figure.subplots_adjust(left=0.14, right=0.92, top=0.68, bottom=0.22)
    _save(figure, "startup")


def _reaction(rows: list[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415  (as above)

    late = [row for row in rows if row["group"] == "reaction, HTTP late"]
    late.sort(key=lambda row: -row["value"]["middle"])
    figure, axes = plt.subplots(figsize=(8, 1.1 + 0.45 * len(late)))
    for position, row in enumerate(late):
        value = row["value"]
        colour = DETOUR_COLOUR if row["subject"] in ("pip install", "bundle") else PEER_COLOUR
        name = f"imds-detour, {row['subject']}" if colour == DETOUR_COLOUR else row["subject"]
        axes.barh(position, value["middle"], height=0.55, color=colour)
        axes.hlines(position, value["low"], value["high"], color=INK, linewidth=1.5)
        end = max(value["high"], value["middle"])
        axes.text(end, position, f"  {value['middle']:.0f} ms", va="center")
        axes.text(-0.01, position, name, va="center", ha="right", transform=axes.get_yaxis_transform())
    axes.set_yticks([])
    axes.set_xlabel("milliseconds from the moment the mock listens to the app (median, quartiles)")
    figure.subplots_adjust(left=0.27, right=0.92, top=0.97, bottom=0.62 / (1.1 + 0.45 * len(late)))
    _save(figure, "reaction")


def _save(figure: Any, name: str) -> None:  # noqa: ANN401  (matplotlib is optional, and so are its types)
    figure.savefig(os.path.join(FOLDER, f"{name}.svg"), transparent=True, metadata={"Date": None})
