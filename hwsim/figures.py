"""The figure of the demo, and the style of all figures. Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwsim.whole_file import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2430"
FAINT = "#8a93a3"
BLUE = "#2f6fb3"
ORANGE = "#d9822b"
PALE = "#c9d3e0"


def montage(codes: NDArray[Any], columns: int = 4) -> NDArray[Any]:
    """Return the channels of one tensor (channels, height, width) side by side, ``columns`` in a row.

    Channels are one element apart; the gaps, and the places of missing channels, are masked.
    """
    channels, height, width = codes.shape
    rows = -(-channels // columns)
    sheet = np.ma.masked_all((rows * (height + 1) - 1, columns * (width + 1) - 1), dtype=np.float64)
    for channel in range(channels):
        top = channel // columns * (height + 1)
        left = channel % columns * (width + 1)
        sheet[top : top + height, left : left + width] = codes[channel]
    return sheet


def demo_figure(report: Mapping[str, Any], image: NDArray[np.uint8], codes: Mapping[str, NDArray[Any]]) -> Figure:
    """Return the figure of one run of the demo.

    Parameters
    ----------
    report : mapping
        What ``bitswitch demo --json`` writes.
    image : ndarray of uint8, shape (height, width)
        One test image.
    codes : mapping of str to ndarray, shape (channels, height, width)
        Assignment -> one stored tensor of that image as the hardware computed it, scaled to 0 .. 1.
    """
    from matplotlib.figure import Figure

    rows: Sequence[Mapping[str, Any]] = report["rows"]
    figure = Figure(figsize=(11, 6.2), dpi=130, layout="constrained", facecolor="white")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.62, 1))[:, 0]
    figure.suptitle(
        "One stored network, switched at run time: the same integers in PyTorch, the integer model and the hardware",
        color=INK,
        fontsize=12,
        x=0.02,
        ha="left",
    )
    panels = upper.subplots(1, 1 + len(rows), squeeze=False)[0]
    _picture(panels[0], image, "an image", "8 bits")
    for axes, row in zip(panels[1:], rows, strict=True):
        compared, mismatches = row["codes_compared"], row["mismatches"]
        told = f"{mismatches:,} of {compared / 1e6:,.1f} M codes differ" if compared >= 1e6 else f"{mismatches} differ"
        _picture(axes, montage(codes[row["assignment"]]), row["assignment"], told)
    accuracy, read, storage = lower.subplots(1, 3, width_ratios=(1.3, 1.2, 0.9))
    _accuracy(accuracy, rows, report["float_accuracy"])
    _weights_read(read, rows)
    _storage(storage, report["storage"])
    return figure


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty white figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=130, layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, a whole file."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png")


def _picture(axes: Axes, values: NDArray[Any], title: str, told: str) -> None:
    from matplotlib import colormaps

    # Coloured before it is resampled: resampled numbers have undefined values outside of the picture.
    axes.imshow(colormaps["magma"](values / max(float(values.max()), 1e-9)), interpolation="nearest")
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel(told, fontsize=7.5, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _accuracy(axes: Axes, rows: Sequence[Mapping[str, Any]], float_accuracy: float) -> None:
    axes.axhline(float_accuracy, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "float", (0.01, float_accuracy), xycoords=("axes fraction", "data"), fontsize=8, color=FAINT, va="bottom"
    )
    for row in rows:
        mixed = row["assignment"].startswith("mixed")
        point = (row["cycles_per_image"], row["accuracy_integer_model"])
        axes.scatter(*point, s=46, color=ORANGE if mixed else BLUE, zorder=3)
        axes.annotate(
            row["assignment"], point, xytext=(6, 4 if mixed else -11), textcoords="offset points", fontsize=8, color=INK
        )
    cycles = [row["cycles_per_image"] for row in rows]
    axes.set_xlim(0, max(cycles) * 1.2)
    low = min(float_accuracy, *(row["accuracy_integer_model"] for row in rows))
    bottom = low - 1.5
    axes.set_ylim(bottom, 100 + 0.1 * (100 - bottom))
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= 100])
    label(axes, "accuracy and time", "cycles per image, measured", "test accuracy, %")


def _weights_read(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    places = np.arange(len(rows))[::-1]
    stored = [row["weight_bits_stored"] / 8192 for row in rows]
    read = [row["weight_bits_read"] / 8192 for row in rows]
    axes.barh(places, stored, color=PALE, height=0.62, label="stored")
    axes.barh(places, read, color=BLUE, height=0.62, label="read by the switch")
    for place, value in zip(places, read, strict=True):
        axes.annotate(f"{value:.1f}", (value, place), xytext=(-3, 0), textcoords="offset points", **_INSIDE)
    axes.set_yticks(places, [row["assignment"] for row in rows])
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    label(axes, "weights, all switched once", "KiB", "")


_INSIDE: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8, "color": "white"}


def _storage(axes: Axes, storage: Mapping[str, Any]) -> None:
    bars = {
        "float32": storage["float_bits"],
        "one model\nper width": storage["model_per_width_bits"],
        "stored once": storage["stored_once_bits"],
    }
    values = [bits / 8192 for bits in bars.values()]
    axes.bar(list(bars), values, color=[PALE, PALE, BLUE], width=0.62)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.1f}",
            (place, value),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    label(axes, "keeping the weights", "", "KiB")


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Write title and names of the axes in the style of all figures."""
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
