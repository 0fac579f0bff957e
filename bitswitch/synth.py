"""`bitswitch synth`."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.chain import FAILED, OK, Refused, Result
from bitswitch.estimate import estimate_row
from bitswitch.machines import design_of
from bitswitch.progress import tell
from bitswitch.tables import text_table


def run_synth(options: argparse.Namespace) -> Result:
    """Synthesize, place and route the accelerator for an FPGA."""
    from hwsim import estimate
    from hwsim.program import fit_machine
    from rtl import flow
    from rtl.devices import DEVICES

    if options.target not in DEVICES:
        raise Refused(f"--target must be one of {', '.join(DEVICES)}, not {options.target!r}")
    if options.part not in flow.PARTS:
        raise Refused(f"--part must be one of {', '.join(flow.PARTS)}, not {options.part!r}")
    if options.network is None and options.assignments is not None:
        raise Refused("--assignments needs a --network")
    if options.network is not None and options.part != "accelerator":
        raise Refused(f"--network needs the whole accelerator, not --part {options.part}")
    device = DEVICES[options.target]
    machine, network, assignments = design_of(options, options.assignments)
    folder = options.out / device.name
    how = {"part": options.part, "seed": options.seed, "target_mhz": options.target_mhz}
    built = flow.build(machine, device, folder, say=tell, **how)
    print(f"{device.name}: {device.title}")
    print(
        f"{machine.lanes} lanes x {machine.columns} columns, {options.part}, weights {machine.weight_widths}, ", end=""
    )
    print(f"activations {machine.activation_widths}, {machine.datapath}; logs in {folder}")
    print(_utilization_table(built))
    if device.scan_pins and built.harness_ffs:
        print(f"of these {built.harness_luts} LUTs and {built.harness_ffs} registers are of the scan harness")
    clock_mhz = built.fmax_mhz
    print(f"{_clock_sentence(built)}; logs in {folder}\n")
    report = built.to_json()
    if network is None:
        report["rows"] = _peak_rows(machine, clock_mhz)
        print(_peak_table(report["rows"], clock_mhz))
    else:
        estimates = [estimate.estimate(network, machine, assignment) for assignment in assignments]
        rows = [estimate_row(network, found, clock_mhz) for found in estimates]
        report["network"] = str(options.network)
        report["rows"] = [{name: value for name, value in row.items() if name != "layers"} for row in rows]
        print(_throughput_table(report["rows"]))
    if not built.fits:
        print(f"\n{built.why_not}")
        fit = None if network is None else functools.partial(fit_machine, network, assignments)
        report["largest_that_fits"] = _largest_that_fits(machine, device, options, fit)
        print(report["largest_that_fits"]["sentence"])
    return report, OK if built.fits else FAILED


def _clock_sentence(built: Any) -> str:
    if built.fmax_mhz is not None:
        return f"Fmax {built.fmax_mhz:.2f} MHz, {built.target_mhz:g} MHz were asked for"
    return "no clock: it does not fit" if built.why_not else "no clock: nothing was placed"


def _utilization_table(built: Any) -> str:
    from rtl.synthesis import LONG_NAMES

    rows = []
    for one in built.utilization:
        share = "" if not one.available else f"{100 * one.used / one.available:.0f} %"
        available = "" if one.available is None else f"{one.available:,}"
        rows.append((LONG_NAMES[one.resource], one.cell, f"{one.used:,}", available, share))
    return text_table(("resource", "cell", "used", "available", ""), rows)


def _peak_rows(machine: Any, clock_mhz: float | None) -> list[dict[str, Any]]:
    """Return the peak of the array at each pair of widths in its place: the widest of both, and so on."""
    pairs = zip(machine.weight_widths, machine.activation_widths, strict=False)
    rows = []
    for weight_bits, activation_bits in pairs:
        peak = machine.macs_per_cycle(weight_bits, activation_bits)
        row = {"assignment": f"W{weight_bits}A{activation_bits}", "peak_macs_per_cycle": peak}
        if clock_mhz is not None:
            row["peak_gmacs_per_s"] = round(peak * clock_mhz / 1000, 4)
        rows.append(row)
    return rows


def _peak_table(rows: Sequence[Mapping[str, Any]], clock_mhz: float | None) -> str:
    heading = ["widths", "peak MACs a cycle"] + (["peak GMAC/s"] if clock_mhz is not None else [])
    return text_table(
        heading,
        (
            [row["assignment"], f"{row['peak_macs_per_cycle']:.1f}"]
            + ([f"{row['peak_gmacs_per_s']:.2f}"] if clock_mhz is not None else [])
            for row in rows
        ),
    )


def _throughput_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heading = ["assignment", "cycles an image", "MACs a cycle", "weight bits read", "moved by the machine"]
    timed = "images_per_s" in rows[0]
    heading += ["images/s", "latency us", "GMAC/s"] if timed else []
    cells = []
    for row in rows:
        told = [row["assignment"], f"{row['interval_cycles']:,}", f"{row['macs_per_cycle']:.1f}"]
        told += [f"{row['weight_bits_read']:,}", f"{row['traffic']['weight_bits']:,}"]
        told += (
            [f"{row['images_per_s']:,.1f}", f"{row['latency_us']:,.0f}", f"{row['gmacs_per_s']:.2f}"] if timed else []
        )
        cells.append(told)
    return text_table(heading, cells)


def _fullness(area: Any, device: Any) -> float:
    """Return the share of a device's scarcest resource that is taken, block RAMs counted too."""
    share: float = area.share(device)
    return max(share, area.block_ram / device.block_ram)


def _largest_that_fits(machine: Any, device: Any, options: argparse.Namespace, fit: Any) -> dict[str, Any]:
    """Return the largest smaller machine that fits, and how that is known: by the model of area, or by packing."""
    from hwsim import exploration
    from rtl import flow
    from rtl.memory_plan import machine_block_rams

    smaller = flow.smaller_machines(machine, fit)
    if device.name in exploration.DEVICES and options.part == "accelerator":
        model = exploration.load_model(machine_block_rams)
        limits = exploration.DEVICES[device.name]
        fitting = [one for one in smaller if model.area(one).fits(limits)]
        found = fitting[-1] if fitting else None
        how = (
            f"by the model of area, whose LUTs are {100 * model.fits['comb'].mean_error:.1f} % off on the mean, and "
            f"with {100 * exploration.USABLE_SHARE:.0f} % of the cells taken at most"
        )
        if found is None and smaller:
            closest = min(smaller, key=lambda one: _fullness(model.area(one), limits))
            area = model.area(closest)
            how += f"; {closest.lanes} x {closest.columns} takes {area.comb:,} LUTs, {area.ff:,} registers, "
            how += f"{area.dsp} multipliers and {area.block_ram} block RAMs"
    else:
        found, tried = flow.largest_that_fits(smaller, device, options.out / device.name, part=options.part, say=tell)
        how = f"by packing, {len(tried)} tried" if tried else "there is none smaller"
        if found is None and tried:
            how += f"; {smaller[0].lanes} x {smaller[0].columns} {tried[0].why_not}"
    if found is None:
        return {"machine": None, "sentence": f"no smaller machine fits either ({how})"}
    told = f"the largest machine that fits has {found.lanes} lanes x {found.columns} columns ({how})"
    return {"machine": found.to_json(), "sentence": told}
