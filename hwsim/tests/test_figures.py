"""The demo's figure, drawn from a made-up report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.figures import demo_figure, montage, save

pytest.importorskip("matplotlib")


def test_montage_places_every_channel() -> None:
    codes = np.arange(5 * 2 * 3).reshape(5, 2, 3)
    sheet = montage(codes, columns=4)
    assert sheet.shape == (2 * 3 - 1, 4 * 4 - 1)
    for channel in range(5):
        top, left = channel // 4 * 3, channel % 4 * 4
        assert (sheet[top : top + 2, left : left + 3] == codes[channel]).all()
    assert sheet.count() == codes.size


def test_figure_is_saved_whole(tmp_path: Path) -> None:
    names = ("W8A8", "W2A2", "mixed-1")
    rows = [
        {
            "assignment": name,
            "codes_compared": 1000,
            "mismatches": 0,
            "accuracy_integer_model": 97.0,
            "cycles_per_image": 4000,
            "weight_bits_stored": 8000,
            "weight_bits_read": 3000,
        }
        for name in names
    ]
    storage = {"float_bits": 32000, "model_per_width_bits": 20000, "stored_once_bits": 8000}
    report = {"rows": rows, "float_accuracy": 98.0, "storage": storage}
    codes = {name: np.full((16, 4, 4), 0.5) for name in names}
    path = tmp_path / "new" / "demo.png"
    save(demo_figure(report, np.zeros((8, 8), np.uint8), codes), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [child.name for child in path.parent.iterdir()] == ["demo.png"]
