"""`bitswitch explore`."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.chain import OK, Refused, Result
from bitswitch.machines import load_network
from bitswitch.tables import text_table


def run_explore(options: argparse.Namespace) -> Result:
    """Sweep machines for a network and propose one."""
    from hwsim import exploration
    from hwsim.assignments import select_assignments, uniform_assignments
    from hwsim.exploration_figures import exploration_figure, model_figure
    from hwsim.figures import save

    if options.target not in exploration.DEVICES:
        raise Refused(f"--target must be one of {', '.join(exploration.DEVICES)}, not {options.target!r}")
    device = exploration.DEVICES[options.target]
    network = load_network(options)
    if options.assignments is None:
        assignments = uniform_assignments(network)
    else:
        assignments = select_assignments(network, options.assignments)
    points, model = _explored(options, network, assignments)
    share = options.share / 100
    chosen = exploration.propose(points, device, share=share)
    if options.place:
        _place_some(options, points, assignments, device, share, chosen)
        points, model = _explored(options, network, assignments)
        chosen = exploration.propose(points, device, share=share)
    for quantity, fit in model.fits.items():
        told = (
            f"{100 * fit.mean_error:.1f} % off, {100 * fit.largest_error:.1f} % at most"
            if fit.errors
            else "error unknown"
        )
        print(f"model of {quantity}: {told}, on {len(fit.machines)} measured machines, each left out of its fit")
    rows = []
    for assignment in assignments:
        best = exploration.front(points, assignment.name, device)
        print(f"\n{assignment.name}, {len(points)} machines on an {device.name}:")
        print(_front_table(best, assignment.name, device))
        rows.append({"assignment": assignment.name, "front": [_point_row(one, device) for one in best]})
    equal = _at_equal_area(points, assignments, device)
    print("\nplanes and multipliers at equal share of the logic, images/s of the fastest machine that fits:")
    print(_equal_area_table(equal))
    report: dict[str, Any] = {
        "network": str(options.network),
        "target": device.name,
        "machines": len(points),
        "placed": sum(point.area.placed for point in points),
        "models": {name: _fit_row(fit) for name, fit in model.fits.items()},
        "rows": rows,
        "at_equal_area": equal,
        "proposed": None if chosen is None else _point_row(chosen, device),
    }
    if chosen is None:
        least = min(point.area.block_ram for point in points)
        told = f"no machine fits in {options.share:g} % of the logic and {device.block_ram} block RAMs"
        print(f"\n{told}; the fewest block RAMs are {least}")
    else:
        told = ", ".join(f"{name} {chosen.images_per_s(name):,.0f}" for name in chosen.interval_cycles)
        print(f"\nproposed: {chosen}, {100 * chosen.area.share(device):.0f} %, images/s: {told}")
    if options.latency_us is not None:
        names = [assignment.name for assignment in assignments]
        found = exploration.within_budget(points, names, device, latency_s=options.latency_us * 1e-6, share=share)
        report["within_latency"] = None if found is None else {"assignment": found[0], **_point_row(found[1], device)}
        told = "no machine" if found is None else f"{found[0]} on {found[1]}, {100 * found[1].area.share(device):.0f} %"
        print(f"in {options.latency_us:g} us: {told}")
    save(exploration_figure(points, device, chosen), options.out / "explore.png")
    save(model_figure(model), options.out / "models.png")
    print(f"{options.out / 'explore.png'}, {options.out / 'models.png'}")
    return report, OK


def _explored(options: argparse.Namespace, network: Any, assignments: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the points of a sweep, and the model of their area."""
    from hwsim import exploration
    from quant.progress import Progress
    from rtl.memory_plan import machine_block_rams
    from rtl.placement import hardware_digest

    asked = {
        "datapaths": None if options.datapaths is None else options.datapaths.split(","),
        "lanes": options.lanes,
        "columns": options.columns,
        "requantizers": options.requantizers,
        "strip_pixels": options.strip_pixels,
    }
    machines = exploration.candidates(
        network, assignments, **{name: values for name, values in asked.items() if values is not None}
    )
    if not machines:
        raise Refused("no machine of this sweep runs the network")
    model = exploration.load_model(
        machine_block_rams, sorted((options.out / "placements" / hardware_digest()).glob("*.json"))
    )
    with Progress("cycles", len(machines)) as progress:
        points = exploration.explore(
            network,
            assignments,
            machines,
            model,
            options.out / "cycles",
            processes=options.jobs or os.cpu_count() or 1,
            scheduler=options.scheduler,
            progress=progress.advance,
        )
    return points, model


def _place_some(
    options: argparse.Namespace,
    points: Sequence[Any],
    assignments: Sequence[Any],
    device: Any,
    share: float,
    chosen: Any,
) -> None:
    """Place and route the proposed machine and others of the fronts, evenly spread over them."""
    from hwsim import exploration, sweep
    from quant.progress import Progress
    from rtl.placement import hardware_digest, place_beneath

    fronts = [exploration.front(points, assignment.name, device) for assignment in assignments]
    fitting = {one.machine: one for best in fronts for one in best if one.area.fits(device, share)}
    order = sorted(fitting.values(), key=lambda one: one.area.share(device))
    spread = [order[index * len(order) // options.place] for index in range(options.place)] if order else []
    wanted = [one.machine for one in ([chosen] if chosen is not None else []) + spread if not one.area.placed]
    machines = list(dict.fromkeys(wanted))[: options.place]
    items = {sweep.key_of(machine.to_json()): machine for machine in machines}
    with Progress("place and route", max(1, len(items))) as progress:
        sweep.run(
            functools.partial(place_beneath, options.out / "tools"),
            items,
            options.out / "placements" / hardware_digest(),
            processes=min(options.jobs or 1, max(1, len(items))),
            scheduler=options.scheduler,
            progress=progress.advance,
            chunk=1,
        )


def _point_row(point: Any, device: Any) -> dict[str, Any]:
    return {
        "machine": point.machine.to_json(),
        "comb": point.area.comb,
        "ff": point.area.ff,
        "block_ram": point.area.block_ram,
        "dsp": point.area.dsp,
        "fmax_mhz": point.area.fmax_mhz,
        "source": point.area.source,
        "share": round(point.area.share(device), 4),
        "images_per_s": {name: round(point.images_per_s(name), 2) for name in point.interval_cycles},
        "latency_us": {name: round(point.latency_s(name) * 1e6, 2) for name in point.latency_cycles},
    }


def _fit_row(fit: Any) -> dict[str, Any]:
    return {
        "coefficients": {name: round(value, 5) for name, value in fit.coefficients.items()},
        "errors": [round(error, 4) for error in fit.errors],
    }


def _front_table(best: Sequence[Any], assignment: str, device: Any) -> str:
    return text_table(
        ("machine", "cells", "registers", "block RAM", "DSP", "MHz", "of the logic", "images/s", "latency us", "area"),
        (
            (
                str(point),
                f"{point.area.comb:,}",
                f"{point.area.ff:,}",
                point.area.block_ram,
                point.area.dsp,
                f"{point.area.fmax_mhz:.0f}",
                f"{100 * point.area.share(device):.0f} %",
                f"{point.images_per_s(assignment):,.1f}",
                f"{point.latency_s(assignment) * 1e6:,.0f}",
                point.area.source,
            )
            for point in best
        ),
    )


def _at_equal_area(points: Sequence[Any], assignments: Sequence[Any], device: Any) -> list[dict[str, Any]]:
    from hwsim.exploration import best_within

    rows = []
    for share in (0.125, 0.25, 0.5, 1.0):
        row: dict[str, Any] = {"share": share, "images_per_s": {}}
        for assignment in assignments:
            rates = {}
            for datapath in dict.fromkeys(point.machine.datapath for point in points):
                kept = [point for point in points if point.machine.datapath == datapath]
                best = best_within(kept, assignment.name, device, share)
                rates[datapath] = None if best is None else round(best.images_per_s(assignment.name), 2)
            row["images_per_s"][assignment.name] = rates
        rows.append(row)
    return rows


def _equal_area_table(equal: Sequence[Mapping[str, Any]]) -> str:
    names = list(equal[0]["images_per_s"])
    paths = list(equal[0]["images_per_s"][names[0]])

    def told(rate: float | None) -> str:
        return "-" if rate is None else f"{rate:,.1f}"

    return text_table(
        ["of the logic", *(f"{name} {path}" for name in names for path in paths)],
        (
            [
                f"{100 * row['share']:g} %",
                *(told(row["images_per_s"][name][path]) for name in names for path in paths),
            ]
            for row in equal
        ),
    )
