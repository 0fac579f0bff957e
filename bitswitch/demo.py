"""`bitswitch demo`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitswitch.chain import CHECKPOINT, FIGURE, NETWORK, Refused, Result
from bitswitch.export import export_checkpoint, spec_version, storage_report
from bitswitch.machines import machine_for
from bitswitch.progress import Clock
from bitswitch.simulate import simulate_all, simulate_table
from bitswitch.tables import accuracy_table, as_kibibytes, as_percent, text_table
from bitswitch.train import train_checkpoint
from bitswitch.verify import compare_all, verdict_of, verify_table


def run_demo(options: argparse.Namespace) -> Result:
    """Run the whole chain on handwritten digits."""
    from hwsim import network_file
    from hwsim.assignments import standard_assignments
    from hwsim.estimate import storage, weight_bits_read
    from quant.reference import Reference
    from rtl import verilog

    if options.method == "hot-swap":
        raise Refused(
            "the demo runs one stored network at every width, and hot-swap makes one for each: train, and export"
        )
    clock = Clock()
    checkpoint, path = options.out / CHECKPOINT, options.out / NETWORK
    options.out.mkdir(parents=True, exist_ok=True)
    _step(1, "train one network for all widths, on handwritten digits")
    trained = train_checkpoint(options, checkpoint)
    print(accuracy_table([("float32", trained.float_accuracy), *trained.accuracies.items()]))
    clock.lap("train")

    _step(2, "export it: stored codes once, real parameters, checksums")
    export_checkpoint(checkpoint, path)
    network = network_file.load(path)
    reference = Reference(checkpoint)
    stored = storage(network)
    print(f"{path}: {stored.weights:,} weights in {as_kibibytes(stored.stored_once_bits)}")
    clock.lap("export")

    _step(3, "verify: every stored tensor of the integer model against PyTorch, over the whole test set")
    in_python = compare_all(network, reference, None, None)
    print(verify_table(in_python))
    clock.lap("verify")

    _step(4, "generate the accelerator, and run the network on it in Verilator")
    assignments = standard_assignments(network)
    machine = machine_for(options, network, assignments)
    source, _ = verilog.write(machine, options.out)
    print(f"{source}: {machine.lanes} lanes x {machine.columns} columns, widths {machine.weight_widths}")
    clock.lap("verilog")
    images, labels = reference.images[: options.images], reference.labels[: options.images]
    in_hardware, first_image, _ = simulate_all(network, machine, assignments, reference, images, labels)
    print(simulate_table(in_hardware))
    clock.lap("simulate")

    _step(5, "all of it in one table")
    rows = []
    for python, hardware, assignment in zip(in_python, in_hardware, assignments, strict=True):
        rows.append(
            {
                "assignment": assignment.name,
                "accuracy_torch": python["accuracy_torch"],
                "accuracy_integer_model": python["accuracy_integer_model"],
                "accuracy_rtl": hardware["accuracy_rtl"],
                "images_rtl": hardware["images"],
                "codes_compared": python["codes_compared"] + hardware["codes_compared"],
                "mismatches": python["mismatches"] + hardware["mismatches"],
                "weight_bits_stored": stored.stored_once_bits,
                "weight_bits_read": weight_bits_read(network, assignment),
                "cycles_per_image": hardware["cycles_per_image"],
                "cycles_predicted": hardware["cycles_predicted"],
                "counts_differing": hardware["counts_differing"],
                "layers_exact": python["layers_exact"],
                "layers_displaced": python["layers_displaced"],
                "training_forward_codes_differing": python["training_forward_codes_differing"],
                "training_forward_predictions_differing": python["training_forward_predictions_differing"],
                "first_mismatch": python["first_mismatch"] or hardware["first_mismatch"],
            }
        )
    report = {
        "network": str(path),
        "spec_version": spec_version(),
        "seconds": clock.seconds,
        "float_accuracy": trained.float_accuracy,
        "test_images": len(reference.labels),
        "rows": rows,
        "storage": storage_report(stored),
        "machine": machine.to_json(),
        "verilog": str(source),
        "figure": str(options.out / FIGURE),
    }
    print(_demo_table(rows, stored))
    _draw(report, network, reference, assignments, first_image)
    clock.lap("figure")
    clock.seconds["total"] = round(sum(clock.seconds.values()), 2)
    print(
        f"float32 network of the same epochs: {as_percent(trained.float_accuracy)} %; {len(reference.labels)} test "
        f"images, {rows[0]['images_rtl']} of them in hardware; {clock.seconds['total']:.0f} s; {options.out / FIGURE}"
    )
    return report, verdict_of({"checksum_failures": []}, rows)


def _step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def _demo_table(rows: Sequence[Mapping[str, Any]], stored: Any) -> str:
    of_float = f"{100 * stored.stored_once_bits / stored.float_bits:.0f} %"
    of_models = f"{100 * stored.stored_once_bits / stored.model_per_width_bits:.0f} %"
    return text_table(
        (
            "assignment",
            "torch %",
            "integer %",
            f"RTL % of {rows[0]['images_rtl']}",
            "codes compared",
            "mismatches",
            "weight bits stored",
            "read",
            "of float32",
            "of a model a width",
            "cycles an image",
        ),
        (
            (
                row["assignment"],
                as_percent(row["accuracy_torch"]),
                as_percent(row["accuracy_integer_model"]),
                as_percent(row["accuracy_rtl"]),
                f"{row['codes_compared']:,}",
                f"{row['mismatches']:,}",
                f"{row['weight_bits_stored']:,}",
                f"{row['weight_bits_read']:,}",
                of_float,
                of_models,
                f"{row['cycles_per_image']:,}",
            )
            for row in rows
        ),
    )


def _draw(
    report: Mapping[str, Any],
    network: Any,
    reference: Any,
    assignments: Sequence[Any],
    first_image: Mapping[str, Mapping[tuple[str, str], Any]],
) -> None:
    """Draw the figure, with one tensor of the first image as the hardware stored it: the largest map, the deepest."""
    from hwsim.figures import demo_figure, save

    def pixels(tensor: str) -> int:
        _, height, width = network.shape(tensor)
        return int(height * width)

    tensors = [tensor for tensor, form in first_image[assignments[0].name] if form == "code"]
    tensor = max(reversed(tensors), key=pixels)
    scales = network.layer(tensor).output.code
    maps = {one.name: first_image[one.name][tensor, "code"] * scales[one.code_bits(tensor)] for one in assignments}
    largest = max(float(values.max()) for values in maps.values()) or 1.0
    codes = {name: values / largest for name, values in maps.items()}
    save(demo_figure(report, reference.images[0, 0], codes), Path(report["figure"]))
