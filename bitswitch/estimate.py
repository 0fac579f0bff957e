"""`bitswitch estimate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from bitswitch.chain import OK, Result
from bitswitch.export import spec_version, storage_report
from bitswitch.machines import load_network, machine_for
from bitswitch.tables import as_kibibytes, text_table


def run_estimate(options: argparse.Namespace) -> Result:
    """Count storage, memory traffic and cycles of a network."""
    from hwsim import estimate
    from hwsim.assignments import select_assignments

    network = load_network(options)
    assignments = select_assignments(network, options.assignments)
    machine = machine_for(options, network, assignments)
    kept = estimate.ways_of_keeping(network, machine, assignments)
    estimates = [estimate.estimate(network, machine, assignment) for assignment in assignments]
    print(_keeping_table(kept, len(assignments)))
    print(f"\n{estimate.macs(network):,} MACs an image, on {machine.lanes} lanes x {machine.columns} columns:")
    print(_estimate_table(network, estimates, options.clock_mhz))
    print("\ncycles, and share of the array's peak at the layer's own widths:")
    print(_layers_table(estimates))
    report = {
        "network": str(options.network),
        "spec_version": spec_version(),
        "machine": machine.to_json(),
        "memory_bits": machine.memory_bits,
        "storage": storage_report(estimate.storage(network)),
        "table_bits": kept[0].table_bits,
        "ways_of_keeping": [{**vars(way), "total_bits": way.total_bits} for way in kept],
        "macs": estimate.macs(network),
        "clock_mhz": options.clock_mhz,
        "rows": [estimate_row(network, found, options.clock_mhz) for found in estimates],
    }
    if options.figure is not None:
        from hwsim.figures import save
        from hwsim.performance_figures import estimate_figure

        save(estimate_figure(estimates), options.figure)
        print(f"\n{options.figure}")
    return report, OK


def _keeping_table(kept: Sequence[Any], assignments: int) -> str:
    once = kept[0]
    return text_table(
        ("weights kept as", "weights", f"tables of {assignments} assignments", "parameters", "all", "against once"),
        (
            (
                way.name,
                as_kibibytes(way.weight_bits),
                as_kibibytes(way.table_bits),
                as_kibibytes(way.parameter_bits),
                as_kibibytes(way.total_bits),
                f"{way.total_bits / once.total_bits:.2f}",
            )
            for way in kept
        ),
    )


def _estimate_table(network: Any, estimates: Sequence[Any], clock_mhz: float | None) -> str:
    from hwsim.estimate import weight_bits_read

    heading = ["assignment", "average weight bits", "cycles an image", "with its load", "MACs a cycle", "utilization"]
    heading += ["weight bits read", "by the machine", "activation bits moved"]
    rows = []
    for found in estimates:
        traffic = found.traffic
        row = [
            found.assignment.name,
            f"{found.assignment.average_weight_bits:.2f}",
            f"{found.cycles:,}",
            f"{found.latency_cycles:,}",
            f"{found.macs_per_cycle:.1f}",
            f"{100 * found.utilization:.1f} %",
            f"{weight_bits_read(network, found.assignment):,}",
            f"{traffic.weight_bits:,}",
            f"{traffic.activation_bits_read + traffic.activation_bits_written:,}",
        ]
        if clock_mhz is not None:
            clock_hz = clock_mhz * 1e6
            row += [f"{found.images_per_s(clock_hz):,.0f}", f"{found.latency_s(clock_hz) * 1e6:,.0f}"]
            row += [f"{found.macs_per_s(clock_hz) / 1e9:.2f}"]
        rows.append(row)
    if clock_mhz is not None:
        heading += [f"images/s at {clock_mhz:g} MHz", "latency us", "GMAC/s"]
    return text_table(heading, rows)


def _layers_table(estimates: Sequence[Any]) -> str:
    heading = ["layer", "MACs"]
    for found in estimates:
        heading += [found.assignment.name, ""]
    rows = []
    for layers in zip(*(found.layers for found in estimates), strict=True):
        row = [layers[0].name, f"{layers[0].macs:,}"]
        for layer in layers:
            row += [f"{layer.cycles:,}", f"{100 * layer.utilization:.0f} %" if layer.macs else ""]
        rows.append(row)
    return text_table(heading, rows)


def estimate_row(network: Any, found: Any, clock_mhz: float | None) -> dict[str, Any]:
    """Return the estimate of one assignment as plain values, with units in the names."""
    from hwsim.estimate import weight_bits_read

    layers = [
        {
            "layer": layer.name,
            "widths": layer.widths,
            "macs": layer.macs,
            "cycles": layer.cycles,
            "array_cycles": layer.array_cycles,
            "weight_port_cycles": layer.weight_port_cycles,
            "requantizer_cycles": layer.requantizer_cycles,
            "bound": layer.bound,
            "utilization": round(layer.utilization, 4),
            "macs_per_weight_bit": round(layer.macs_per_weight_bit, 3),
            "traffic": vars(layer.traffic),
        }
        for layer in found.layers
    ]
    row = {
        "assignment": found.assignment.name,
        "average_weight_bits": round(found.assignment.average_weight_bits, 4),
        "weight_bits_read": weight_bits_read(network, found.assignment),
        "cycles_per_image": found.cycles,
        "interval_cycles": found.interval_cycles,
        "image_load_cycles": found.image_load_cycles,
        "latency_cycles": found.latency_cycles,
        "macs_per_cycle": round(found.macs_per_cycle, 3),
        "utilization": round(found.utilization, 4),
        "traffic": vars(found.traffic),
        "layers": layers,
    }
    if clock_mhz is not None:
        clock_hz = clock_mhz * 1e6
        row["images_per_s"] = round(found.images_per_s(clock_hz), 2)
        row["latency_us"] = round(found.latency_s(clock_hz) * 1e6, 2)
        row["gmacs_per_s"] = round(found.macs_per_s(clock_hz) / 1e9, 4)
    return row
