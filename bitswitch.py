"""The command line: one verb for each step of the chain.

The only module that sees all the packages. Everything is imported inside the verbs, so that a verb needs no more than
its own packages, and `--help` needs none.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

FOLDER = Path("build") / "demo"
"""Where `train`, `export` and `demo` write, and where the other verbs look, unless told otherwise."""

CHECKPOINT = "checkpoint.safetensors"
NETWORK = "network.safetensors"
FIGURE = "demo.png"

RANDOM_NETWORK = "resnet20"
"""Named instead of a file: a ResNet-20 of random weights, whose cycles and sizes are those of a trained one."""

Result: TypeAlias = tuple[dict[str, Any], int]
"""What --json writes, and the exit status."""

BATCH_IMAGES = 256
"""Images compared at once; bounds the memory that stored tensors take."""

BATCH_SIMULATED = 8
"""Images that one run of the simulator takes, at every assignment."""

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

MAP = """\
the chain, one verb a step:

  train      images           ->  checkpoint      one network, trained jointly for all widths
  export     checkpoint       ->  network file    stored codes once, real parameters, checksums
  verify     network file     ==  PyTorch         certificates, integer model, every stored tensor compared
  verilog    widths, size     ->  .v and .json    the accelerator
  synth      widths, size     ->  an FPGA         cells, clock and images/s after place and route
  bitstream  widths, size     ->  .bit            the accelerator behind a serial line, for an FPGA board
  simulate   network file     ==  hardware        Verilator: every stored tensor, every layer's cycles
  estimate   network file     ->  counts          storage, weight traffic, cycles
  explore    network file     ->  machines        throughput against area, and the one to build
  demo       all of it on handwritten digits, and one table

'bitswitch VERB --help' tells the options of a verb.
"""

EXIT_STATUS = """\
exit status: 0 done and all equal, 1 something differs or does not fit, 2 wrong usage or refused input
"""


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Refused(Exception):
    """Input that a verb cannot work with; the message is one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.json is not None:
            _check_writable(options.json)
        report, status = options.run(options)
        if options.json is not None:
            _write_json(options.json, report)
    except KeyboardInterrupt:
        print(f"\nbitswitch {options.verb}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if options.traceback or not isinstance(error, _told_in_a_sentence()):
            raise
        print(f"bitswitch {options.verb}: {_sentence(error)}", file=sys.stderr)
        return REFUSED
    return int(status)


def _told_in_a_sentence() -> tuple[type[BaseException], ...]:
    """Return the kinds of errors whose message is for the user; any other one is a bug and shows its traceback."""
    told: tuple[type[BaseException], ...] = (Refused, ValueError, OSError, ModuleNotFoundError)
    for module, error in (("sim_tests.verilator_tool", "ToolMissing"), ("rtl.synthesis", "SynthesisError")):
        if module in sys.modules:
            told = (*told, getattr(sys.modules[module], error))
    return told


EXTRA_OF_MODULE = {
    "torch": "quant",
    "sklearn": "quant",
    "pooch": "quant",
    "PIL": "quant",
    "amaranth": "rtl",
    "amaranth_boards": "board",
    "serial": "board",
    "cocotb": "sim",
    "verilator": "sim",
    "matplotlib": "notebooks",
    "distributed": "explore",
}


def _sentence(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        extra = EXTRA_OF_MODULE.get(module, "all")
        return f"needs the Python package {module}: install it with pip install 'bitswitch[{extra}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror
    return " ".join(str(error).split())


# The parser.


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bitswitch",
        usage="bitswitch VERB [options]",
        description="One network: trained once for several bit-widths, stored once, switched at run time, and the same "
        "integers from PyTorch to the simulated hardware.",
        epilog=MAP + "\n" + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    verbs = parser.add_subparsers(prog="bitswitch", dest="verb", required=True, metavar="VERB", help=argparse.SUPPRESS)

    def verb(name: str, run: Callable[[argparse.Namespace], Result], text: str) -> Any:
        made = verbs.add_parser(name, description=text, epilog=EXIT_STATUS)
        made.set_defaults(run=run)
        made.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
        made.add_argument("--traceback", action="store_true", help="show where a refusal came from")
        return made

    train = verb(
        "train", _train, "Train one residual network for several widths, on handwritten digits or other images."
    )
    _add_training(train)
    _add_data(train)
    train.add_argument("--resume", action="store_true", help="go on from the last epoch that --out holds")
    train.add_argument(
        "--folds", type=_at_least(2), metavar="K", help="train K times and tell the accuracy of each image's own fold"
    )
    train.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")

    export = verb("export", _export, "Write the network file of a checkpoint.")
    _add_path(export, "checkpoint", FOLDER / CHECKPOINT)
    export.add_argument("--out", type=Path, metavar="FILE", help=f"default {NETWORK} beside the checkpoint")
    export.add_argument("--width", type=int, metavar="B", help="switch a model of the method hot-swap to B bits")

    verify = verb(
        "verify",
        _verify,
        "Build the programs of a network file, certify every layer, and compare every stored tensor of the integer "
        "model with the deployed PyTorch forward of the checkpoint the file was made from.",
    )
    _add_comparison(verify)
    verify.add_argument("--images", type=_at_least(1), metavar="N", help="compare N test images (default: all)")
    verify.add_argument("--data-path", metavar="PATH", help="where the images are now (default: where they were)")

    verilog = verb("verilog", _verilog, "Write the accelerator as Verilog, and a JSON that describes it.")
    _add_design(verilog)
    verilog.add_argument(
        "--bus", choices=("streams", "axi"), default="streams", help="ports: streams, or AXI4 with registers"
    )
    verilog.add_argument(
        "--target", choices=("portable", "ecp5"), default="portable", help="plain logic, or the cells of an FPGA family"
    )
    verilog.add_argument(
        "--out", type=Path, default=Path("build") / "verilog", metavar="DIR", help="default %(default)s"
    )

    synth = verb(
        "synth",
        _synth,
        "Synthesize the accelerator with yosys, place and route it with nextpnr, and tell what it takes, its clock, "
        "and with --network the images a second at each assignment.",
    )
    synth.add_argument(
        "--target",
        required=True,
        metavar="NAME",
        help="ecp5-25k, ecp5-45k, ecp5-85k, ice40-up5k, nexus; generic and xilinx7 are synthesized only",
    )
    _add_design(synth)
    synth.add_argument("--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: the uniform)")
    synth.add_argument(
        "--part", default="accelerator", metavar="NAME", help="accelerator (default), or its array alone"
    )
    synth.add_argument("--seed", type=_at_least(0), default=1, metavar="N", help="of the placer (default %(default)s)")
    synth.add_argument("--target-mhz", type=_positive, metavar="F", help="the clock that nextpnr works towards")
    synth.add_argument(
        "--out", type=Path, default=Path("build") / "synth", metavar="DIR", help="logs go into DIR/TARGET, %(default)s"
    )

    bitstream = verb(
        "bitstream",
        _bitstream,
        "Make the bitstream of a board: the accelerator behind a serial line. With --network also the program that its "
        "driver loads.",
    )
    bitstream.add_argument("--board", required=True, metavar="NAME", help="ulx3s-85f; also ulx3s-12f, -25f, -45f")
    _add_design(bitstream)
    bitstream.add_argument(
        "--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: every uniform and mixed one)"
    )
    bitstream.add_argument(
        "--baud", type=_at_least(1), default=1_000_000, metavar="N", help="of the serial line (default %(default)s)"
    )
    bitstream.add_argument("--seed", type=_at_least(0), default=1, metavar="N", help="of the placer (default 1)")
    bitstream.add_argument(
        "--out", type=Path, default=Path("build") / "bitstream", metavar="DIR", help="default %(default)s/BOARD"
    )

    simulate = verb(
        "simulate",
        _simulate,
        "Run a network file on the generated hardware in Verilator, switching assignments between images, and compare "
        "every stored tensor and every layer's cycles.",
    )
    _add_comparison(simulate)
    simulate.add_argument(
        "--images", type=_at_least(1), default=8, metavar="N", help="images per assignment (default %(default)s)"
    )
    _add_machine(simulate)

    estimate = verb(
        "estimate",
        _estimate,
        "Count what a network takes: storage, memory traffic, cycles layer by layer. The network may also be resnet20, "
        "with random weights.",
    )
    _add_network(estimate)
    _add_machine(estimate)
    estimate.add_argument("--clock-mhz", type=_positive, metavar="F", help="tell images/s and latency at this clock")
    estimate.add_argument("--figure", type=Path, metavar="FILE.png", help="draw roofline, layers and memory traffic")

    explore = verb(
        "explore",
        _explore,
        "Sweep machines for a network: exact cycles, area and clock as measured, or from models fitted to that. "
        "The network may also be resnet20, with random weights. A stopped sweep goes on where it was.",
    )
    _add_network(explore)
    explore.add_argument("--target", default="ecp5-85k", metavar="NAME", help="FPGA, default %(default)s")
    explore.add_argument("--datapaths", metavar="NAME,...", help="planes,dsp (default both)")
    explore.add_argument("--lanes", type=_counts, metavar="R,...", help="default 4,8,16,32,64")
    explore.add_argument("--columns", type=_counts, metavar="C,...", help="default 4,8,16,32,64")
    explore.add_argument("--requantizers", type=_counts, metavar="N,...", help="default 2,4,8")
    explore.add_argument("--strip-pixels", type=_counts, metavar="N,...", help="default 64,128,256")
    explore.add_argument(
        "--share", type=_positive, default=100, metavar="PERCENT", help="of the logic that may be taken"
    )
    explore.add_argument("--latency-us", type=_positive, metavar="T", help="tell the widest assignment in this time")
    explore.add_argument("--place", type=_at_least(0), default=0, metavar="N", help="place and route N of the front")
    explore.add_argument("--jobs", type=_at_least(1), metavar="N", help="processes (default: one a core)")
    explore.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="workers of a Dask cluster instead")
    explore.add_argument(
        "--out", type=Path, default=Path("build") / "explore", metavar="DIR", help="default %(default)s"
    )

    demo = verb("demo", _demo, "Run the whole chain on handwritten digits, and print one table.")
    _add_training(demo)
    demo.add_argument(
        "--images", type=_at_least(1), default=32, metavar="N", help="images per assignment in hardware (default 32)"
    )
    _add_machine(demo)
    demo.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="default %(default)s")
    return parser


def _add_path(parser: argparse.ArgumentParser, name: str, default: Path) -> None:
    parser.add_argument(name, type=Path, nargs="?", default=default, metavar=name.upper(), help="default %(default)s")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--widths", "--bits", type=_widths, metavar="B,B,...", help="width set (default 8,6,4,2)")
    parser.add_argument("--method", metavar="NAME", help="training method (default double-rounding)")
    parser.add_argument("--float-epochs", type=_at_least(0), metavar="N", help="epochs in floating point, first")
    parser.add_argument("--joint-epochs", type=_at_least(1), metavar="N", help="epochs at all widths, after those")
    parser.add_argument("--seed", type=_at_least(0), metavar="N", help="of weights, batches and folds (default 0)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="NAME", help="digits (default), cifar10 (downloaded if there is no --data-path) or images"
    )
    parser.add_argument(
        "--data-path",
        metavar="PATH",
        help="the CIFAR-10 binary archive, or a folder or tar archive of train/<class>/ and test/<class>/",
    )
    parser.add_argument("--model", dest="architecture", metavar="NAME", help="digits or resnet20 (default: the data's)")
    parser.add_argument(
        "--budget", type=float, metavar="N", help="what hasb and sdq keep to when they choose widths (default 4)"
    )
    parser.add_argument(
        "--budget-of", metavar="NAME", help="average-width (default), cycles or weight-traffic: what --budget is of"
    )
    parser.add_argument(
        "--self-distillation", type=float, metavar="SHARE", help="learn from the highest width's last epoch, 0 .. 1"
    )
    parser.add_argument(
        "--block-replacement", type=float, metavar="WEIGHT", help="guidance by the float network's blocks, from 0"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    _add_path(parser, "network", FOLDER / NETWORK)
    parser.add_argument(
        "--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: every uniform and mixed one)"
    )
    parser.add_argument(
        "--ignore-checksum", action="store_true", help="read a changed file all the same, and tell where it shows"
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    _add_network(parser)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="default: the one the file names, beside it or in build/demo"
    )


def _add_design(parser: argparse.ArgumentParser) -> None:
    """Add what ``_design`` makes a machine of."""
    parser.add_argument("--weight-bits", type=_widths, metavar="B,B,...", help="widths of weights (default 8,6,4,2)")
    parser.add_argument("--activation-bits", type=_widths, metavar="B,B,...", help="widths of activations")
    parser.add_argument("--bits", type=_widths, metavar="B,B,...", help="both of them")
    _add_machine(parser)
    parser.add_argument("--network", type=Path, metavar="FILE", help="make the memories as deep as this network needs")
    parser.set_defaults(ignore_checksum=False)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lanes", type=_at_least(1), metavar="R", help="activations of 8 bits summed in a cycle")
    parser.add_argument("--columns", type=_at_least(1), metavar="C", help="output channels computed at once")
    parser.add_argument("--requantizers", type=_at_least(1), metavar="N", help="accumulators requantized in a cycle")
    parser.add_argument("--strip-pixels", type=_at_least(1), metavar="N", help="output pixels accumulated at once")
    parser.add_argument(
        "--datapath", choices=("planes", "dsp"), help="LUTs and weight planes (default), or multipliers"
    )


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an integer, not {text!r}") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, not {value}")
        return value

    return parse


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _counts(text: str) -> tuple[int, ...]:
    parse = _at_least(1)
    return tuple(parse(part) for part in text.split(","))


def _widths(text: str) -> Any:
    from hwsim.precision import WidthSet

    try:
        return WidthSet.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"bitswitch {version('bitswitch')}"
    except PackageNotFoundError:
        return "bitswitch, not installed"


# The verbs. Each returns what --json writes, and the exit status.


def _train(options: argparse.Namespace) -> Result:
    if options.folds is not None:
        return _train_folds(options)
    clock = _Clock()
    trained = _trained(options, options.out / CHECKPOINT)
    clock.lap("train")
    print(_accuracy_table([("float32", trained.float_accuracy), *_named(trained.accuracies)]))
    print(f"{len(trained.split.test_labels)} test images, {clock.seconds['train']} s; {trained.checkpoint}")
    report = {
        "checkpoint": str(trained.checkpoint),
        "seconds": clock.seconds,
        "test_images": len(trained.split.test_labels),
        "float_accuracy": trained.float_accuracy,
        "accuracies": dict(_named(trained.accuracies)),
        "config": trained.config.to_json(),
    }
    return report, OK


def _train_folds(options: argparse.Namespace) -> Result:
    """Train once for each fold, and count every image in the fold that did not train on it."""
    from dataclasses import replace

    from hwsim.assignments import uniform_assignments
    from hwsim.engine import classify, logits
    from hwsim.requantize import build_requantizers
    from quant.export import export_network
    from quant.train import train_network

    clock = _Clock()
    first = _training_config(options)
    if first.data != "digits" or options.resume:
        raise Refused("--folds is for the digits, and such a run cannot be resumed")
    first = replace(first, folds=options.folds)
    images = 0
    correct: dict[str, dict[str, int]] = {}

    def count(name: str, model: str, predictions: Any, labels: Any) -> None:
        counted = correct.setdefault(name, {})
        counted[model] = counted.get(model, 0) + int((predictions == labels).sum())

    for fold in range(options.folds):
        trained = train_network(replace(first, fold=fold), progress=True)
        labels = trained.split.test_labels
        images += len(labels)
        count("float32", "torch", trained.float_predictions, labels)
        network = export_network(trained.model)
        for bits, assignment in zip(network.width_set, uniform_assignments(network), strict=True):
            count(assignment.name, "torch", trained.predictions[bits], labels)
            tables = build_requantizers(network, assignment)
            predicted = classify(logits(network, assignment, tables, trained.split.test_images))
            count(assignment.name, "integer_model", predicted, labels)
    clock.lap("train")
    rows: list[dict[str, Any]] = [
        {"assignment": name, **{f"accuracy_{model}": 100 * hits / images for model, hits in counted.items()}}
        for name, counted in correct.items()
    ]
    print(
        _table(
            ("assignment", "torch %", "integer model %", "against float, points"),
            (
                (
                    row["assignment"],
                    f"{row['accuracy_torch']:.2f}",
                    _percent(row.get("accuracy_integer_model")),
                    f"{row.get('accuracy_integer_model', row['accuracy_torch']) - rows[0]['accuracy_torch']:+.2f}",
                )
                for row in rows
            ),
        )
    )
    print(f"{images} images, each in the fold that did not train on it; {clock.seconds['train']} s")
    report = {
        "folds": options.folds,
        "images": images,
        "seconds": clock.seconds,
        "rows": rows,
        "config": first.to_json(),
    }
    return report, OK


def _training_config(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from quant.training_config import DIGITS, preset

    chosen = {
        name: getattr(options, name)
        for name in (
            *("widths", "method", "seed", "float_epochs", "joint_epochs"),
            *("data", "data_path", "architecture", "self_distillation", "block_replacement", "budget_of", "budget"),
        )
        if getattr(options, name, None) is not None
    }
    return replace(preset(chosen.get("data", DIGITS)), **chosen)


def _trained(options: argparse.Namespace, checkpoint: Path) -> Any:
    from quant.train import train_network

    # Only the verb train has a run to resume.
    resume = getattr(options, "resume", None)
    return train_network(
        _training_config(options),
        checkpoint=checkpoint,
        progress=True,
        run_directory=None if resume is None else options.out,
        resume=bool(resume),
    )


def _export(options: argparse.Namespace) -> Result:
    from hwsim.estimate import storage

    out = options.out or options.checkpoint.with_name(NETWORK)
    network = _exported(options.checkpoint, out, options.width)
    stored = storage(network)
    print(
        f"{out}: {stored.weights:,} weights stored once in {stored.stored_once_bits:,} bits, widths {network.width_set}"
    )
    report = {
        "network": str(out),
        "spec_version": _spec_version(),
        "provenance": dict(network.provenance),
        "storage": _storage_report(stored),
    }
    return report, OK


def _exported(checkpoint: Path, out: Path, width: int | None = None) -> Any:
    """Write the network file of a checkpoint, and return the network."""
    from hwsim import network_file
    from quant.checkpoint import load_checkpoint
    from quant.export import export_network
    from quant.hot_swap import at_width
    from quant.reference import provenance

    loaded = load_checkpoint(checkpoint)
    training = {"training": json.dumps(loaded.config, sort_keys=True)}
    model, switched = loaded.model, {}
    if width is not None:
        model, switched = at_width(model, width), {"switched_to": str(width)}
    network = export_network(model, provenance(checkpoint, loaded.architecture) | training | switched)
    out.parent.mkdir(parents=True, exist_ok=True)
    network_file.save(network, out)
    return network


def _spec_version() -> int:
    from hwsim import spec

    return int(spec.SPEC_VERSION)


def _storage_report(stored: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(stored) | {
        "float_ratio": round(stored.float_ratio, 3),
        "model_per_width_ratio": round(stored.model_per_width_ratio, 3),
    }


def _verify(options: argparse.Namespace) -> Result:
    from hwsim import network_file

    network = network_file.load(options.network, ignore_checksum=options.ignore_checksum)
    reference = _reference_of(network, options)
    clock = _Clock()
    rows = _verified(network, reference, options.assignments, options.images)
    clock.lap("verify")
    print(_verify_table(rows))
    damage = _damage(options, rows)
    report = {
        "network": str(options.network),
        "spec_version": _spec_version(),
        "seconds": clock.seconds,
        "test_images": rows[0]["images"],
        "rows": rows,
        **damage,
    }
    return report, _verdict(damage, rows)


def _verified(network: Any, reference: Any, names: str | None, count: int | None) -> list[dict[str, Any]]:
    """Return one row for each assignment: every stored tensor of the integer model against PyTorch's."""
    from dataclasses import asdict

    from hwsim import engine, verification
    from hwsim.assignments import select_assignments
    from hwsim.requantize import build_requantizers
    from quant.progress import Progress

    images, labels = reference.images[:count], reference.labels[:count]
    starts = range(0, len(images), BATCH_IMAGES)
    assignments = select_assignments(network, names)
    rows: list[dict[str, Any]] = []
    with Progress("verify", len(assignments)) as progress:
        for assignment in assignments:
            tables = build_requantizers(network, assignment)
            predicted: dict[str, list[int]] = {"torch": [], "integer_model": [], "training": []}
            parts, differing = [], 0
            for start in starts:
                batch = images[start : start + BATCH_IMAGES]
                found = engine.run(network, assignment, tables, batch)
                expected = reference.deployed(network, assignment.name, tables, batch)
                in_training = reference.in_training(assignment.name, batch)
                parts.append(verification.compare(assignment.name, expected, found, start))
                differing += verification.compare(assignment.name, expected, in_training, start).mismatches
                for model, stored in (("torch", expected), ("integer_model", found), ("training", in_training)):
                    predicted[model].extend(engine.classify(stored[network.layers[-1].name, "logits"]).tolist())
            comparison = verification.combine(assignment.name, parts)
            certificates = {name: table.certificate for name, table in tables.items()}
            exact = sum(certificate.exact for certificate in certificates.values())
            rows.append(
                {
                    "assignment": assignment.name,
                    "images": len(images),
                    "accuracy_torch": _accuracy(predicted["torch"], labels),
                    "accuracy_integer_model": _accuracy(predicted["integer_model"], labels),
                    "codes_compared": comparison.codes_compared,
                    "mismatches": comparison.mismatches,
                    "first_mismatch": None if comparison.first is None else comparison.first.to_json(),
                    "training_forward_codes_differing": differing,
                    "training_forward_predictions_differing": sum(
                        one != other for one, other in zip(predicted["torch"], predicted["training"], strict=True)
                    ),
                    "layers_exact": exact,
                    "layers_displaced": len(certificates) - exact,
                    "certificates": {
                        name: {**asdict(certificate), "verdict": str(certificate)}
                        for name, certificate in certificates.items()
                    },
                }
            )
            progress.advance(assignment.name, len(rows))
    return rows


def _verify_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return _certificate_table(rows) + "\n\n" + _comparison_table(rows)


def _certificate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdict on every layer's requantizer at every assignment: exact, or the part of displaced pairs."""

    def cell(certificate: Mapping[str, Any]) -> str:
        displaced = certificate["displaced_pairs"] / certificate["operand_pairs"]
        return f"{displaced:.0e}" if displaced else "exact"

    layers = rows[0]["certificates"]
    largest = max(one["largest_displacement"] for row in rows for one in row["certificates"].values())
    table = _table(
        ("requantizer of", *(row["assignment"] for row in rows)),
        ((layer, *(cell(row["certificates"][layer]) for row in rows)) for layer in layers),
    )
    codes = "1 code" if largest == 1 else f"{largest} codes"
    told = f", numbers: the part of all reachable operands on which it is displaced, by at most {codes}"
    return f"{table}\n(exact: equal to the trained function on every reachable operand{told if largest else ''})"


def _comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        (
            "assignment",
            "torch %",
            "integer model %",
            "codes compared",
            "mismatches",
            "exact layers",
            "displaced",
            "float32 forward: codes",
            "predictions",
        ),
        (
            (
                row["assignment"],
                _percent(row["accuracy_torch"]),
                _percent(row["accuracy_integer_model"]),
                f"{row['codes_compared']:,}",
                f"{row['mismatches']:,}",
                row["layers_exact"],
                row["layers_displaced"],
                f"{row['training_forward_codes_differing']:,} differ",
                f"{row['training_forward_predictions_differing']:,} differ",
            )
            for row in rows
        ),
    )


def _accuracy(predicted: Sequence[int], labels: Any) -> float:
    return round(100 * sum(int(one == label) for one, label in zip(predicted, labels, strict=True)) / len(labels), 4)


def _damage(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Print and return what a changed file shows: whose checksum fails, and the first stored number that differs."""
    from hwsim import network_file

    failures = network_file.checksum_failures(options.network) if options.ignore_checksum else ()
    for name in failures:
        print(f"checksum: {network_file.describe_failure(name)} was changed after it was written")
    first = next((row for row in rows if row["first_mismatch"] is not None), None)
    if first is not None:
        print(f"first difference: {first['assignment']}, {first['first_mismatch']['told']}")
    elif failures:
        print(f"no stored tensor differs on these {rows[0]['images']} images")
    return {
        "checksum_failures": list(failures),
        "first_mismatch": None if first is None else first["first_mismatch"],
    }


def _verdict(damage: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int:
    """Print and return whether all is equal."""
    differing = sum(row["mismatches"] for row in rows)
    compared = sum(row["codes_compared"] for row in rows)
    late = sum(row.get("counts_differing", 0) for row in rows)
    if differing or late or damage["checksum_failures"]:
        told = f", {late:,} counts are not as predicted" if late else ""
        print(f"NOT EQUAL: {differing:,} of {compared:,} codes differ{told}")
        return FAILED
    print(f"EQUAL: 0 of {compared:,} codes differ")
    return OK


def _reference_of(network: Any, options: argparse.Namespace) -> Any:
    """Return the trained model that a network was exported from: by the name of its checkpoint, and by its checksum."""
    from quant.reference import Reference, find_checkpoint

    name = network.provenance.get("checkpoint")
    if options.checkpoint is not None:
        candidates = [options.checkpoint]
    elif name is None:
        raise Refused(f"{options.network}: does not say which checkpoint it was made from; name it with --checkpoint")
    else:
        candidates = [options.network.parent / name, FOLDER / name]
    try:
        checkpoint = find_checkpoint(network, candidates)
    except ValueError as error:
        raise Refused(f"{options.network}: {error}; --checkpoint names one") from error
    switched_to = network.provenance.get("switched_to")
    bits = None if switched_to is None else int(switched_to)
    return Reference(checkpoint, bits, getattr(options, "data_path", None))


def _verilog(options: argparse.Namespace) -> Result:
    from rtl import verilog
    from rtl.targets import TARGETS

    machine, _, _ = _design(options, "standard")
    source, description = verilog.write(machine, options.out, bus=options.bus, target=TARGETS[options.target])
    report = json.loads(description.read_text())
    print(f"{source}: {source.read_text().count(chr(10)):,} lines; {description}")
    kibibytes = sum(report["memory_bits"].values()) / 8192
    print(
        f"{machine.lanes} lanes x {machine.columns} columns, weights {machine.weight_widths}, activations "
        f"{machine.activation_widths}, memories of {kibibytes:,.1f} KiB, {len(report['ports'])} ports"
    )
    return {"verilog": str(source), "description": str(description), **report}, OK


def _design(options: argparse.Namespace, names: str | None) -> tuple[Any, Any, Any]:
    """Return the machine of ``_add_design``, the network it is for, and its assignments; None and none without.

    ``names`` are those of the assignments; all standard ones for ``"standard"``, the uniform ones for None.
    """
    from hwsim.assignments import select_assignments, uniform_assignments
    from hwsim.program import fit_machine

    if options.network is None:
        return _machine(options, options.weight_bits or options.bits, options.activation_bits or options.bits), None, ()
    network = _network(options)
    if names is None:
        assignments = uniform_assignments(network)
    else:
        assignments = select_assignments(network, None if names == "standard" else names)
    weight_widths = options.weight_bits or options.bits or network.width_set
    machine = _machine(options, weight_widths, options.activation_bits or options.bits or network.width_set)
    return fit_machine(network, assignments, machine), network, assignments


def _synth(options: argparse.Namespace) -> Result:
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
    machine, network, assignments = _design(options, options.assignments)
    folder = options.out / device.name
    how = {"part": options.part, "seed": options.seed, "target_mhz": options.target_mhz}
    built = flow.build(machine, device, folder, say=_say, **how)
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
        rows = [_estimate_row(network, found, clock_mhz) for found in estimates]
        report["network"] = str(options.network)
        report["rows"] = [{name: value for name, value in row.items() if name != "layers"} for row in rows]
        print(_throughput_table(report["rows"]))
    if not built.fits:
        print(f"\n{built.why_not}")
        fit = None if network is None else functools.partial(fit_machine, network, assignments)
        report["largest_that_fits"] = _largest_that_fits(machine, device, options, fit)
        print(report["largest_that_fits"]["sentence"])
    return report, OK if built.fits else FAILED


def _bitstream(options: argparse.Namespace) -> Result:
    from hwsim.program import build
    from rtl.board import bitstream, boards
    from rtl.loadable import LoadableProgram

    board = boards.board(options.board)
    if options.network is None and options.assignments is not None:
        raise Refused("--assignments needs a --network")
    machine, network, assignments = _design(options, options.assignments or "standard")
    program = None if network is None else LoadableProgram.from_program(build(network, machine, assignments))
    folder = options.out / board.name
    made = bitstream.build(machine, board, folder, baud=options.baud, seed=options.seed, say=_say)
    rows = [(name, f"{used:,}", f"{available:,}") for name, (used, available) in made.cells.items()]
    print(_table(("cells", "used", "available"), rows))
    print(f"{made.path}: {made.path.stat().st_size:,} bytes; {made.fmax_mhz} MHz, the board's clock is ", end="")
    print(f"{board.clock_hz / 1e6:g} MHz; {made.baud:,} bits/s; logs in {folder}")
    report = made.to_json()
    if program is not None:
        report["program"] = str(folder / "program.npz")
        program.save(folder / "program.npz")
        print(f"{report['program']}: {', '.join(program.slots)}")
    return report, OK


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
    return _table(("resource", "cell", "used", "available", ""), rows)


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
    return _table(
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
    return _table(heading, cells)


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
        found, tried = flow.largest_that_fits(smaller, device, options.out / device.name, part=options.part, say=_say)
        how = f"by packing, {len(tried)} tried" if tried else "there is none smaller"
        if found is None and tried:
            how += f"; {smaller[0].lanes} x {smaller[0].columns} {tried[0].why_not}"
    if found is None:
        return {"machine": None, "sentence": f"no smaller machine fits either ({how})"}
    told = f"the largest machine that fits has {found.lanes} lanes x {found.columns} columns ({how})"
    return {"machine": found.to_json(), "sentence": told}


def _machine(options: argparse.Namespace, weight_widths: Any, activation_widths: Any) -> Any:
    """Return the machine of --lanes and --columns; its narrower parts are as wide as these two allow."""

    from hwsim.machine import Machine
    from hwsim.precision import CATALOG

    default = CATALOG["8-6-4-2"]
    return Machine.sized(
        weight_widths or default,
        activation_widths or default,
        Machine.lanes if options.lanes is None else options.lanes,
        Machine.columns if options.columns is None else options.columns,
        **{name: value for name, value in vars(options).items() if name in _SIZES and value is not None},
    )


_SIZES = ("requantizers", "strip_pixels", "datapath")


def _network(options: argparse.Namespace) -> Any:
    """Return the network of a verb that needs no trained one."""
    from hwsim import network_file
    from hwsim.precision import CATALOG
    from hwsim.random_network import resnet20

    if str(options.network) == RANDOM_NETWORK and not options.network.exists():
        return resnet20(1, CATALOG["8-6-4-2"])
    return network_file.load(options.network, ignore_checksum=options.ignore_checksum)


def _network_machine(options: argparse.Namespace, network: Any, assignments: Any) -> Any:
    """Return the machine of --lanes and --columns whose memories hold a network at all of the assignments."""
    from hwsim.program import fit_machine

    return fit_machine(network, assignments, _machine(options, network.width_set, network.width_set))


def _simulate(options: argparse.Namespace) -> Result:
    from hwsim import network_file
    from hwsim.assignments import select_assignments

    network = network_file.load(options.network, ignore_checksum=options.ignore_checksum)
    from_export = options.checkpoint is not None or "checkpoint" in network.provenance
    reference = _reference_of(network, options) if from_export else None
    assignments = select_assignments(network, options.assignments)
    machine = _network_machine(options, network, assignments)
    clock = _Clock()
    rows, _, seconds = _simulated(network, machine, assignments, reference, options.images)
    clock.lap("simulate")
    print(_simulate_table(rows))
    damage = _damage(options, rows)
    report = {
        "network": str(options.network),
        "spec_version": _spec_version(),
        "machine": machine.to_json(),
        "seconds": clock.seconds | seconds,
        "rows": rows,
        **damage,
    }
    return report, _verdict(damage, rows)


def _simulated(
    network: Any, machine: Any, assignments: Sequence[Any], reference: Any, count: int
) -> tuple[list[dict[str, Any]], dict[str, dict[tuple[str, str], Any]], dict[str, float]]:
    """Run images on the hardware and compare them with the integer model, and with PyTorch if there is a reference.

    The assignment changes after every image. Returns one row for each assignment, the stored tensors of the first
    image at each of them, and the seconds of each stage.
    """
    from hwsim.random_network import random_images
    from quant.progress import Progress
    from sim_tests import accelerator
    from sim_tests.simulate import simulate
    from sim_tests.tally import Tally

    images = random_images(network.image_shape, count, 0) if reference is None else reference.images[:count]
    seconds: dict[str, float] = {}
    forward = None if reference is None else functools.partial(reference.deployed, network)
    tallies = {assignment.name: Tally(assignment.name, forward) for assignment in assignments}
    first: dict[str, dict[tuple[str, str], Any]] = {}
    design = accelerator.design_of(machine)
    with Progress("build with Verilator", 1) as progress:
        accelerator.build(design)
        progress.advance(design.name, 1)
    with Progress("simulate", len(images)) as progress:
        for start in range(0, len(images), BATCH_SIMULATED):
            batch = images[start : start + BATCH_SIMULATED]
            result = simulate(network, machine, assignments, batch, design=design)
            for name, tally in tallies.items():
                tally.add(result, batch, start)
                first.setdefault(name, {key: values[0] for key, values in result.stored[name].items()})
            for stage, spent in result.seconds.items():
                seconds[stage] = round(seconds.get(stage, 0) + spent, 2)
            for done in range(len(batch)):
                progress.advance(f"{len(assignments)} assignments each", start + done + 1)
    rows = [tally.row() for tally in tallies.values()]
    for row, tally in zip(rows, tallies.values(), strict=True):
        predicted = tally.predicted
        row["accuracy_rtl"] = None if reference is None else _accuracy(predicted, reference.labels[: len(predicted)])
    return rows, first, seconds


def _simulate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        (
            "assignment",
            "images",
            "hardware %",
            "codes compared",
            "mismatches",
            "cycles an image",
            "predicted",
            "counts differing",
        ),
        (
            (
                row["assignment"],
                row["images"],
                _percent(row["accuracy_rtl"]),
                f"{row['codes_compared']:,}",
                f"{row['mismatches']:,}",
                f"{row['cycles_per_image']:,}",
                f"{row['cycles_predicted']:,}",
                f"{row['counts_differing']:,} of {row['counts_compared']:,}",
            )
            for row in rows
        ),
    )


def _estimate(options: argparse.Namespace) -> Result:
    from hwsim import estimate
    from hwsim.assignments import select_assignments

    network = _network(options)
    assignments = select_assignments(network, options.assignments)
    machine = _network_machine(options, network, assignments)
    kept = estimate.ways_of_keeping(network, machine, assignments)
    estimates = [estimate.estimate(network, machine, assignment) for assignment in assignments]
    print(_keeping_table(kept, len(assignments)))
    print(f"\n{estimate.macs(network):,} MACs an image, on {machine.lanes} lanes x {machine.columns} columns:")
    print(_estimate_table(network, estimates, options.clock_mhz))
    print("\ncycles, and share of the array's peak at the layer's own widths:")
    print(_layers_table(estimates))
    report = {
        "network": str(options.network),
        "spec_version": _spec_version(),
        "machine": machine.to_json(),
        "memory_bits": machine.memory_bits,
        "storage": _storage_report(estimate.storage(network)),
        "table_bits": kept[0].table_bits,
        "ways_of_keeping": [{**vars(way), "total_bits": way.total_bits} for way in kept],
        "macs": estimate.macs(network),
        "clock_mhz": options.clock_mhz,
        "rows": [_estimate_row(network, found, options.clock_mhz) for found in estimates],
    }
    if options.figure is not None:
        from hwsim.figures import save
        from hwsim.performance_figures import estimate_figure

        save(estimate_figure(estimates), options.figure)
        print(f"\n{options.figure}")
    return report, OK


def _keeping_table(kept: Sequence[Any], assignments: int) -> str:
    once = kept[0]
    return _table(
        ("weights kept as", "weights", f"tables of {assignments} assignments", "parameters", "all", "against once"),
        (
            (
                way.name,
                _kibibytes(way.weight_bits),
                _kibibytes(way.table_bits),
                _kibibytes(way.parameter_bits),
                _kibibytes(way.total_bits),
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
    return _table(heading, rows)


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
    return _table(heading, rows)


def _estimate_row(network: Any, found: Any, clock_mhz: float | None) -> dict[str, Any]:
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


def _explore(options: argparse.Namespace) -> Result:
    from hwsim import exploration
    from hwsim.assignments import select_assignments, uniform_assignments
    from hwsim.exploration_figures import exploration_figure, model_figure
    from hwsim.figures import save

    if options.target not in exploration.DEVICES:
        raise Refused(f"--target must be one of {', '.join(exploration.DEVICES)}, not {options.target!r}")
    device = exploration.DEVICES[options.target]
    network = _network(options)
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
    return _table(
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

    return _table(
        ["of the logic", *(f"{name} {path}" for name in names for path in paths)],
        (
            [
                f"{100 * row['share']:g} %",
                *(told(row["images_per_s"][name][path]) for name in names for path in paths),
            ]
            for row in equal
        ),
    )


def _kibibytes(bits: int) -> str:
    return f"{bits / 8192:,.1f} KiB"


def _demo(options: argparse.Namespace) -> Result:
    from hwsim import network_file
    from hwsim.assignments import standard_assignments
    from hwsim.estimate import storage, weight_bits_read
    from quant.reference import Reference
    from rtl import verilog

    clock = _Clock()
    checkpoint, path = options.out / CHECKPOINT, options.out / NETWORK
    options.out.mkdir(parents=True, exist_ok=True)
    _step(1, "train one network for all widths, on handwritten digits")
    trained = _trained(options, checkpoint)
    print(_accuracy_table([("float32", trained.float_accuracy), *_named(trained.accuracies)]))
    clock.lap("train")

    _step(2, "export it: stored codes once, real parameters, checksums")
    _exported(checkpoint, path)
    network = network_file.load(path)
    reference = Reference(checkpoint)
    stored = storage(network)
    print(f"{path}: {stored.weights:,} weights in {_kibibytes(stored.stored_once_bits)}")
    clock.lap("export")

    _step(3, "verify: every stored tensor of the integer model against PyTorch, over the whole test set")
    in_python = _verified(network, reference, None, None)
    print(_verify_table(in_python))
    clock.lap("verify")

    _step(4, "generate the accelerator, and run the network on it in Verilator")
    assignments = standard_assignments(network)
    machine = _network_machine(options, network, assignments)
    source, _ = verilog.write(machine, options.out)
    print(f"{source}: {machine.lanes} lanes x {machine.columns} columns, widths {machine.weight_widths}")
    clock.lap("verilog")
    in_hardware, first_image, _ = _simulated(network, machine, assignments, reference, options.images)
    print(_simulate_table(in_hardware))
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
        "spec_version": _spec_version(),
        "seconds": clock.seconds,
        "float_accuracy": trained.float_accuracy,
        "test_images": len(reference.labels),
        "rows": rows,
        "storage": _storage_report(stored),
        "machine": machine.to_json(),
        "verilog": str(source),
        "figure": str(options.out / FIGURE),
    }
    print(_demo_table(rows, stored))
    _draw(report, network, reference, assignments, first_image)
    clock.lap("figure")
    clock.seconds["total"] = round(sum(clock.seconds.values()), 2)
    print(
        f"float32 network of the same epochs: {_percent(trained.float_accuracy)} %; {len(reference.labels)} test "
        f"images, {rows[0]['images_rtl']} of them in hardware; {clock.seconds['total']:.0f} s; {options.out / FIGURE}"
    )
    return report, _verdict({"checksum_failures": []}, rows)


def _step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def _demo_table(rows: Sequence[Mapping[str, Any]], stored: Any) -> str:
    of_float = f"{100 * stored.stored_once_bits / stored.float_bits:.0f} %"
    of_models = f"{100 * stored.stored_once_bits / stored.model_per_width_bits:.0f} %"
    return _table(
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
                _percent(row["accuracy_torch"]),
                _percent(row["accuracy_integer_model"]),
                _percent(row["accuracy_rtl"]),
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


# What the verbs share.


def _named(accuracies: Mapping[int, float]) -> list[tuple[str, float]]:
    return [(f"W{bits}A{bits}", accuracy) for bits, accuracy in accuracies.items()]


def _accuracy_table(rows: Iterable[tuple[str, float | None]]) -> str:
    return _table(("model", "accuracy %"), ((name, _percent(accuracy)) for name, accuracy in rows))


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.2f}"


def _check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that fills it."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Refused(f"--json must name a file that can be written, not {path}")


def _write_json(path: Path, report: dict[str, Any]) -> None:
    """Write to a temporary name and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, path)


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines of columns, the first one left-aligned and the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


class _Clock:
    """Seconds of each step, for the report."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> float:
        """Return, and keep, the seconds since the last lap."""
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
        return self.seconds[step]


if __name__ == "__main__":
    sys.exit(main())
