"""Figures of an exploration: throughput against area at each assignment, and how far the models of area are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.exploration import AreaModel, Device, Point, front
from hwsim.figures import BLUE, FAINT, INK, ORANGE, label, new_figure
from hwsim.performance_figures import COLOURS

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
    """Draw every machine at one assignment, those that do not fit as crosses, and the front of each datapath."""
    for datapath, style in STYLES.items():
        kept = [point for point in points if point.machine.datapath == datapath]
        if not kept:
            continue
        for fits, shown in ((False, {"marker": "x", "linewidths": 0.5}), (True, {"linewidths": 0})):
            some = [point for point in kept if point.area.fits(device) == fits]
            axes.scatter(
                [100 * point.area.share(device) for point in some], [point.images_per_s(assignment) for point in some],
                s=9, color=style["color"], alpha=0.3, **({"marker": style["marker"]} | shown),
            )  # fmt: skip
        best = front(kept, assignment, device)
        axes.step(
            [100 * point.area.share(device) for point in best], [point.images_per_s(assignment) for point in best],
            where="post", color=style["color"], linewidth=1.4, marker=style["marker"], markersize=3.5,
            label=style["told"],
        )  # fmt: skip
    placed = [point for point in points if point.area.placed]
    if placed:
        axes.scatter(
            [100 * point.area.share(device) for point in placed], [point.images_per_s(assignment) for point in placed],
            s=130, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=6, label="really placed and routed",
        )  # fmt: skip
    if chosen is not None:
        axes.scatter(
            100 * chosen.area.share(device), chosen.images_per_s(assignment), s=110, marker="*", color="#b3202c",
            edgecolors="white", linewidths=0.6, zorder=5, label="proposed",
        )  # fmt: skip
    axes.axvline(100, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    _percent_ticks(axes)
    label(axes, assignment, f"% of the logic of an {device.name}", "images/s")


def _percent_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def draw_budgets(
    axes: Axes, points: Sequence[Point], accuracies: Mapping[str, float], device: Device, shares: Sequence[float]
) -> None:
    """Draw the accuracy that each latency buys, for some shares of a device.

    ``accuracies``: assignment -> accuracy in percent.
    """
    for share, colour in zip(shares, COLOURS, strict=False):
        kept = [point for point in points if point.area.fits(device, share)]
        least = sorted(
            (min(point.latency_s(name) for point in kept) * 1e6, accuracy, name)
            for name, accuracy in accuracies.items()
            if kept
        )
        steps: list[tuple[float, float, str]] = []
        for latency, accuracy, name in least:
            if not steps or accuracy > steps[-1][1]:
                steps.append((latency, accuracy, name))
        if not steps:
            continue
        latencies, best, _ = zip(*steps, strict=True)
        ends = max(one[0] for one in least) * 3
        axes.step(
            [*latencies, ends], [*best, best[-1]], where="post", color=colour, linewidth=1.4,
            label=f"{100 * share:g} % of the logic",
        )  # fmt: skip
        axes.scatter(latencies, best, s=22, color=colour, zorder=3)
        if share == shares[-1]:
            for latency, accuracy, name in steps:
                axes.annotate(name, (latency, accuracy), xytext=(-4, 4), textcoords="offset points", fontsize=8,
                              color=colour, ha="right")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    label(axes, "what a latency buys", "latency of one image, us", "test accuracy, %")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def model_figure(model: AreaModel) -> Figure:
    """Return what the models say of each measured machine, left out of the fit, against the measure."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure = new_figure(11, 3.4)
    titles = {"comb": "logic cells", "ff": "registers", "period_ns": "clock period, ns"}
    for axes, (quantity, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        fit = model.fits[quantity]
        measured = np.array(fit.measured)
        said = measured * (1 + np.array(fit.errors)) if fit.errors else measured
        ends = 0.8 * min(measured.min(), said.min()), 1.2 * max(measured.max(), said.max())
        axes.plot(ends, ends, color=FAINT, linewidth=1)
        for datapath, style in STYLES.items():
            chosen = np.array([machine.datapath == datapath for machine in fit.machines])
            axes.scatter(
                measured[chosen], said[chosen], s=26, color=style["color"], marker=style["marker"], label=style["told"]
            )
        if ends[1] > 5 * ends[0]:
            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:,g}")
                axis.set_minor_locator(NullLocator())
        told = (
            f"{100 * fit.mean_error:.0f} % off, {100 * fit.largest_error:.0f} % at most"
            if fit.errors
            else "one machine"
        )
        label(axes, f"{title}: {told}", "measured", "the model without it")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
