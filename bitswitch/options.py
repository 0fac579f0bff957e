"""Options of the command line, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bitswitch.chain import FOLDER, NETWORK, REFUSED


class SentenceParser(argparse.ArgumentParser):
    """Tells wrong usage in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_path(parser: argparse.ArgumentParser, name: str, default: Path) -> None:
    """Add a file as the only positional argument."""
    parser.add_argument(name, type=Path, nargs="?", default=default, metavar=name.upper(), help="default %(default)s")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add how to train: widths, method, epochs, seed."""
    parser.add_argument("--widths", "--bits", type=_widths, metavar="B,B,...", help="width set (default 8,6,4,2)")
    parser.add_argument("--method", metavar="NAME", help="training method (default double-rounding)")
    parser.add_argument("--float-epochs", type=at_least(0), metavar="N", help="epochs in floating point, first")
    parser.add_argument("--joint-epochs", type=at_least(1), metavar="N", help="epochs at all widths, after those")
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="of weights, batches and folds (default 0)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what to train on, and the options of single methods."""
    parser.add_argument(
        "--data", metavar="NAME", help="digits (default), cifar10 (downloaded if there is no --data-path) or images"
    )
    parser.add_argument(
        "--data-path",
        metavar="PATH",
        help="the CIFAR-10 binary archive, or a folder or tar archive of train/<class>/ and test/<class>/",
    )
    parser.add_argument("--model", dest="architecture", metavar="NAME", help="digits or resnet20 (default: the data's)")
    add_architectures(parser)
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
    parser.add_argument("--batch-size", type=at_least(2), metavar="N", help="images of a mini-batch")
    parser.add_argument("--learning-rate", type=positive, metavar="RATE", help="peak of the float network's")
    parser.add_argument("--joint-learning-rate", type=positive, metavar="RATE", help="peak of the weights', jointly")
    parser.add_argument(
        "--scale-learning-rate", type=positive, metavar="RATE", help="peak of the quantizers' scales', a relative step"
    )
    parser.add_argument(
        "--shared-weight-rate", type=positive, metavar="SHARE", help="of that of the weights, for what all widths share"
    )
    parser.add_argument("--alrs", metavar="NAME", help="form of ALRS: decay (default) or equation-6, for comparisons")
    parser.add_argument(
        "--alrs-decay", type=float, metavar="RATE", help="of ALRS: scales of a narrower width learn RATE times as fast"
    )
    parser.add_argument(
        "--bfloat16", action="store_const", const=True, help="train with convolutions in bfloat16, where the CPU has it"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="where PyTorch trains: cpu (default) or cuda")


def add_architectures(parser: argparse.ArgumentParser) -> None:
    """Add a file that gives networks of one's own a name."""
    parser.add_argument(
        "--architectures", type=Path, metavar="FILE.py", help="run it first: it names networks (quant.models.register)"
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add a network file, its assignments, and whether a wrong checksum is accepted."""
    add_path(parser, "network", FOLDER / NETWORK)
    parser.add_argument(
        "--assignments", metavar="NAME,...", help="such as W8A8,W2A4,mixed-1 (default: every uniform and mixed one)"
    )
    parser.add_argument(
        "--ignore-checksum", action="store_true", help="read a changed file all the same, and tell where it shows"
    )


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add a network file and the checkpoint that it is compared with."""
    add_network(parser)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="default: the one the file names, beside it or in build/demo"
    )
    add_architectures(parser)
    parser.add_argument("--data-path", metavar="PATH", help="where the images are now (default: where they were)")


def add_design(parser: argparse.ArgumentParser) -> None:
    """Add what ``design_of`` makes a machine of."""
    parser.add_argument("--weight-bits", type=_widths, metavar="B,B,...", help="widths of weights (default 8,6,4,2)")
    parser.add_argument("--activation-bits", type=_widths, metavar="B,B,...", help="widths of activations")
    parser.add_argument("--bits", type=_widths, metavar="B,B,...", help="both of them")
    add_machine(parser)
    parser.add_argument("--network", type=Path, metavar="FILE", help="make the memories as deep as this network needs")
    parser.set_defaults(ignore_checksum=False)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the sizes of a machine."""
    parser.add_argument("--lanes", type=at_least(1), metavar="R", help="activations of 8 bits summed in a cycle")
    parser.add_argument("--columns", type=at_least(1), metavar="C", help="output channels computed at once")
    parser.add_argument("--requantizers", type=at_least(1), metavar="N", help="accumulators requantized in a cycle")
    parser.add_argument("--strip-pixels", type=at_least(1), metavar="N", help="output pixels accumulated at once")
    parser.add_argument(
        "--datapath", choices=("planes", "dsp"), help="LUTs and weight planes (default), or multipliers"
    )


def at_least(low: int) -> Callable[[str], int]:
    """Return what reads an integer from ``low`` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an integer, not {text!r}") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, not {value}")
        return value

    return parse


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def counts(text: str) -> tuple[int, ...]:
    """Read integers above 0 with commas between them."""
    parse = at_least(1)
    return tuple(parse(part) for part in text.split(","))


def _widths(text: str) -> Any:
    from hwsim.precision import WidthSet

    try:
        return WidthSet.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
