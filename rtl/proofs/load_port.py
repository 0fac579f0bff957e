"""Proof of the load port: whatever a host sends, nothing is written beyond the memories."""

from __future__ import annotations

from hwsim.machine import LOAD_TARGETS
from rtl.load_port import LoadPort, record_counts
from rtl.proofs.bench import Bench
from rtl.proofs.machine import UNEVEN
from rtl.proofs.proof import Mutant, Proof


def addresses_in_range(component):
    """Words of any value at any time."""
    bench = Bench(component(UNEVEN))
    dut = bench.component
    counts = record_counts(UNEVEN)
    target, count, write = (bench.internal(f"dut.{name}") for name in ("target", "count", "write"))
    bench.check(dut.i.ready, "a word is taken in every cycle")
    due = bench.in_state("dut", "RECORD") | write
    for name, number in LOAD_TARGETS.items():
        bench.implies(due & (target == number), count == counts[name], f"{name}: the records that there are")
        bench.implies(getattr(dut, f"{name}_write"), dut.address < counts[name], f"{name}: address in range")
    bench.implies(write & (target == number), bench.internal("dut.address") < count, "address")
    return bench


PROOFS = (
    Proof(
        "load_port.addresses_in_range",
        "whatever words a host sends, nothing is written beyond the weight, table, skip table, layer and tile memories",
        LoadPort,
        addresses_in_range,
        depth=3,
        mutant_depth=12,
        mutants=(
            Mutant("write.eq(next_address < count)", "write.eq(1)"),
            Mutant("next_address < count", "next_address <= count"),
            Mutant("count.eq(count_of_target),", "count.eq(~0),"),
        ),
    ),
)
