"""Figures of the switch: what it makes of every stored code, and of the weights of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwsim.figures import FAINT, INK, PALE, label, new_figure
from hwsim.network import Network
from hwsim.performance_figures import COLOURS
from hwsim.switching import in_stored_units, switch_losses, switch_table
from hwsim.verification import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def switch_figure(stored_bits: int, widths: Sequence[int]) -> Figure:
    """Return what the switch makes of every stored code at each width, and its error below."""
    figure = new_figure(3.4 * len(widths), 4.6)
    grid = figure.subplots(2, len(widths), squeeze=False, sharex=True, height_ratios=(1.6, 1))
    for (upper, lower), bits, colour in zip(grid.T, widths, COLOURS[1:], strict=False):
        codes, weights = switch_table(stored_bits, bits)
        found = in_stored_units(weights, stored_bits, bits)
        upper.plot(codes, codes, color=FAINT, linewidth=0.9)
        upper.step(codes, found, where="mid", color=colour, linewidth=1.4)
        error = found - codes
        saturated = codes[error < -(1 << (stored_bits - bits - 1))]
        lower.axhline(0, color=FAINT, linewidth=0.9)
        lower.fill_between(codes, error, step="mid", color=colour, alpha=0.45, linewidth=0)
        lower.axvspan(saturated[0], codes[-1], color=PALE, alpha=0.5, linewidth=0)
        lower.annotate(
            f"highest weight, error {error[-1]}", (saturated[0], error[-1]), xytext=(-5, 1), fontsize=7.5, color=INK,
            textcoords="offset points", ha="right", va="bottom",
        )  # fmt: skip
        label(upper, f"{bits} bits: {len(np.unique(weights))} weights", "", "weight, in stored steps")
        label(lower, "", f"stored code, {stored_bits} bits", "error, in stored steps")
        lower.set_ylim(1.15 * error[-1], 1.15 * error.max())
    for upper, lower in grid.T[1:]:
        upper.set_ylabel("")
        lower.set_ylabel("")
    return figure


def weights_figure(network: Network, layer_name: str) -> Figure:
    """Return the stored codes of one layer with what they switch to, and what every layer loses at each width."""
    figure = new_figure(11, 3.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    layer = next(layer for layer in network.weight_layers if layer.name == layer_name)
    _histogram(left, network, layer_name, layer.stored_bits)
    losses = {bits: switch_losses(network, bits) for bits in network.width_set}
    names = [loss.layer for loss in losses[network.width_set.highest]]
    places = np.arange(len(names))
    for (bits, found), colour in zip(losses.items(), COLOURS, strict=False):
        told = f"{bits} bits"
        errors = [100 * loss.relative_error for loss in found]
        kept = [100 * loss.unchanged / loss.weights for loss in found]
        for axes, values in ((middle, errors), (right, kept)):
            axes.plot(places, values, color=colour, marker="o", markersize=4, linewidth=0.9, label=told)
    for axes in (middle, right):
        axes.set_xticks(places, names, rotation=90)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=PALE, linewidth=0.5)
    label(middle, "error of the weights, root mean square", "", "% of the weights'")
    label(right, "weights that lose nothing", "", "%")
    right.legend(frameon=False, fontsize=8)
    return figure


def _histogram(axes: Axes, network: Network, name: str, stored_bits: int) -> None:
    layer = next(layer for layer in network.weight_layers if layer.name == name)
    codes = layer.codes.astype(np.int64).ravel()
    low, high = int(codes.min()), int(codes.max())
    counts = np.bincount(codes - low, minlength=high - low + 1)
    axes.bar(np.arange(low, high + 1), counts, width=1, color=PALE, label=f"stored, {stored_bits} bits")
    widths = [bits for bits in network.width_set if bits < stored_bits]
    for bits, colour in zip(widths, COLOURS[1:], strict=False):
        table_codes, weights = switch_table(stored_bits, bits)
        found = in_stored_units(weights, stored_bits, bits)
        here = {int(value): int(counts[table_codes[found == value].clip(low, high) - low].sum()) for value in
                np.unique(found[(table_codes >= low) & (table_codes <= high)])}  # fmt: skip
        top = counts.max()
        offset = -top * 0.07 * (1 + widths.index(bits))
        axes.scatter(list(here), [offset] * len(here), s=16, color=colour, marker="|", label=f"{bits} bits")
    axes.axhline(0, color=INK, linewidth=0.8)
    label(axes, f"weights of {name}, and the values they switch to", "stored code", "weights")
    axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0])
    axes.set_ylim(-counts.max() * 0.07 * (len(widths) + 1), counts.max() * 1.05)
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def comparisons_figure(compared: Mapping[str, Sequence[Comparison]]) -> Figure:
    """Return the codes compared and those that differ. ``compared``: pair of implementations -> comparisons."""
    figure = new_figure(8, 0.9 + 0.9 * len(compared))
    axes = figure.subplots()
    places = np.arange(len(compared))[::-1]
    for place, (pair, comparisons) in zip(places, compared.items(), strict=True):
        left = 0.0
        for comparison, colour in zip(comparisons, COLOURS, strict=False):
            axes.barh(place, comparison.codes_compared, left=left, color=colour, height=0.5, edgecolor="white",
                      label=comparison.assignment if place == places[0] else None)  # fmt: skip
            left += comparison.codes_compared
        different = sum(comparison.mismatches for comparison in comparisons)
        axes.annotate(
            f"{different:,} of {left:,.0f} differ", (left, place), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
        axes.annotate(pair, (0, place + 0.3), fontsize=9, color=INK, va="bottom")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_yticks([])
    axes.set_ylim(-0.5, len(compared) - 0.2)
    axes.set_xlim(0, 1.35 * max(sum(one.codes_compared for one in group) for group in compared.values()))
    label(axes, "", "codes compared", "")
    axes.legend(
        frameon=False, fontsize=8, ncols=6, loc="upper center", bbox_to_anchor=(0.45, -0.22 / len(compared) - 0.1)
    )
    return figure
