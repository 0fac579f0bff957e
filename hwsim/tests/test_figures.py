"""The figures, drawn from made-up reports and random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.assignments import standard_assignments
from hwsim.estimate import estimate, ways_of_keeping
from hwsim.figures import demo_figure, montage, new_figure, save
from hwsim.machine import Machine
from hwsim.performance_figures import draw_keeping, draw_measured, draw_roofline, estimate_figure
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import SMALL, random_network
from hwsim.switching_figures import comparisons_figure, switch_figure, weights_figure
from hwsim.verification import Comparison

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


def test_the_figures_of_estimates_and_of_the_switch_are_drawn(tmp_path: Path) -> None:
    network = random_network(7, CATALOG["8-4-2"], (1, 8, 8), SMALL)
    assignments = standard_assignments(network)
    widths = network.width_set
    machine = fit_machine(network, assignments, Machine.sized(widths, widths, 8, 4))
    estimates = [estimate(network, machine, assignment) for assignment in assignments]
    measured = {found.assignment.name: {layer.name: layer.cycles for layer in found.layers} for found in estimates[:2]}
    measured["W4A4"][network.layers[0].name] += 1
    figure = new_figure(10, 4)
    first, second, third = figure.subplots(1, 3)
    draw_roofline(first, estimates, {name: sum(layers.values()) for name, layers in measured.items()})
    draw_measured(second, estimates, measured)
    layers = len(network.layers)
    assert second.get_title(loc="left") == f"{2 * layers - 1} of {2 * layers} layers equal, to the cycle"
    draw_keeping(third, ways_of_keeping(network, machine, assignments))
    compared = {"one = other": [Comparison("W8A8", 10, 0), Comparison("W4A4", 10, 1)]}
    layer = next(layer.name for layer in network.weight_layers if not network.is_pinned(layer))
    figures = (
        figure,
        estimate_figure(estimates),
        switch_figure(8, [4, 2]),
        weights_figure(network, layer),
        comparisons_figure(compared),
    )
    for index, one in enumerate(figures):
        save(one, tmp_path / f"{index}.png")
        assert (tmp_path / f"{index}.png").stat().st_size > 10_000
