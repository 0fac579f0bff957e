"""The command line: one verb for each step of the chain.

Everything is imported inside the verbs, so that a verb needs no more than its own packages, and `--help` needs none.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bitswitch.bitstream import run_bitstream
from bitswitch.chain import CHECKPOINT, FOLDER, INTERRUPTED, NETWORK, REFUSED, Refused, Result
from bitswitch.demo import run_demo
from bitswitch.estimate import run_estimate
from bitswitch.explore import run_explore
from bitswitch.export import run_export
from bitswitch.options import (
    SentenceParser,
    add_architectures,
    add_comparison,
    add_data,
    add_design,
    add_machine,
    add_network,
    add_path,
    add_training,
    at_least,
    counts,
    positive,
)
from bitswitch.simulate import run_simulate
from bitswitch.synth import run_synth
from bitswitch.train import run_train
from bitswitch.verify import run_verify
from bitswitch.verilog import run_verilog

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.json is not None:
            _check_writable(options.json)
        if getattr(options, "architectures", None) is not None:
            _name_architectures(options.architectures)
        report, status = options.run(options)
        if options.json is not None and report:
            from hwsim.whole_file import write_json

            write_json(options.json, report)
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


def _parser() -> argparse.ArgumentParser:
    parser = SentenceParser(
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
        "train", run_train, "Train one residual network for several widths, on handwritten digits or other images."
    )
    add_training(train)
    add_data(train)
    train.add_argument("--resume", action="store_true", help="go on from the last epoch that --out holds")
    train.add_argument(
        "--folds", type=at_least(2), metavar="K", help="train K times and tell the accuracy of each image's own fold"
    )
    train.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")

    export = verb("export", run_export, "Write the network file of a checkpoint.")
    add_path(export, "checkpoint", FOLDER / CHECKPOINT)
    export.add_argument("--out", type=Path, metavar="FILE", help=f"default {NETWORK} beside the checkpoint")
    add_architectures(export)
    export.add_argument("--width", type=int, metavar="B", help="switch a model of the method hot-swap to B bits")

    verify = verb(
        "verify",
        run_verify,
        "Build the programs of a network file, certify every layer, and compare every stored tensor of the integer "
        "model with the deployed PyTorch forward of the checkpoint the file was made from. A network that comes with "
        "images is compared on them, and without --checkpoint with what it records of that forward.",
    )
    add_comparison(verify)
    verify.add_argument("--images", type=at_least(1), metavar="N", help="compare N test images (default: all)")

    verilog = verb("verilog", run_verilog, "Write the accelerator as Verilog, and a JSON that describes it.")
    add_design(verilog)
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
        run_synth,
        "Synthesize the accelerator with yosys, place and route it with nextpnr, and tell what it takes, its clock, "
        "and with --network the images a second at each assignment.",
    )
    synth.add_argument(
        "--target",
        required=True,
        metavar="NAME",
        help="ecp5-25k, ecp5-45k, ecp5-85k, ice40-up5k, nexus; generic and xilinx7 are synthesized only",
    )
    add_design(synth)
    synth.add_argument("--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: the uniform)")
    synth.add_argument(
        "--part", default="accelerator", metavar="NAME", help="accelerator (default), or its array alone"
    )
    synth.add_argument("--seed", type=at_least(0), default=1, metavar="N", help="of the placer (default %(default)s)")
    synth.add_argument("--target-mhz", type=positive, metavar="F", help="the clock that nextpnr works towards")
    synth.add_argument(
        "--out", type=Path, default=Path("build") / "synth", metavar="DIR", help="logs go into DIR/TARGET, %(default)s"
    )

    bitstream = verb(
        "bitstream",
        run_bitstream,
        "Make the bitstream of a board: the accelerator behind a serial line. With --network also the program that its "
        "driver loads.",
    )
    bitstream.add_argument("--board", required=True, metavar="NAME", help="ulx3s-85f; also ulx3s-12f, -25f, -45f")
    add_design(bitstream)
    bitstream.add_argument(
        "--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: every uniform and mixed one)"
    )
    bitstream.add_argument(
        "--baud", type=at_least(1), default=1_000_000, metavar="N", help="of the serial line (default %(default)s)"
    )
    bitstream.add_argument("--seed", type=at_least(0), default=1, metavar="N", help="of the placer (default 1)")
    bitstream.add_argument(
        "--out", type=Path, default=Path("build") / "bitstream", metavar="DIR", help="default %(default)s/BOARD"
    )

    simulate = verb(
        "simulate",
        run_simulate,
        "Run a network file on the generated hardware in Verilator, switching assignments between images, and compare "
        "every stored tensor and every layer's cycles. A network that comes with images runs on them, and without "
        "--checkpoint is compared with the integer model.",
    )
    add_comparison(simulate)
    simulate.add_argument(
        "--images", type=at_least(1), default=8, metavar="N", help="images per assignment (default %(default)s)"
    )
    add_machine(simulate)

    estimate = verb(
        "estimate",
        run_estimate,
        "Count what a network takes: storage, memory traffic, cycles layer by layer. The network may also be resnet20, "
        "with random weights.",
    )
    add_network(estimate)
    add_machine(estimate)
    estimate.add_argument("--clock-mhz", type=positive, metavar="F", help="tell images/s and latency at this clock")
    estimate.add_argument("--figure", type=Path, metavar="FILE.png", help="draw roofline, layers and memory traffic")

    explore = verb(
        "explore",
        run_explore,
        "Sweep machines for a network: exact cycles, area and clock as measured, or from models fitted to that. "
        "The network may also be resnet20, with random weights. A stopped sweep goes on where it was.",
    )
    add_network(explore)
    explore.add_argument("--target", default="ecp5-85k", metavar="NAME", help="FPGA, default %(default)s")
    explore.add_argument("--datapaths", metavar="NAME,...", help="planes,dsp (default both)")
    explore.add_argument("--lanes", type=counts, metavar="R,...", help="default 4,8,16,32,64")
    explore.add_argument("--columns", type=counts, metavar="C,...", help="default 4,8,16,32,64")
    explore.add_argument("--requantizers", type=counts, metavar="N,...", help="default 2,4,8")
    explore.add_argument("--strip-pixels", type=counts, metavar="N,...", help="default 64,128,256")
    explore.add_argument(
        "--share", type=positive, default=100, metavar="PERCENT", help="of the logic that may be taken"
    )
    explore.add_argument("--latency-us", type=positive, metavar="T", help="tell the widest assignment in this time")
    explore.add_argument("--place", type=at_least(0), default=0, metavar="N", help="place and route N of the front")
    explore.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default: one a core)")
    explore.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="workers of a Dask cluster instead")
    explore.add_argument(
        "--out", type=Path, default=Path("build") / "explore", metavar="DIR", help="default %(default)s"
    )

    demo = verb("demo", run_demo, "Run the whole chain on handwritten digits, and print one table.")
    add_training(demo)
    demo.add_argument(
        "--images", type=at_least(1), default=32, metavar="N", help="images per assignment in hardware (default 32)"
    )
    add_machine(demo)
    demo.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="default %(default)s")
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"bitswitch {version('bitswitch')}"
    except PackageNotFoundError:
        return "bitswitch, not installed"


def _check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that fills it."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Refused(f"--json must name a file that can be written, not {path}")


def _name_architectures(path: Path) -> None:
    """Run a file of the user's, which names networks."""
    if not path.is_file():
        raise Refused(f"--architectures must name a Python file, not {path}")
    runpy.run_path(str(path))
