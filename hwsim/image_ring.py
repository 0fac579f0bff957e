"""How much of an image must be laid out before the first layer may begin, so that it never waits for the rest.

The image memory is a ring of windows: while the array works on one strip of output pixels, the image loader lays out
later ones, and a strip that has been read makes room. The first layer must not wait for a window, or its cycles would
depend on when the image came. The bound here is safe whatever else the machine does: with A cycles of array work a
strip, strip s begins at least (s - t) * A cycles after strip t; the room of strip t is free when strip t + 1 begins.
"""

from __future__ import annotations

from hwsim.machine import LAYOUT_ROW_CYCLES

LAYOUT_MARGIN_CYCLES = 16
"""More than the pipeline delays between array, ring and image loader."""


def lead_windows(
    *, windows: int, row_windows: int, window_cycles: int, strip_pixels: int, strip_cycles: int, capacity: int
) -> int | None:
    """Return how many windows must be laid out before the first layer begins, or None if the ring is too small.

    Parameters
    ----------
    windows : int
        Windows of an image, one for each output pixel.
    row_windows : int
        Windows of a row; a row costs ``LAYOUT_ROW_CYCLES`` more.
    window_cycles : int
        Cycles that the image loader takes for a window.
    strip_pixels : int
        Windows of a strip.
    strip_cycles : int
        Cycles in which the array works on a full strip, at least.
    capacity : int
        Windows that the ring holds.
    """
    ends = [min(end, windows) for end in range(strip_pixels, windows + strip_pixels, strip_pixels)]
    held_strips = capacity // strip_pixels

    def layout_cycles(count: int) -> int:
        rows = -(-count // row_windows) + 1
        return count * window_cycles + rows * LAYOUT_ROW_CYCLES + LAYOUT_MARGIN_CYCLES if count > 0 else 0

    if windows > capacity:
        for last, end in enumerate(ends):
            for first in range(held_strips, last + 1):
                # Strip `first` is laid out where strip `first - held_strips` was.
                begin = first - held_strips + 1
                laid_before = ends[first - 1] if first > 0 else 0
                if layout_cycles(end - laid_before) > (last - begin) * strip_cycles:
                    return None
    lead = ends[0]
    for index, end in enumerate(ends):
        while layout_cycles(end - lead) > index * strip_cycles:
            lead += 1
    return lead if lead <= min(capacity, windows) else None
