"""The lead of an image: whatever the array's delays, no strip begins before it is laid out."""

from __future__ import annotations

import random

import pytest

from hwsim import image_ring
from hwsim.image_ring import lead_windows


def begins_too_early(
    rng: random.Random,
    lead: int,
    *,
    windows: int,
    row_windows: int,
    window_cycles: int,
    strip_pixels: int,
    strip_cycles: int,
    capacity: int,
) -> bool:
    """Return whether a strip is not laid out when it begins, in a run with random delays of the array."""
    strips = -(-windows // strip_pixels)
    begins: list[int] = []
    releases: list[int] = []
    laid = [0] * lead
    cycle = 0
    for strip in range(strips):
        earliest = begins[-1] + strip_cycles if begins else 0
        begin = earliest + (rng.randrange(3 * strip_cycles + 1) if rng.random() < 0.2 else 0)
        if begins:
            releases.append(begin)
        begins.append(begin)
        # Windows of strips not begun are laid out as room is released; what this strip needs must be there.
        end = min((strip + 1) * strip_pixels, windows)
        while len(laid) < end:
            window = len(laid)
            if window >= capacity:
                freeing = (window - capacity) // strip_pixels
                if freeing >= len(releases):
                    return True
                cycle = max(cycle, releases[freeing])
            cycle += window_cycles + (window % row_windows == 0)
            laid.append(cycle)
        if laid[end - 1] > begin:
            return True
    return False


def sizes(rng: random.Random) -> dict[str, int]:
    strip_pixels = rng.choice((4, 8, 16))
    row_windows = rng.randrange(1, 20)
    window_cycles = rng.randrange(1, 12)
    return {
        "windows": row_windows * rng.randrange(1, 20),
        "row_windows": row_windows,
        "window_cycles": window_cycles,
        "strip_pixels": strip_pixels,
        "strip_cycles": strip_pixels * rng.randrange(1, 16),
        "capacity": rng.choice((8, 16, 32, 64, 128, 256)),
    }


def early_strips(trials: int) -> tuple[int, int]:
    """Return (runs in which a strip began too early, runs of images larger than their ring)."""
    rng = random.Random(1)
    early = larger = 0
    for _ in range(trials):
        given = sizes(rng)
        lead = lead_windows(**given)
        if lead is None:
            continue
        assert min(given["strip_pixels"], given["windows"]) <= lead <= min(given["capacity"], given["windows"])
        larger += given["windows"] > given["capacity"]
        early += any(begins_too_early(rng, lead, **given) for _ in range(4))
    return early, larger


def test_no_strip_begins_before_it_is_laid_out() -> None:
    early, larger = early_strips(6000)
    assert early == 0
    assert larger > 100


def test_a_shorter_lead_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_ring, "LAYOUT_MARGIN_CYCLES", -20)
    assert early_strips(3000)[0] > 0


def test_an_image_that_fits_needs_no_room_of_its_own() -> None:
    given = {"windows": 64, "row_windows": 8, "window_cycles": 9, "strip_pixels": 64, "strip_cycles": 512}
    assert lead_windows(**given, capacity=64) == 64
    assert lead_windows(**given, capacity=63) is None


def test_resnet20_on_cifar10_takes_a_ring_of_half_an_image() -> None:
    given = {"windows": 1024, "row_windows": 32, "window_cycles": 9, "strip_pixels": 128, "strip_cycles": 1024}
    lead = lead_windows(**given, capacity=512)
    assert lead is not None and 128 <= lead <= 512
    assert lead_windows(**given, capacity=256) is None
