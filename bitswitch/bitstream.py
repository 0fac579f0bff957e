"""`bitswitch bitstream`."""

from __future__ import annotations

import argparse

from bitswitch.chain import OK, Refused, Result
from bitswitch.machines import design_of
from bitswitch.progress import tell
from bitswitch.tables import text_table


def run_bitstream(options: argparse.Namespace) -> Result:
    """Make the bitstream of a board, and with a network the program that its driver loads."""
    from hwsim.program import build
    from rtl.board import bitstream, boards
    from rtl.loadable import LoadableProgram

    board = boards.board(options.board)
    if options.network is None and options.assignments is not None:
        raise Refused("--assignments needs a --network")
    machine, network, assignments = design_of(options, options.assignments or "standard")
    program = None if network is None else LoadableProgram.from_program(build(network, machine, assignments))
    folder = options.out / board.name
    made = bitstream.build(machine, board, folder, baud=options.baud, seed=options.seed, say=tell)
    rows = [(name, f"{used:,}", f"{available:,}") for name, (used, available) in made.cells.items()]
    print(text_table(("cells", "used", "available"), rows))
    print(f"{made.path}: {made.path.stat().st_size:,} bytes; {made.fmax_mhz} MHz, the board's clock is ", end="")
    print(f"{board.clock_hz / 1e6:g} MHz; {made.baud:,} bits/s; logs in {folder}")
    report = made.to_json()
    if program is not None:
        report["program"] = str(folder / "program.npz")
        program.save(folder / "program.npz")
        print(f"{report['program']}: {', '.join(program.slots)}")
    return report, OK
