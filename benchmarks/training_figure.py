"""Picture of ``training_table.json``: accuracy of every method against the cycles that an image takes.

python benchmarks/training_figure.py --data "CIFAR-10 (JPEG q75)" --figure notebooks/figures/training.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.training_table import TABLE
from hwsim import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP<>hX*d"
SHOWN_POINTS = 8
"""How far below the float network the picture reaches, percent; what is lower is told at its edge."""


def accuracy_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return accuracy against cycles of an image: uniform widths of a method joined by a line, mixed ones hollow."""
    from matplotlib.ticker import LogLocator

    figure = figures.new_figure(8, 4.5)
    axes = figure.subplots()
    timed = [row for row in rows if row["cycles_per_image"] is not None]
    compared = {row["float_accuracy"] for row in rows}
    lowest = max(0, min(compared) - SHOWN_POINTS)
    told: list[float] = []
    for number, method in enumerate(dict.fromkeys(row["method"] for row in timed)):
        mine = [row for row in timed if row["method"] == method]
        uniform = sorted((row for row in mine if is_uniform(row)), key=lambda row: row["average_weight_bits"])
        mixed = [row for row in mine if not is_uniform(row)]
        colour, marker = f"C{number % 10}", MARKERS[number % len(MARKERS)]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1}
        axes.plot([], [], **style, label=method)
        axes.plot(*points(uniform), **style)
        axes.plot(*points(mixed), **style | {"linestyle": "none", "markerfacecolor": "white"})
        for cycles, accuracy in zip(*points(mine), strict=True):
            if accuracy < lowest:
                # Those that would be written over another are put above it.
                height = 18 + 10 * sum(max(cycles, one) < 1.2 * min(cycles, one) for one in told)
                told.append(cycles)
                axes.annotate(
                    f"{accuracy:.1f}", (cycles, lowest), (0, height), textcoords="offset points", ha="center",
                    fontsize=7.5, color=colour, arrowprops={"arrowstyle": "->", "color": colour},
                )  # fmt: skip
    for accuracy in compared:
        axes.axhline(accuracy, color="grey", linewidth=1, linestyle=(0, (4, 3)), label="float, as many epochs")
    axes.set_ylim(lowest, max([*compared, *(row["accuracy"] for row in timed)]) + 0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4, 7)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    title = f"{rows[0]['network']}, {rows[0]['data']} (hollow: mixed widths)"
    figures.label(axes, title, "cycles an image, 32 lanes x 16 columns", "test accuracy, %")
    return figure


def is_uniform(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of one width everywhere: W8A8 and the like."""
    weights, _, activations = row["assignment"].removeprefix("W").partition("A")
    return bool(weights.isdecimal() and weights == activations)


def points(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    """Return cycles and accuracies."""
    return [row["cycles_per_image"] for row in rows], [row["accuracy"] for row in rows]


def main() -> None:
    """Draw the rows of one data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=TABLE, metavar="FILE", help="the table (default: %(default)s)")
    parser.add_argument("--data", required=True, help="what the table calls the data")
    parser.add_argument("--figure", type=Path, required=True, metavar="FILE.png")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text())["rows"]
    mine = [row for row in rows if row["data"] == options.data]
    if not mine:
        known = ", ".join(sorted({row["data"] for row in rows}))
        parser.error(f"--data must be one of {known}, not {options.data!r}")
    figures.save(accuracy_figure(mine), options.figure)


if __name__ == "__main__":
    main()
