"""Which machine to build: exact cycles of many machines, and models of area and clock fitted to measured ones.

Cycles come from ``estimate``, which needs no fitting. Cells are those that nextpnr packed, and the clock that which it
reached after placing and routing, where a machine was measured; elsewhere linear models with coefficients of at least
0 tell, fitted to the relative errors of the measured machines. Each model tells its error: what it says of every
measured machine when that one is left out of the fit.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import sweep
from hwsim.estimate import estimate
from hwsim.machine import DATAPATHS, Machine
from hwsim.network import Assignment, Network
from hwsim.network_file import structure_of
from hwsim.program import fit_machine

LANES = (4, 8, 16, 32, 64)
COLUMNS = (4, 8, 16, 32, 64)
REQUANTIZERS = (2, 4, 8)
STRIP_PIXELS = (64, 128, 256)

PLACEMENTS = Path(__file__).with_name("placements_ecp5.json")
"""Machines that were measured: what the models are fitted to, unless there are more."""

USABLE_SHARE = 0.85
"""Logic cells of a device that a design may take: fuller ones take the router long, or do not route."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What an FPGA has: logic cells (a 4-input table and a register each), block RAMs and multipliers."""

    name: str
    comb: int
    ff: int
    block_ram: int
    dsp: int


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(name="ecp5-25k", comb=24288, ff=24288, block_ram=56, dsp=28),
        Device(name="ecp5-45k", comb=43848, ff=43848, block_ram=108, dsp=72),
        Device(name="ecp5-85k", comb=83640, ff=83640, block_ram=208, dsp=156),
    )
}
"""Devices by the names of the command line."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """What a machine takes of a device, and the clock that it reaches.

    ``source`` says who told: ``placed`` (placed and routed), ``packed`` (cells as packed, the clock of the model) or
    ``model``.
    """

    comb: int
    ff: int
    block_ram: int
    dsp: int
    fmax_mhz: float
    source: str = "model"

    @property
    def placed(self) -> bool:
        """Whether the machine was placed and routed."""
        return self.source == "placed"

    def share(self, device: Device) -> float:
        """Return the share that is taken of the logic: of usable cells, or of multipliers, whichever is more."""
        return max(
            self.comb / (USABLE_SHARE * device.comb), self.ff / (USABLE_SHARE * device.ff), self.dsp / device.dsp
        )

    def fits(self, device: Device, share: float = 1.0) -> bool:
        """Return whether a machine fits a share of the logic of a device, and all of its block RAMs."""
        return self.share(device) <= share and self.block_ram <= device.block_ram


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Cells of one machine as packed, and the slowest clock of its placements, None if it was never placed."""

    comb: int
    ff: int
    block_ram: int
    dsp: int
    fmax_mhz: float | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One machine: its area, and the cycles of one image at every assignment.

    ``interval_cycles`` and ``latency_cycles``: assignment -> cycles, as ``Estimate`` has them.
    """

    machine: Machine
    area: Area
    interval_cycles: Mapping[str, int]
    latency_cycles: Mapping[str, int]

    def images_per_s(self, assignment: str) -> float:
        """Return the images a second at an assignment, at the machine's clock."""
        return self.area.fmax_mhz * 1e6 / self.interval_cycles[assignment]

    def latency_s(self, assignment: str) -> float:
        """Return the seconds from an image's first byte to its last logit."""
        return self.latency_cycles[assignment] / (self.area.fmax_mhz * 1e6)

    @property
    def typical_images_per_s(self) -> float:
        """Geometric mean over the assignments."""
        return math.exp(
            sum(math.log(self.images_per_s(name)) for name in self.interval_cycles) / len(self.interval_cycles)
        )

    def __str__(self) -> str:
        machine = self.machine
        return (
            f"{machine.datapath} {machine.lanes} x {machine.columns}, {machine.requantizers} requantizers, "
            f"strips of {machine.strip_pixels}"
        )


def candidates(
    network: Network,
    assignments: Sequence[Assignment],
    *,
    datapaths: Iterable[str] = DATAPATHS,
    lanes: Iterable[int] = LANES,
    columns: Iterable[int] = COLUMNS,
    requantizers: Iterable[int] = REQUANTIZERS,
    strip_pixels: Iterable[int] = STRIP_PIXELS,
) -> tuple[Machine, ...]:
    """Return the machines of a sweep, each with memories as deep as a network needs.

    Combinations that no machine can have, such as more requantizers than columns, are left out; so are those that the
    network does not run on.
    """
    found: dict[Machine, None] = {}
    widths = network.width_set
    for path, rows, width, count, strip in itertools.product(datapaths, lanes, columns, requantizers, strip_pixels):
        options = {"datapath": path, "requantizers": count, "strip_pixels": strip}
        try:
            found[fit_machine(network, assignments, Machine.sized(widths, widths, rows, width, **options))] = None
        except ValueError:
            continue
    return tuple(found)


def cycles(network: Network, assignments: Sequence[Assignment], machine: Machine) -> dict[str, dict[str, int]]:
    """Return ``interval_cycles`` and ``latency_cycles`` of a ``Point``."""
    found = [estimate(network, machine, assignment) for assignment in assignments]
    return {
        "interval_cycles": {one.assignment.name: one.interval_cycles for one in found},
        "latency_cycles": {one.assignment.name: one.latency_cycles for one in found},
    }


def explore(
    network: Network,
    assignments: Sequence[Assignment],
    machines: Sequence[Machine],
    model: AreaModel,
    folder: Path,
    **how: Any,
) -> list[Point]:
    """Return the point of every machine; cycles that ``folder`` holds are not computed again.

    ``how``: ``processes``, ``scheduler`` and ``progress`` of ``sweep.run``.
    """
    common = (
        structure_of(network),
        {one.name: {layer: str(widths) for layer, widths in one.layers.items()} for one in assignments},
        sweep.sources_digest("estimate"),
    )
    items = {sweep.key_of(machine.to_json(), *common): machine for machine in machines}
    found = sweep.run(functools.partial(cycles, network, assignments), items, folder, **how)
    return [Point(machine=machine, area=model.area(machine), **found[key]) for key, machine in items.items()]


def _features(machine: Machine) -> dict[str, float]:
    """Return what the models are linear in."""
    size = machine.lanes * machine.columns
    dsp = machine.datapath == "dsp"
    return {
        "machine": 1,
        "lane": machine.lanes,
        "column": machine.columns,
        "requantizer": machine.requantizers,
        "lane and column, planes": 0 if dsp else size,
        "lane and column, dsp": size if dsp else 0,
        "doubling of the array": math.log2(size),
    }


TERMS: dict[str, tuple[str, ...]] = {
    "comb": ("machine", "lane", "column", "requantizer", "lane and column, planes", "lane and column, dsp"),
    "ff": ("machine", "lane", "column", "requantizer", "lane and column, planes", "lane and column, dsp"),
    "dsp": ("requantizer", "lane and column, dsp"),
    "period_ns": ("machine", "doubling of the array"),
}
"""Quantity -> the features that its model has a coefficient for."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The model of one quantity.

    Parameters
    ----------
    quantity : str
        One of ``TERMS``.
    coefficients : mapping of str to float
        Feature -> what each unit of it adds.
    errors : tuple of float
        For each measured machine, what the model fitted to all others says of it, divided by the measure, less 1;
        empty if there is but one.
    measured : tuple of float
        What was measured of them.
    machines : tuple of Machine
        They themselves.
    """

    quantity: str
    coefficients: Mapping[str, float]
    errors: tuple[float, ...]
    measured: tuple[float, ...]
    machines: tuple[Machine, ...]

    def predict(self, machine: Machine) -> float:
        """Return the quantity of a machine."""
        features = _features(machine)
        return sum(value * features[name] for name, value in self.coefficients.items())

    @property
    def mean_error(self) -> float:
        """Mean size of the errors; not a number if only one machine was measured."""
        return sum(map(abs, self.errors)) / len(self.errors) if self.errors else math.nan

    @property
    def largest_error(self) -> float:
        """Largest size of an error; not a number if only one machine was measured."""
        return max(map(abs, self.errors), default=math.nan)


@dataclass(frozen=True, kw_only=True)
class AreaModel:
    """Area and clock of any machine, from those that were measured.

    Parameters
    ----------
    measured : mapping of Machine to Measured
    fits : mapping of str to Fit
        One for each of ``TERMS``.
    block_rams : callable of Machine to int
        Exact count of block RAMs.
    """

    measured: Mapping[Machine, Measured]
    fits: Mapping[str, Fit]
    block_rams: Callable[[Machine], int]

    def area(self, machine: Machine) -> Area:
        """Return the area of a machine: as measured if it was, else what the models say."""
        model_mhz = round(1000 / self.fits["period_ns"].predict(machine), 2)
        if machine in self.measured:
            known = self.measured[machine]
            cells: dict[str, Any] = {name: getattr(known, name) for name in ("comb", "ff", "block_ram", "dsp")}
            if known.fmax_mhz is None:
                return Area(**cells, fmax_mhz=model_mhz, source="packed")
            return Area(**cells, fmax_mhz=known.fmax_mhz, source="placed")
        found: dict[str, Any] = {name: round(self.fits[name].predict(machine)) for name in ("comb", "ff", "dsp")}
        return Area(**found, block_ram=self.block_rams(machine), fmax_mhz=model_mhz)


def measured_of(rows: Iterable[Mapping[str, Any]]) -> dict[Machine, Measured]:
    """Return the machines of JSON rows ``{"machine", "comb", "ff", "block_ram", "dsp", "fmax_mhz"}``.

    A machine that was measured several times (other seeds) has its slowest clock and its most cells.
    """
    found: dict[Machine, Measured] = {}
    for row in rows:
        machine = Machine.from_json(row["machine"])
        clocks = [] if row["fmax_mhz"] is None else [float(row["fmax_mhz"])]
        counts = {name: int(row[name]) for name in ("comb", "ff", "block_ram", "dsp")}
        if machine in found:
            known = found[machine]
            counts = {name: max(count, getattr(known, name)) for name, count in counts.items()}
            clocks += [] if known.fmax_mhz is None else [known.fmax_mhz]
        found[machine] = Measured(**counts, fmax_mhz=min(clocks, default=None))
    return found


def load_model(block_rams: Callable[[Machine], int], files: Iterable[Path] = ()) -> AreaModel:
    """Return the models fitted to the machines of ``PLACEMENTS`` and of other files of rows, or of one row each."""
    rows: list[Mapping[str, Any]] = []
    for path in (PLACEMENTS, *files):
        found = json.loads(path.read_text())
        rows += found["rows"] if "rows" in found else [found]
    return fit_models(measured_of(rows), block_rams)


def fit_models(measured: Mapping[Machine, Measured], block_rams: Callable[[Machine], int]) -> AreaModel:
    """Return the models fitted to measured machines.

    Raises
    ------
    ValueError
        If there are fewer than three of them, or none that was placed and routed.
    """
    placed = [machine for machine, known in measured.items() if known.fmax_mhz is not None]
    if len(measured) < 3 or not placed:
        raise ValueError(
            f"models of area need at least 3 measured machines, 1 of them placed and routed, "
            f"not {len(measured)} and {len(placed)}"
        )
    fits = {}
    for quantity, terms in TERMS.items():
        machines = placed if quantity == "period_ns" else list(measured)
        rows = np.array([[_features(machine)[term] for term in terms] for machine in machines], np.float64)
        wanted = np.array([quantity_of(measured[machine], quantity) for machine in machines], np.float64)
        errors = []
        for index in range(len(machines) if len(machines) > 1 else 0):
            others = np.arange(len(machines)) != index
            errors.append(float(rows[index] @ _fit(rows[others], wanted[others]) / wanted[index] - 1))
        fits[quantity] = Fit(
            quantity=quantity,
            coefficients=dict(zip(terms, map(float, _fit(rows, wanted)), strict=True)),
            errors=tuple(errors),
            measured=tuple(map(float, wanted)),
            machines=tuple(machines),
        )
    return AreaModel(measured=dict(measured), fits=fits, block_rams=block_rams)


def quantity_of(known: Measured, quantity: str) -> float:
    """Return one of ``TERMS`` of a measured machine."""
    if quantity == "period_ns":
        assert known.fmax_mhz is not None
        return 1000 / known.fmax_mhz
    return max(1.0, float(getattr(known, quantity)))


def _fit(rows: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coefficients of at least 0 that make the squares of the relative errors least (Lawson and Hanson 1974)."""
    scaled = rows / wanted[:, np.newaxis]
    sizes = np.linalg.norm(scaled, axis=0)
    sizes[sizes == 0] = 1
    matrix, ones = scaled / sizes, np.ones(len(wanted))
    found = np.zeros(matrix.shape[1])
    free = np.zeros(matrix.shape[1], bool)
    for _ in range(10 * len(found)):
        gradient = matrix.T @ (ones - matrix @ found)
        if free.all() or gradient[~free].max() <= 1e-9:
            break
        free[np.argmax(np.where(free, -np.inf, gradient))] = True
        while True:
            trial = np.zeros_like(found)
            trial[free] = np.linalg.lstsq(matrix[:, free], ones, rcond=None)[0]
            if trial[free].min() > 0:
                break
            negative = free & (trial <= 0)
            step = (found[negative] / np.maximum(found[negative] - trial[negative], 1e-300)).min()
            found = found + step * (trial - found)
            free &= found > 1e-12
        found = trial
    return found / sizes


def front(points: Sequence[Point], assignment: str, device: Device) -> tuple[Point, ...]:
    """Return the points that no other one beats: more images a second for no more of the logic; smallest first.

    Of those that fit the device; of all of them where none fits.
    """
    points = [point for point in points if point.area.fits(device)] or points
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.area.share(device), -one.images_per_s(assignment))):
        if not best or point.images_per_s(assignment) > best[-1].images_per_s(assignment):
            best.append(point)
    return tuple(best)


def best_within(points: Iterable[Point], assignment: str, device: Device, share: float) -> Point | None:
    """Return the fastest machine at an assignment that takes at most a share of a device's logic."""
    fitting = [point for point in points if point.area.fits(device, share)]
    return max(fitting, key=lambda point: point.images_per_s(assignment), default=None)


def propose(points: Iterable[Point], device: Device, *, share: float = 1.0) -> Point | None:
    """Return the machine of the highest typical throughput that takes at most a share of a device's logic.

    Of those within a hundredth of it, the one that takes least.
    """
    fitting = [point for point in points if point.area.fits(device, share)]
    if not fitting:
        return None
    enough = 0.99 * max(point.typical_images_per_s for point in fitting)
    return min((one for one in fitting if one.typical_images_per_s >= enough), key=lambda one: one.area.share(device))


def within_budget(
    points: Iterable[Point], assignments: Sequence[str], device: Device, *, latency_s: float, share: float = 1.0
) -> tuple[str, Point] | None:
    """Return the first of the assignments that some machine runs in time, and the smallest such machine."""
    kept = [point for point in points if point.area.fits(device, share)]
    for name in assignments:
        fast = [point for point in kept if point.latency_s(name) <= latency_s]
        if fast:
            return name, min(fast, key=lambda point: point.area.share(device))
    return None
