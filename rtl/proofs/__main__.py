"""``python -m rtl.proofs``: proves the claims about the hardware, and refutes the wrong units."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rtl.proofs.catalog import CLAIM, Claim, all_proofs, solve_one
from rtl.proofs.solver import MissingToolError, Verdict, require_tools

PROVED, REFUTED = "PASS", "FAIL"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 if every claim is proved and every mutant refuted."""
    parser = argparse.ArgumentParser(prog="python -m rtl.proofs", description=__doc__)
    parser.add_argument("names", nargs="*", help="only proofs whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="say what is proved, and run nothing")
    parser.add_argument("--folder", type=Path, default=Path("build/proofs"), help="for logs and counterexamples")
    parser.add_argument("--no-mutants", action="store_true", help="only the claims, not the wrong units")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes side by side")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    proofs = [proof for proof in all_proofs() if not options.names or any(name in proof.name for name in options.names)]
    if not proofs:
        parser.error(f"no proof has a name that contains {' or '.join(options.names)}")
    if options.list:
        for proof in proofs:
            print(f"{proof.name} ({proof.reach}): {proof.claim}")
        return 0
    try:
        require_tools()
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    started = time.monotonic()
    wrong = 0
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = [
            [
                pool.submit(solve_one, proof.name, index, options.folder)
                for index in range(CLAIM, 0 if options.no_mutants else len(proof.mutants))
            ]
            for proof in proofs
        ]
        for proof, futures in zip(proofs, outcomes, strict=True):
            wrong += not tell(proof, options.folder, [future.result() for future in futures])
    seconds = time.monotonic() - started
    print(f"{len(proofs) - wrong} of {len(proofs)} proofs hold, {seconds:.0f} s")
    return 1 if wrong else 0


def tell(proof: Claim, folder: Path, outcomes: list[tuple[Verdict, float]]) -> bool:
    """Say how a proof and its mutants went, and return whether all is as it must be."""
    (verdict, seconds), *others = outcomes
    refuted = [other.status == REFUTED for other, _ in others]
    seconds += sum(more for _, more in others)
    holds = verdict.status == PROVED and all(refuted)
    said = "proved" if verdict.status == PROVED else f"NOT PROVED ({verdict.status})"
    killed = f", {sum(refuted)} of {len(refuted)} mutants refuted" if others else ""
    print(f"{proof.name:44} {said}, {proof.reach}{killed}, {seconds:.0f} s", flush=True)
    if not holds:
        print(f"  {proof.claim}\n  see {folder / proof.name}", flush=True)
        for line in verdict.log.splitlines():
            if line.startswith("failed: "):
                print(f"  {line}", flush=True)
    return holds


if __name__ == "__main__":
    sys.exit(main())
