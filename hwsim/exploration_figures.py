"""Figures of an exploration: throughput against area at each assignment, and how far the models of area are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.exploration import AreaModel, Device, Point, front
from hwsim.figures import BLUE, FAINT, INK, ORANGE, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "planes": {"color": BLUE, "marker": "o", "told": "planes, in logic cells"},
    "dsp": {"color": ORANGE, "marker": "s", "told": "digits, in multipliers"},
}


def exploration_figure(points: Sequence[Point], device: Device, chosen: Point | None = None) -> Figure:
    """Return one panel for each assignment: every machine, and the front of each datapath."""
    names = list(points[0].interval_cycles)
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = new_figure(0.8 + 3.1 * columns, 0.8 + 3.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, (axes, name) in enumerate(zip(grid.ravel(), names, strict=False)):
        draw_front(axes, points, name, device, chosen)
        if index % columns:
            axes.set_ylabel("")
    for axes in grid.ravel()[len(names) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8.5, ncols=5, loc="outside lower center")
    return figure


def draw_front(axes: Axes, points: Sequence[Point], assignment: str, device: Device, chosen: Point | None) -> None:
    """Draw every machine at one assignment, and the front of each datapath."""
    for datapath, style in STYLES.items():
        kept = [point for point in points if point.machine.datapath == datapath]
        if not kept:
            continue
        shares = [100 * point.area.share(device) for point in kept]
        rates = [point.images_per_s(assignment) for point in kept]
        axes.scatter(shares, rates, s=7, color=style["color"], marker=style["marker"], alpha=0.25, linewidths=0)
        best = front(kept, assignment, device)
        axes.step(
            [100 * point.area.share(device) for point in best], [point.images_per_s(assignment) for point in best],
            where="post", color=style["color"], linewidth=1.4, label=style["told"],
        )  # fmt: skip
    placed = [point for point in points if point.area.placed]
    if placed:
        axes.scatter(
            [100 * point.area.share(device) for point in placed], [point.images_per_s(assignment) for point in placed],
            s=42, facecolors="none", edgecolors=INK, linewidths=1.1, label="really placed and routed",
        )  # fmt: skip
    if chosen is not None:
        axes.scatter(
            100 * chosen.area.share(device), chosen.images_per_s(assignment), s=110, marker="*", color="#b3202c",
            edgecolors="white", linewidths=0.6, zorder=5, label="proposed",
        )  # fmt: skip
    axes.axvline(100, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    label(axes, assignment, f"% of an {device.name}, scarcest resource", "images/s")


def model_figure(model: AreaModel) -> Figure:
    """Return what the models say of each placed machine, left out of the fit, against what was placed."""
    figure = new_figure(11, 3.4)
    titles = {"comb": "logic cells", "ff": "registers", "period_ns": "clock period, ns"}
    machines = list(model.placements)
    for axes, (quantity, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        fit = model.fits[quantity]
        placed = np.array([_placed(model, machine, quantity) for machine in machines])
        said = placed * (1 + np.array(fit.errors))
        ends = 0.8 * min(placed.min(), said.min()), 1.2 * max(placed.max(), said.max())
        axes.plot(ends, ends, color=FAINT, linewidth=1)
        for datapath, style in STYLES.items():
            chosen = np.array([machine.datapath == datapath for machine in machines])
            axes.scatter(placed[chosen], said[chosen], s=26, color=style["color"], marker=style["marker"],
                         label=style["told"])  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        told = f"{title}: {100 * fit.mean_error:.0f} % off, {100 * fit.largest_error:.0f} % at most"
        label(axes, told, "placed and routed", "said by the model without it")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _placed(model: AreaModel, machine: Any, quantity: str) -> float:
    area = model.placements[machine]
    return 1000 / area.fmax_mhz if quantity == "period_ns" else float(getattr(area, quantity))
