"""Figures of estimates: roofline, cycles of each layer, predicted against measured, storage, memory traffic.

Each function draws on axes that it is given or returns a whole figure; Matplotlib is imported when one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.estimate import Estimate, Keeping
from hwsim.figures import BLUE, FAINT, INK, ORANGE, PALE, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1d3557", "#2f6fb3", "#3aa394", "#d9822b", "#8a5a9e", "#c4628f", "#7d8597", "#a98b2d")
"""One for each assignment, in their order."""

TRAFFIC_TITLES = {
    "weight_bits": "weights, read by the switch",
    "array_weight_bits": "switched planes, into the array",
    "activation_bits_read": "activations, into the array",
    "activation_bits_written": "activations, written",
    "skip_bits_read": "skip codes, read",
    "table_bits": "requantizer tables, read",
}


def estimate_figure(estimates: Sequence[Estimate]) -> Figure:
    """Return roofline, cycles of each layer and memory traffic in one figure."""
    figure = new_figure(11.5, 10)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.25, 1))[:, 0]
    left, right = upper.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.2))[0]
    draw_roofline(left.subplots(), estimates)
    draw_layers(right.subplots(2, 1, sharex=True, height_ratios=(1.3, 1)), estimates)
    draw_traffic(lower.subplots(2, 3), estimates)
    return figure


def draw_roofline(axes: Axes, estimates: Sequence[Estimate], measured_cycles: Mapping[str, int] | None = None) -> None:
    """Draw the layers and the whole network under the machine's roofs.

    Parameters
    ----------
    axes : Axes
    estimates : sequence of Estimate
        On one machine.
    measured_cycles : mapping of str to int, optional
        Assignment -> cycles of one image, counted by the hardware; drawn as rings.
    """
    machine = estimates[0].machine
    points = [
        (layer.macs_per_weight_bit, layer.macs_per_cycle) for found in estimates for layer in found.layers if layer.macs
    ]
    low_x, high_x = min(x for x, _ in points) / 1.6, max(x for x, _ in points) * 5
    roofs: dict[float, str] = {}
    for found in estimates:
        peak = max(layer.peak_macs_per_cycle for layer in found.layers)
        roofs.setdefault(peak, found.assignment.name)
    top = max(roofs)
    port = machine.weight_port_bits
    axes.plot([low_x, top / port], [low_x * port, top], color=INK, linewidth=1.2)
    middle = low_x * 2.2
    axes.annotate(
        f"weight port,\n{port} bits a cycle", (middle, middle * port), xytext=(8, -4), textcoords="offset points",
        fontsize=8, color=INK, va="top",
    )  # fmt: skip
    for found, colour in zip(estimates, COLOURS, strict=False):
        name = found.assignment.name
        peak = max(layer.peak_macs_per_cycle for layer in found.layers)
        if not _is_mixed(found) and roofs[peak] == name:
            axes.plot([peak / port, high_x], [peak, peak], color=colour, linewidth=1.2)
            below = peak == min(roofs)
            axes.annotate(
                f"{name} peak {peak:.0f}", (high_x, peak), xytext=(-2, -4 if below else 3), fontsize=8, color=colour,
                textcoords="offset points", ha="right", va="top" if below else "bottom",
            )  # fmt: skip
        layers = [layer for layer in found.layers if layer.macs and not _is_mixed(found)]
        sizes = [14 + 260 * layer.cycles / found.cycles for layer in layers]
        axes.scatter(
            [layer.macs_per_weight_bit for layer in layers], [layer.macs_per_cycle for layer in layers],
            s=sizes, color=colour, alpha=0.5, linewidths=0,
        )  # fmt: skip
        whole = found.macs / found.traffic.weight_bits
        axes.scatter(
            whole, found.macs_per_cycle, s=46, marker="D", color=colour, edgecolors="white", zorder=4, label=name
        )
        if measured_cycles and name in measured_cycles:
            axes.scatter(whole, found.macs / measured_cycles[name], s=150, facecolors="none", edgecolors=INK, zorder=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low_x, high_x)
    axes.set_ylim(min(y for _, y in points) / 1.8, top * 2)
    label(axes, "roofline", "MACs for each weight bit read from memory", "MACs a cycle")
    _legend(axes, "lower right")
    told = "diamond: whole network; disc: layer, as large as its share of the cycles"
    if measured_cycles:
        told += "; ring: counted by the hardware"
    axes.annotate(told, (0, -0.17), xycoords="axes fraction", fontsize=7.5, color=FAINT, annotation_clip=False)


def draw_layers(pair: Any, estimates: Sequence[Estimate]) -> None:
    """Draw cycles of each layer above, and its utilization below, for the uniform assignments if there are any."""
    cycles, utilization = pair
    names = [layer.name for layer in estimates[0].layers]
    places = np.arange(len(names))
    for found, colour in zip(estimates, COLOURS, strict=False):
        if _is_mixed(found) and not _is_mixed(estimates[0]):
            continue
        for axes, values in (
            (cycles, [layer.cycles for layer in found.layers]),
            (utilization, [100 * layer.utilization if layer.macs else np.nan for layer in found.layers]),
        ):
            axes.plot(
                places, values, color=colour, linewidth=0.9, marker="o", markersize=3.5, label=found.assignment.name
            )
    cycles.set_yscale("log")
    utilization.set_ylim(0, 103)
    utilization.set_xticks(places, [name.replace("_", " ") for name in names], rotation=90)
    label(cycles, "each layer", "", "cycles")
    label(utilization, "", "", "% of the array's peak")
    utilization.tick_params(axis="x", labelsize=7.5)
    for axes in pair:
        axes.grid(axis="x", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    cycles.legend(frameon=False, fontsize=8, ncols=6, loc="lower right", bbox_to_anchor=(1, 1.0), handlelength=1.2)


def _is_mixed(found: Estimate) -> bool:
    """Return whether the weight layers that are not pinned have several widths."""
    assignment = found.assignment
    widths = {
        assignment.layers[layer.name]
        for layer in assignment.network.weight_layers
        if not assignment.network.is_pinned(layer)
    }
    return len(widths) > 1


def draw_traffic(grid: Any, estimates: Sequence[Estimate]) -> None:
    """Draw the bits that one image moves, one panel for each memory port."""
    names = [found.assignment.name for found in estimates]
    totals = [found.traffic for found in estimates]
    colours = [colour for _, colour in zip(names, COLOURS, strict=False)]
    for axes, (kind, title) in zip(np.ravel(grid), TRAFFIC_TITLES.items(), strict=True):
        values = [getattr(traffic, kind) / 8192 for traffic in totals]
        places = np.arange(len(values))[::-1]
        axes.barh(places, values, color=colours, height=0.7)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:,.0f}", (value, place), xytext=(3, 0), textcoords="offset points", fontsize=7.5, color=INK,
                va="center",
            )  # fmt: skip
        axes.set_xlim(0, max(values) * 1.22)
        axes.set_yticks(places, names)
        axes.set_xticks([])
        label(axes, title, "", "")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    np.ravel(grid)[-1].set_xlabel("KiB an image", fontsize=8.5, color=INK, loc="right")


def draw_measured(axes: Axes, estimates: Sequence[Estimate], measured: Mapping[str, Mapping[str, int]]) -> None:
    """Draw every layer's cycles as counted by the hardware against the prediction, on the line of equality.

    ``measured``: assignment -> layer -> cycles of one image.
    """
    found_cycles = [cycles for layers in measured.values() for cycles in layers.values()]
    ends = min(found_cycles) / 1.5, max(found_cycles) * 1.5
    axes.plot(ends, ends, color=FAINT, linewidth=1, zorder=1)
    equal = count = 0
    for found, colour in zip(estimates, COLOURS, strict=False):
        layers = measured.get(found.assignment.name)
        if layers is None:
            continue
        predicted = [layer.cycles for layer in found.layers]
        counted = [layers[layer.name] for layer in found.layers]
        equal += sum(one == other for one, other in zip(predicted, counted, strict=True))
        count += len(predicted)
        axes.scatter(
            predicted, counted, s=30, facecolors="none", edgecolors=colour, label=found.assignment.name, zorder=2
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_aspect("equal")
    label(axes, f"{equal} of {count} layers equal, to the cycle", "predicted cycles", "cycles counted by the hardware")
    _legend(axes, "lower right")


def draw_keeping(
    axes: Axes, kept: Sequence[Keeping], title: str = "keeping a network that runs at every width"
) -> None:
    """Draw what each way of keeping a network takes, its tables and parameters included."""
    places = np.arange(len(kept))[::-1]
    left = np.zeros(len(kept))
    for kind, told, colour in (
        ("weight_bits", "weights", BLUE),
        ("table_bits", "requantizer tables", ORANGE),
        ("parameter_bits", "float32 parameters", FAINT),
    ):
        values = np.array([getattr(way, kind) / 8192 for way in kept])
        axes.barh(places, values, left=left, color=colour, height=0.55, label=told)
        left += values
    for place, total, way in zip(places, left, kept, strict=True):
        ratio = way.total_bits / kept[0].total_bits
        told = f"{total:,.1f} KiB" + (f", {ratio:.2f} times as much" if way is not kept[0] else "")
        axes.annotate(
            told, (total, place), xytext=(4, 0), textcoords="offset points", fontsize=8.5, color=INK, va="center"
        )
    axes.set_yticks(places, [way.name.replace(", as ", ",\nas ").replace(" or ", "\nor ") for way in kept])
    axes.set_xlim(0, max(left) * 1.3)
    label(axes, title, "KiB", "")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _legend(axes, "upper right")


def _legend(axes: Axes, place: Any) -> None:
    axes.legend(frameon=False, fontsize=8, loc=place, handletextpad=0.3, labelspacing=0.3)
