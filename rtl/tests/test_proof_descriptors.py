"""What proofs assume of descriptors holds for those of programs, and not for wrong ones."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hwsim.assignments import uniform_assignments
from hwsim.machine import Machine
from hwsim.network import IMAGE
from hwsim.precision import CATALOG
from hwsim.program import Program, build, fit_machine
from hwsim.random_network import SMALL, random_assignment, random_network
from rtl.proofs import descriptors
from rtl.records import struct

WIDTHS = CATALOG["8-4-2"]


def program(seed: int, **options: int) -> Program:
    """Return a program of a random network for a machine that just holds it."""
    network = random_network(seed, WIDTHS, (1 + seed, 8, 8), SMALL)
    assignments = [*uniform_assignments(network), random_assignment(network, seed)]
    machine = fit_machine(network, assignments, Machine.sized(WIDTHS, WIDTHS, 8, 8, **options))
    return build(network, machine, assignments)


def verdicts(made: Program, changes: dict[str, int] | None = None) -> list[dict[str, bool]]:
    """Return for each layer which rules hold; ``changes`` is added to fields of descriptors and entries."""
    machine, network = made.machine, made.network
    layer, entry = Signal(struct(machine.layer_layout)), Signal(struct(machine.tiles_layout))
    image = Signal(struct(machine.image_layout))
    names = [f"{tensor}_{what}" for tensor in ("input", "output") for what in ("start", "row_units", "height")]
    ghosts = {name: Signal(24, name=name) for name in names}
    places = {
        tensor: descriptors.Place(*(ghosts[f"{tensor}_{what}"] for what in ("start", "row_units", "height")))
        for tensor in ("input", "output")
    }
    rules = {
        "entry": descriptors.valid_entry(machine, entry),
        "staging": descriptors.valid_staging(machine, layer),
        "input": descriptors.valid_input(machine, layer, places["input"]),
        "output": descriptors.valid_output(machine, layer, places["output"]),
        "drain": descriptors.valid_drain(machine, layer),
        "image": descriptors.valid_image(machine, image),
    }
    holds = {name: Signal(name=name) for name in rules}
    m = Module()
    m.d.comb += [holds[name].eq(rule) for name, rule in rules.items()]
    found: list[dict[str, bool]] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for part in made.assignments.values():
            for at, network_layer in enumerate(network):
                fields = {
                    "layer": dict(part.layers[at]),
                    "entry": dict(part.tiles[at]),
                    "image": dict(made.image),
                }
                for name, more in (changes or {}).items():
                    record, field = name.split(".")
                    fields[record][field] += more
                ctx.set(layer.as_value(), machine.layer_layout.pack(fields["layer"]))
                ctx.set(image.as_value(), machine.image_layout.pack(fields["image"]))
                ctx.set(entry.as_value(), machine.tiles_layout.pack(fields["entry"]))
                for tensor, source in (("input", network_layer.input), ("output", network_layer.name)):
                    if source == IMAGE:
                        continue
                    place = part.places[source]
                    ctx.set(ghosts[f"{tensor}_start"], place.code_start or 0)
                    ctx.set(ghosts[f"{tensor}_row_units"], place.pitch * place.units)
                    ctx.set(ghosts[f"{tensor}_height"], network.shape(source)[1])
                found.append({name: bool(ctx.get(value)) for name, value in holds.items()})

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_descriptor_of_a_program_is_valid(seed: int) -> None:
    for found in verdicts(program(seed)):
        assert found == dict.fromkeys(found, True)


CHANGES = {
    "entry.weight_start": "entry",
    "entry.staging_start": "entry",
    "layer.staging_start": "staging",
    "layer.kernel_height": "staging",
    "layer.input_start": "input",
    "layer.row_step": "input",
    "layer.output_row_gap": "output",
    "layer.output_units": "output",
    "layer.table_start": "drain",
    "layer.channel_groups": "drain",
    "image.image_bytes": "image",
}


@pytest.mark.parametrize(("field", "rule"), CHANGES.items())
def test_a_wrong_field_breaks_a_rule(field: str, rule: str) -> None:
    """In some layer: memories have just the words that are needed."""
    assert not all(found[rule] for found in verdicts(program(0), {field: 1}))
