"""Write the Verilog testbench around a design, so that nothing in Python runs every cycle.

The wrapper makes the clock, counts cycles, checks the rule of every stream, plays stimulus files into plain inputs
and records groups of signals to files. cocotb drives resets and streams and sleeps in between. A whole network then
runs at the speed of Verilator itself.

All inputs change at the falling edge of the clock. Signals are sampled by the wrapper at the rising edge, as a
register of the design would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TOP = "testbench"
CLOCK_PERIOD_NS = 10
CYCLE_BITS = 32
CHUNK_BITS = 32


@dataclass(frozen=True)
class Port:
    """One port of the design.

    Parameters
    ----------
    name : str
    direction : str
        ``input`` or ``output``.
    bits : int
    signed : bool
    """

    name: str
    direction: str
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        if self.direction not in ("input", "output"):
            raise ValueError(f"port {self.name}: direction must be input or output, not {self.direction!r}")
        if self.bits < 1:
            raise ValueError(f"port {self.name}: must have at least one bit, not {self.bits}")


@dataclass(frozen=True)
class Recorder:
    """A group of signals written to ``<name>.record`` at every rising clock edge at which ``valid`` is high.

    Parameters
    ----------
    name : str
    valid : str
        Verilog expression of the design's ports; ``1`` records every cycle.
    fields : tuple of Port
        Signals recorded: output ports of the design (``direction`` is not looked at).
    """

    name: str
    valid: str
    fields: tuple[Port, ...]

    def decode(self, data: bytes) -> dict[str, np.ndarray]:
        """Return what was recorded, in order.

        Returns
        -------
        dict of str to ndarray, shape (records,)
            ``cycle`` and each field: int64 (signed fields sign-extended), or, if wider than 63 bits, uint32 of shape
            (records, words), least significant word first.
        """
        words = [_words(port.bits) for port in self.fields]
        raw = np.frombuffer(data, dtype="<u4").reshape(-1, 1 + sum(words))
        decoded = {"cycle": raw[:, 0].astype(np.int64)}
        start = 1
        for port, count in zip(self.fields, words, strict=True):
            chunk = raw[:, start : start + count]
            start += count
            if port.bits > 63:
                decoded[port.name] = chunk.copy()
                continue
            value = chunk[:, 0].astype(np.int64)
            if count > 1:
                value |= chunk[:, 1].astype(np.int64) << CHUNK_BITS
            if port.signed:
                value -= (value >> (port.bits - 1)) << port.bits
            decoded[port.name] = value
        return decoded


@dataclass(frozen=True)
class Player:
    """Plays a file into plain input ports: one record a cycle, from the cycle after ``play`` is set until the end.

    Parameters
    ----------
    name : str
        The file is ``<name>.play`` in the folder of the run.
    ports : tuple of Port
        Input ports, all driven from each record. They are 0 before and hold their last value afterwards.
    """

    name: str
    ports: tuple[Port, ...]

    @property
    def record_bytes(self) -> int:
        """Bytes of one record: each port in whole bytes."""
        return sum(_bytes(port.bits) for port in self.ports)

    def encode(self, columns: Mapping[str, np.ndarray]) -> bytes:
        """Return the file's bytes.

        Parameters
        ----------
        columns : mapping of str to ndarray, shape (records,)
            For each port: integers that fit it, or uint8 of shape (records, bytes), least significant byte first,
            as any port wider than 63 bits needs it.

        Raises
        ------
        ValueError
            If a port has no column, a column no port, lengths differ, or a value does not fit.
        """
        names = [port.name for port in self.ports]
        if sorted(columns) != sorted(names):
            raise ValueError(f"player {self.name}: needs the columns {sorted(names)}, not {sorted(columns)}")
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"player {self.name}: all columns must be equally long, not {sorted(lengths)}")
        records = np.zeros((lengths.pop(), self.record_bytes), dtype=np.uint8)
        start = 0
        for port in self.ports:
            size = _bytes(port.bits)
            records[:, start : start + size] = _big_endian_bytes(port, np.asarray(columns[port.name]), size)
            start += size
        return records.tobytes()


def stream_names(ports: Sequence[Port]) -> tuple[list[str], list[str]]:
    """Return the names of the input streams and of the output streams among the ports (``x__payload/valid/ready``)."""
    by_name = {port.name: port for port in ports}
    streams = [
        name.removesuffix("__valid")
        for name in by_name
        if name.endswith("__valid") and name.removesuffix("__valid") + "__ready" in by_name
    ]
    inputs = [name for name in streams if by_name[name + "__valid"].direction == "input"]
    return inputs, [name for name in streams if name not in inputs]


def ports_of(component) -> list[Port]:  # type: ignore[no-untyped-def]
    """Return the ports of an Amaranth component, named as in its Verilog; clock and reset are not among them."""
    from amaranth.hdl import Shape

    ports = []
    for path, member, _value in component.signature.flatten(component):
        shape = Shape.cast(member.shape)
        direction = "input" if member.flow.name == "In" else "output"
        if shape.width:
            ports.append(Port("__".join(str(part) for part in path), direction, shape.width, shape.signed))
    return ports


def write(
    design: str,
    ports: Sequence[Port],
    *,
    players: Sequence[Player] = (),
    recorders: Sequence[Recorder] = (),
    has_reset: bool = True,
    has_clock: bool = True,
) -> str:
    """Return the Verilog of module ``testbench`` around module ``design``.

    cocotb sees, apart from the design's ports (inputs writable unless a player drives them): ``clk``; ``rst``;
    ``cycle``; ``play`` and ``played``; for each stream x ``x__transfers`` (how many words were taken),
    ``x__taken`` (the last one) and ``x__violations`` (cycles in which valid fell or the payload changed before the
    word was taken). A transfer counts while ``rst`` is low.

    Parameters
    ----------
    design : str
        Module name; its clock is ``clk`` and its synchronous reset ``rst``.
    ports : sequence of Port
        All ports but those two.
    players, recorders : sequences
    has_reset, has_clock : bool
        False for a design without that port.
    """
    played = {port.name for player in players for port in player.ports}
    lines = [
        "`timescale 1ns/1ps",
        f"module {TOP};",
        "  reg clk /* verilator public_flat_rd */ = 0;",
        "  reg rst /* verilator public_flat_rw */ = 1;",
        f"  reg [{CYCLE_BITS - 1}:0] cycle /* verilator public_flat_rd */ = 0;",
        f"  always #{CLOCK_PERIOD_NS // 2} clk = ~clk;",
        "  always @(posedge clk) cycle <= cycle + 1;",
    ]
    for port in ports:
        kind = "reg" if port.direction == "input" else "wire"
        start = " = 0" if port.direction == "input" else ""
        access = "public_flat_rw" if port.direction == "input" and port.name not in played else "public_flat_rd"
        lines.append(f"  {kind} [{port.bits - 1}:0] {port.name} /* verilator {access} */{start};")
    connections = [f".{port.name}({port.name})" for port in ports]
    connections += [".clk(clk)"] * has_clock + [".rst(rst)"] * has_reset
    lines.append(f"  {design} dut({', '.join(connections)});")
    bits = {port.name: port.bits for port in ports}
    for name in (*stream_names(ports)[0], *stream_names(ports)[1]):
        lines += _stream(name, bits.get(name + "__payload"))
    lines += _players(players)
    for recorder in recorders:
        lines += _recorder(recorder)
    lines.append("endmodule")
    return "\n".join(lines) + "\n"


def _stream(name: str, payload_bits: int | None) -> list[str]:
    width = payload_bits or 1
    payload = f"{name}__payload" if payload_bits else "1'b0"
    return [
        f"  reg [31:0] {name}__transfers /* verilator public_flat_rd */ = 0;",
        f"  reg [31:0] {name}__violations /* verilator public_flat_rd */ = 0;",
        f"  reg [{width - 1}:0] {name}__taken /* verilator public_flat_rd */ = 0;",
        f"  reg {name}__waiting = 0;",
        f"  reg [{width - 1}:0] {name}__held = 0;",
        "  always @(posedge clk) begin",
        f"    {name}__waiting <= !rst && {name}__valid && !{name}__ready;",
        f"    {name}__held <= {payload};",
        f"    if (!rst && {name}__waiting && !({name}__valid && {name}__held == {payload}))",
        f"      {name}__violations <= {name}__violations + 1;",
        f"    if (!rst && {name}__valid && {name}__ready) begin",
        f"      {name}__transfers <= {name}__transfers + 1;",
        f"      {name}__taken <= {payload};",
        "    end",
        "  end",
    ]


def _players(players: Sequence[Player]) -> list[str]:
    lines = ["  reg play /* verilator public_flat_rw */ = 0;"]
    for player in players:
        lines += [
            f"  reg [{8 * player.record_bytes - 1}:0] {player.name}__bundle;",
            f"  reg {player.name}__started = 0, {player.name}__played = 0;",
            f"  integer {player.name}__file, {player.name}__count;",
            f'  initial {player.name}__file = $fopen("{player.name}.play", "rb");',
            f"  always @(negedge clk) if (play && !{player.name}__played) begin",
            f"    {player.name}__count = $fread({player.name}__bundle, {player.name}__file);",
            f"    if ({player.name}__count == 0) {player.name}__played <= 1;",
            "    else begin",
            f"      {player.name}__started <= 1;",
        ]
        low = 8 * player.record_bytes
        for port in player.ports:
            low -= 8 * _bytes(port.bits)
            lines.append(f"      {port.name} <= {player.name}__bundle[{low} +: {port.bits}];")
        lines += ["    end", "  end"]
    every = " & ".join(f"{player.name}__played" for player in players) or "1'b1"
    lines.append(f"  wire played /* verilator public_flat_rd */ = {every};")
    return lines


def _recorder(recorder: Recorder) -> list[str]:
    values = ", ".join(["cycle", *(_padded(port) for port in recorder.fields)])
    form = "%u" * (1 + len(recorder.fields))
    return [
        f"  integer {recorder.name}__record;",
        f'  initial {recorder.name}__record = $fopen("{recorder.name}.record", "wb");',
        f"  always @(posedge clk) if (!rst && ({recorder.valid}))",
        f'    $fwrite({recorder.name}__record, "{form}", {values});',
        f"  final $fclose({recorder.name}__record);",
    ]


def _padded(port: Port) -> str:
    extra = _words(port.bits) * CHUNK_BITS - port.bits
    return port.name if extra == 0 else f"{{{extra}'b0, {port.name}}}"


def _words(bits: int) -> int:
    return -(-bits // CHUNK_BITS)


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _big_endian_bytes(port: Port, column: np.ndarray, size: int) -> np.ndarray:
    if port.bits > 63 or column.ndim == 2:
        if column.dtype != np.uint8 or column.ndim != 2 or column.shape[1] != size:
            raise ValueError(
                f"port {port.name}: needs uint8 of shape (records, {size}), not {column.dtype} of {column.shape}"
            )
        return column[:, ::-1]
    values = column.astype(np.int64)
    low = -(1 << (port.bits - 1)) if port.signed else 0
    high = (1 << (port.bits - 1 if port.signed else port.bits)) - 1
    if len(values) and (values.min() < low or values.max() > high):
        raise ValueError(f"port {port.name}: values must be {low} .. {high}, not {values.min()} .. {values.max()}")
    return values.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - size :]
