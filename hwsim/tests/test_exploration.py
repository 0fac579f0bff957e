"""Exploration: the sweep, the fits on made-up machines whose area is known, fronts and budgets."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from hwsim import exploration
from hwsim.assignments import uniform_assignments
from hwsim.estimate import estimate
from hwsim.exploration import DEVICES, Area, Measured, Point
from hwsim.exploration_figures import exploration_figure, model_figure
from hwsim.figures import save
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.random_network import SMALL, random_network

WIDTHS = CATALOG["8-4-2"]
DEVICE = DEVICES["ecp5-85k"]


def machine(lanes: int, columns: int, datapath: str = "planes", requantizers: int = 2) -> Machine:
    return Machine.sized(WIDTHS, WIDTHS, lanes, columns, datapath=datapath, requantizers=requantizers)


def area(one: Machine) -> Measured:
    """An area that is linear in the features, as made up here."""
    size = one.lanes * one.columns
    dsp = one.datapath == "dsp"
    return Measured(
        comb=1500 + 20 * one.lanes + 30 * one.columns + 400 * one.requantizers + (5 if dsp else 16) * size,
        ff=1000 + 10 * one.lanes + 20 * one.columns + 300 * one.requantizers + (7 if dsp else 24) * size,
        block_ram=30,
        dsp=4 * one.requantizers + (size if dsp else 0),
        fmax_mhz=1000 / (4 + 0.25 * (size.bit_length() - 1)),
    )


PLACED = {
    one: area(one)
    for one in (
        machine(lanes, columns, datapath, requantizers)
        for lanes, columns, datapath, requantizers in itertools.product((8, 16), (4, 16), ("planes", "dsp"), (2, 4))
    )
}


def model() -> exploration.AreaModel:
    return exploration.fit_models(PLACED, lambda one: one.lanes)


def test_the_models_find_what_the_areas_were_made_of() -> None:
    fitted = model()
    for fit in fitted.fits.values():
        assert fit.largest_error < 1e-3, fit.quantity
        assert len(fit.errors) == len(PLACED)
    other = machine(32, 8, "dsp", 4)
    found, wanted = fitted.area(other), area(other)
    assert found.source == "model" and not found.placed and found.block_ram == 32
    for quantity in ("comb", "ff", "dsp", "fmax_mhz"):
        assert getattr(found, quantity) == pytest.approx(getattr(wanted, quantity), rel=2e-3)
    known = next(iter(PLACED))
    assert fitted.area(known) == Area(**vars(PLACED[known]), source="placed")


def test_a_packed_machine_has_its_cells_and_the_clock_of_the_model() -> None:
    known, *_ = PLACED
    measured = {**PLACED, known: replace(PLACED[known], comb=1, fmax_mhz=None)}
    fitted = exploration.fit_models(measured, lambda one: 0)
    found = fitted.area(known)
    assert found.source == "packed" and not found.placed and found.comb == 1
    assert found.fmax_mhz == pytest.approx(PLACED[known].fmax_mhz or 0, rel=1e-3)
    assert len(fitted.fits["period_ns"].errors) == len(PLACED) - 1


def test_an_error_is_what_the_others_say_of_a_machine() -> None:
    odd = next(iter(PLACED))
    changed = {
        **PLACED,
        odd: exploration.measured_of([{**vars(PLACED[odd]), "comb": 100_000, "machine": odd.to_json()}])[odd],
    }
    fit = exploration.fit_models(changed, lambda one: 0).fits["comb"]
    others = exploration.fit_models({one: found for one, found in PLACED.items() if one != odd}, lambda one: 0)
    assert fit.errors[0] == pytest.approx(others.fits["comb"].predict(odd) / 100_000 - 1)
    assert fit.mean_error > 0.05


def test_coefficients_are_never_negative() -> None:
    shrinking = {one: replace(found, ff=50_000 - found.ff) for one, found in PLACED.items()}
    fit = exploration.fit_models(shrinking, lambda one: 0).fits["ff"]
    assert min(fit.coefficients.values()) >= 0 < fit.coefficients["machine"]


def test_the_error_of_one_clock_is_not_known() -> None:
    known, *others = PLACED
    measured = {**{one: replace(PLACED[one], fmax_mhz=None) for one in others}, known: PLACED[known]}
    fitted = exploration.fit_models(measured, lambda one: 0)
    fit = fitted.fits["period_ns"]
    assert fit.errors == () and math.isnan(fit.mean_error) and math.isnan(fit.largest_error)
    assert fitted.area(others[0]).fmax_mhz > 0


def test_few_placements_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 measured machines, 1 of them placed and routed, not 2 and 2"):
        exploration.fit_models(dict(itertools.islice(PLACED.items(), 2)), lambda one: 0)


def test_a_machine_placed_twice_has_the_worst_of_both() -> None:
    one = machine(8, 4)
    row = {"machine": one.to_json(), "comb": 10, "ff": 40, "block_ram": 3, "dsp": 2, "fmax_mhz": 100.0}
    again = [row | {"comb": 12, "ff": 39, "fmax_mhz": 90.0}, row | {"fmax_mhz": None}]
    (found,) = exploration.measured_of([row, *again]).values()
    assert found == Measured(comb=12, ff=40, block_ram=3, dsp=2, fmax_mhz=90.0)


def point(comb: int, interval: int, *, dsp: int = 0, datapath: str = "planes") -> Point:
    found = Area(comb=comb, ff=0, block_ram=0, dsp=dsp, fmax_mhz=100.0)
    return Point(
        machine=machine(8, 4, datapath),
        area=found,
        interval_cycles={"W8A8": interval, "W2A2": interval // 10},
        latency_cycles={"W8A8": interval + 100, "W2A2": interval // 10 + 100},
    )


POINTS = (point(1000, 5000), point(2000, 5000), point(2000, 3000), point(3000, 4000), point(9000, 1000, dsp=78))


def test_the_front_is_what_nothing_beats() -> None:
    best = exploration.front(POINTS, "W8A8", DEVICE)
    assert [one.area.comb for one in best] == [1000, 2000, 9000]
    for one in POINTS:
        assert any(
            other.area.share(DEVICE) <= one.area.share(DEVICE)
            and other.images_per_s("W8A8") >= one.images_per_s("W8A8")
            for other in best
        )


def test_share_is_of_cells_or_multipliers_and_block_rams_must_fit() -> None:
    assert POINTS[-1].area.share(DEVICE) == 78 / 156
    assert POINTS[0].area.share(DEVICE) == pytest.approx(1000 / (0.85 * 83640))
    large = replace(POINTS[0].area, block_ram=209)
    assert not large.fits(DEVICE) and replace(large, block_ram=208).fits(DEVICE)
    assert POINTS[-1].area.fits(DEVICE, 0.5) and not POINTS[-1].area.fits(DEVICE, 0.49)
    without = replace(POINTS[0], area=large)
    assert exploration.front([without, POINTS[1]], "W8A8", DEVICE) == (POINTS[1],)
    assert exploration.front([without], "W8A8", DEVICE) == (without,)


def test_proposals_keep_to_their_budgets() -> None:
    assert exploration.propose(POINTS, DEVICE) is POINTS[-1]
    assert exploration.propose(POINTS, DEVICE, share=0.4) is POINTS[2]
    assert exploration.propose(POINTS, DEVICE, share=0.001) is None
    assert exploration.best_within(POINTS, "W8A8", DEVICE, 0.4) is POINTS[2]
    names = ("W8A8", "W2A2")
    assert exploration.within_budget(POINTS, names, DEVICE, latency_s=35e-6) == ("W8A8", POINTS[2])
    assert exploration.within_budget(POINTS, names, DEVICE, latency_s=10e-6) == ("W2A2", POINTS[0])
    assert exploration.within_budget(POINTS, names, DEVICE, latency_s=1e-7) is None
    assert POINTS[0].images_per_s("W8A8") == 20_000 and POINTS[0].latency_s("W8A8") == 51e-6


def test_the_sweep_has_every_machine_that_can_be_with_exact_cycles(tmp_path) -> None:  # type: ignore[no-untyped-def]
    network = random_network(3, WIDTHS, (1, 8, 8), SMALL)
    assignments = uniform_assignments(network)
    machines = exploration.candidates(
        network, assignments, lanes=(8, 16), columns=(4, 8), requantizers=(2, 8), strip_pixels=(64,)
    )
    # 8 requantizers need 8 columns, and 8 channels of a unit, which neither datapath refuses here.
    assert {(one.datapath, one.lanes, one.columns, one.requantizers) for one in machines} == {
        (path, lanes, columns, count)
        for path in ("planes", "dsp")
        for lanes in (8, 16)
        for columns, count in ((4, 2), (8, 2), (8, 8))
    }
    fitted = model()
    points = []
    for one in machines:
        found = exploration.cycles(network, assignments, one)
        for assignment in assignments:
            wanted = estimate(network, one, assignment)
            assert found["interval_cycles"][assignment.name] == wanted.interval_cycles
            assert found["latency_cycles"][assignment.name] == wanted.latency_cycles
        points.append(Point(machine=one, area=fitted.area(one), **found))  # type: ignore[arg-type]
    pytest.importorskip("matplotlib")
    save(exploration_figure(points, DEVICE, points[0]), tmp_path / "explore.png")
    save(model_figure(fitted), tmp_path / "models.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("explore.png", "models.png"))
