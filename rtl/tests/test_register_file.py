# amaranth: UnusedElaboratable=no
"""The register file against a model of its table, with every channel of the bus at its own pace."""

import random

import pytest

from rtl.bus import register_file
from rtl.bus.axi import Response
from rtl.bus.register_file import RegisterFile
from rtl.bus.register_map import Access, Field, Register
from rtl.tests import simulate
from rtl.tests.mutation import mutant

REGISTERS = (
    Register("status", 0x00, Access.READ, (Field("low", 0, 3, ""), Field("high", 20, 12, "")), ""),
    Register("settings", 0x08, Access.READ_WRITE, (Field("a", 1, 5, ""), Field("b", 6, 20, "")), ""),
    Register("events", 0x0C, Access.CLEAR, (Field("x", 0, 1, ""), Field("y", 9, 2, "")), ""),
    Register("go", 0x20, Access.COMMAND, (Field("slot", 0, 6, ""), Field("mode", 30, 2, "")), ""),
)
ADDRESSES = [0x00, 0x03, 0x04, 0x08, 0x09, 0x0C, 0x10, 0x20, 0x24, 0x808, 0xFFC]
OUTPUTS = ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")


class Model:
    """What reads and writes must do."""

    def __init__(self):
        self.words = {register.name: 0 for register in REGISTERS}
        self.commands = []

    def find(self, address):
        return next((one for one in REGISTERS if one.address == address & ~3), None)

    def read(self, address):
        register = self.find(address)
        if register is None or register.access is Access.COMMAND:
            return 0, Response.SLVERR
        return self.words[register.name], Response.OKAY

    def write(self, address, data, strobe, accepts):
        register = self.find(address)
        if register is None or register.access is Access.READ:
            return Response.SLVERR
        used = sum(field.mask for field in register.fields)
        enabled = sum(0xFF << 8 * index for index in range(4) if strobe >> index & 1) & used
        if register.access is Access.COMMAND:
            if strobe != 15 or not accepts:
                return Response.SLVERR
            self.commands.append(register.unpack(data))
        elif register.access is Access.CLEAR:
            self.words[register.name] &= ~(data & enabled)
        else:
            self.words[register.name] = self.words[register.name] & ~enabled | data & enabled
        return Response.OKAY


def play(component, pause, seed, operations=200):
    """Do random reads and writes, one kind at a time, and return (seen, expected)."""
    rng = random.Random(seed)
    model, seen, expected, commands = Model(), [], [], []
    cycles = [0]

    async def process(context):
        bus = component.bus

        async def tick():
            # Nothing on the bus may follow an input within the cycle.
            before = [context.get(getattr(bus, name)) for name in OUTPUTS]
            inputs = {name: context.get(getattr(bus, name)) for name in ("awvalid", "wvalid", "bready", "arvalid")}
            inputs |= {name: context.get(getattr(bus, name)) for name in ("rready", "awaddr", "araddr", "wdata")}
            for name in inputs:
                context.set(getattr(bus, name), rng.getrandbits(len(getattr(bus, name))))
            assert [context.get(getattr(bus, name)) for name in OUTPUTS] == before
            for name, value in inputs.items():
                context.set(getattr(bus, name), value)
            if context.get(component.go_write):
                commands.append({"slot": context.get(component.go_slot), "mode": context.get(component.go_mode)})
            cycles[0] += 1
            assert cycles[0] < 200, "the bus hangs"
            await context.tick()

        async def send(valid, ready, **payload):
            while rng.random() < pause:
                await tick()
            for name, value in payload.items():
                context.set(getattr(bus, name), value)
            context.set(getattr(bus, valid), 1)
            taken = False
            while not taken:
                taken = context.get(getattr(bus, ready))
                await tick()
            context.set(getattr(bus, valid), 0)

        async def take(valid, ready, *payload):
            held = None
            waits_for_valid = rng.getrandbits(1)
            while True:
                is_valid = context.get(getattr(bus, valid))
                is_ready = rng.random() >= pause and (is_valid or not waits_for_valid)
                context.set(getattr(bus, ready), is_ready)
                values = tuple(context.get(getattr(bus, name)) for name in payload)
                assert held is None or (is_valid and values == held)
                held = values if is_valid else None
                await tick()
                if is_ready and is_valid:
                    context.set(getattr(bus, ready), 0)
                    return values

        for _ in range(operations):
            cycles[0] = 0
            status = rng.getrandbits(32)
            model.words["status"] = status & 0xFFF00007
            context.set(component.status_low, status & 7)
            context.set(component.status_high, status >> 20)
            if rng.random() < 0.3:
                # Events come while nothing is written.
                x, y = rng.getrandbits(1), rng.getrandbits(2)
                context.set(component.events_x_set, x)
                context.set(component.events_y_set, y)
                await tick()
                context.set(component.events_x_set, 0)
                context.set(component.events_y_set, 0)
                model.words["events"] |= x | y << 9
            address = rng.choice(ADDRESSES)
            if rng.random() < 0.5:
                await send("arvalid", "arready", araddr=address)
                seen.append(await take("rvalid", "rready", "rdata", "rresp"))
                expected.append(model.read(address))
            else:
                data, strobe = rng.getrandbits(32), rng.choice((15, 15, 15, 1, 2, 12, 0))
                accepts = rng.getrandbits(1)
                context.set(component.go_accept, accepts)
                parts = [("awvalid", "awready", {"awaddr": address})]
                parts.insert(rng.getrandbits(1), ("wvalid", "wready", {"wdata": data, "wstrb": strobe}))
                for valid, ready, payload in parts:
                    await send(valid, ready, **payload)
                seen.append(await take("bvalid", "bready", "bresp"))
                expected.append((model.write(address, data, strobe, accepts),))
            settings = context.get(component.settings_a) << 1 | context.get(component.settings_b) << 6
            seen.append((settings, context.get(component.events_x), context.get(component.events_y), tuple(commands)))
            events = model.words["events"]
            expected.append((model.words["settings"], events & 1, events >> 9, tuple(model.commands)))
            commands.clear()
            model.commands.clear()

    simulate.run(component, process)
    return seen, expected


@pytest.mark.parametrize(("pause", "seed"), [(0.0, 1), (0.3, 2), (0.7, 3)])
def test_every_access_does_what_the_table_says(pause, seed):
    seen, expected = play(RegisterFile(REGISTERS), pause, seed)
    assert len(seen) == 400
    for index, (one, other) in enumerate(zip(seen, expected, strict=True)):
        assert one == other, index


def test_an_event_in_the_cycle_of_the_clearing_write_wins():
    component = RegisterFile(REGISTERS)

    async def process(context):
        bus = component.bus
        context.set(component.events_x_set, 1)
        await context.tick()
        for name, value in (("awaddr", 0x0C), ("awvalid", 1), ("wdata", 1), ("wstrb", 15), ("wvalid", 1)):
            context.set(getattr(bus, name), value)
        for _ in range(4):
            await context.tick()
            assert context.get(component.events_x) == 1
        context.set(component.events_x_set, 0)
        for _ in range(4):
            context.set(bus.bready, 1)
            await context.tick()
        assert context.get(component.events_x) == 0

    simulate.run(component, process)


def check_two_writes_under_way(component):
    """The second write waits until the answer to the first has been taken."""
    answers = []

    async def process(context):
        bus = component.bus
        context.set(component.go_accept, 1)
        context.set(bus.wstrb, 15)
        writes = [(0x20, 5), (0x04, 6)]
        for cycle in range(20):
            for valid in (bus.awvalid, bus.wvalid):
                context.set(valid, bool(writes))
            if writes:
                context.set(bus.awaddr, writes[0][0])
                context.set(bus.wdata, writes[0][1])
            context.set(bus.bready, cycle > 10)
            taken = writes and context.get(bus.awready)
            assert not writes or context.get(bus.awready) == context.get(bus.wready)
            if context.get(bus.bvalid) and cycle > 10:
                answers.append(context.get(bus.bresp))
            await context.tick()
            if taken:
                writes.pop(0)

    simulate.run(component, process)
    assert answers == [Response.OKAY, Response.SLVERR]


def test_two_writes_under_way():
    check_two_writes_under_way(RegisterFile(REGISTERS))
    with pytest.raises(AssertionError):
        check_two_writes_under_way(
            mutant(RegisterFile, "has_address & has_data & ~bus.bvalid", "has_address & has_data")(REGISTERS)
        )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("is_accepted.eq(strobe.all() &", "is_accepted.eq("),
        ("(held & ~(written & enabled)) | setting", "(held & ~written) | setting"),
        ("(held & ~enabled) | (written & enabled)", "written"),
        ("m.d.comb += bus.arready.eq(~bus.rvalid)", "m.d.comb += bus.arready.eq(~bus.rvalid | bus.rready)"),
        ("writes.eq(has_address & has_data & ~bus.bvalid)", "writes.eq(has_address & has_data & bus.bready)"),
        ("has_address.eq(0), has_data.eq(0), ", "has_address.eq(0), "),
        ("if register.access is not Access.COMMAND:", "if True:"),
        ("eq(writes & is_accepted)", "eq(is_accepted)"),
    ],
)
def test_a_wrong_register_file_is_caught(right, wrong):
    wrong_file = mutant(RegisterFile, right, wrong)(REGISTERS)
    with pytest.raises(AssertionError):
        seen, expected = play(wrong_file, 0.3, 2)
        assert seen == expected


def test_the_module_has_no_more_than_the_signature_it_documents():
    members = set(RegisterFile(REGISTERS).signature.members) - {"bus"}
    assert members == {
        *("status_low", "status_high", "settings_a", "settings_b", "events_x", "events_y"),
        *("events_x_set", "events_y_set", "go_slot", "go_mode", "go_write", "go_accept"),
    }
    assert register_file.REGISTER_BYTES == 4
