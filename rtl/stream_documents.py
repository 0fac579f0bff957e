"""The ports of the accelerator's stream form for people (Markdown)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rtl.result_buffer import RESULT


def bits_of(field: str) -> str:
    """Return the bits of a field of a result word, highest first."""
    low, width = RESULT[field].offset, RESULT[field].width
    return f"bits {low + width - 1}:{low}" if width > 1 else f"bit {low}"


RULES = """\
One clock, `clk`, rising edge. One reset, `rst`, synchronous and active high: hold it for at least one rising edge, \
and offer nothing on a stream meanwhile, for what is offered is lost. It stops what runs and forgets images, commands \
and results; what was loaded stays. All inputs must be synchronous to `clk`, and all outputs are.

A stream moves one word at every rising edge at which its `valid` and its `ready` are both high. Its sender keeps \
`valid` high and `payload` unchanged from when it offers a word until the word is taken; its receiver may raise and \
lower `ready` at any time. `valid` must not wait for `ready`.
"""

STREAMS: Mapping[str, str] = {
    "load": "Words of the program, as `Program.load_words` gives them. Send them only while `busy` is low, no command "
    "is offered, and every image that was sent has been run.",
    "run": "Layer slot where an assignment begins (`AssignmentProgram.slot`): the next image is run at it. A command "
    "may come before its image; one is taken when the image before is finished. Load a program first.",
    "image": "Pixels, unsigned, in (row, column, channel) order; every `image_bytes` words are an image. None is taken "
    "before a program has been loaded. Images may be sent ahead: two are held beside the one that runs.",
    "result": f"Logits of the images in their order, one a word: {bits_of('value')} are the logit, signed; "
    f"{bits_of('last')} is high with the last of an image. Two images' logits are held; then the machine waits.",
}

SIGNALS: Mapping[str, str] = {
    "busy": "A command has been taken and its image is not finished. Its logits may leave later.",
    "cycles": "Cycles of the image that runs, or ran last, without those of waiting for it or for space for results.",
    "stall_cycles": "Cycles that commands have waited for an image or for space for its result, since reset.",
    "weight_planes_read": "Words read from the weight memory since reset.",
    "image_bytes": "Bytes of an image of the loaded network, 0 before a program has been loaded.",
}


def markdown(name: str, ports: Sequence[Mapping[str, Any]]) -> str:
    """Return the documentation of the stream form of module ``name``.

    Parameters
    ----------
    name : str
    ports : sequence of mapping
        ``name``, ``direction`` and ``bits`` of every port but clock and reset.

    Raises
    ------
    KeyError
        If nothing is written here about a port.
    """
    widths = {port["name"]: port["bits"] for port in ports}
    streams = {port["name"].partition("__")[0]: port["direction"] for port in ports if port["name"].endswith("__valid")}
    signals = [port for port in ports if "__" not in port["name"]]
    lines = [
        f"# Ports of {name}",
        "",
        RULES,
        "| stream | direction | ports | rule |",
        "|---|---|---|---|",
    ]
    for stream, direction in streams.items():
        payload = f"`{stream}__payload` ({widths[f'{stream}__payload']} bits)"
        wires = f"{payload}, `{stream}__valid`, `{stream}__ready`"
        lines.append(f"| `{stream}` | {direction} | {wires} | {STREAMS[stream]} |")
    lines += ["", "| port | direction | bits | what it is |", "|---|---|---|---|"]
    for port in signals:
        is_trace = port["name"].startswith("trace_")
        text = "For testbenches; leave it open." if is_trace else SIGNALS[port["name"]]
        lines.append(f"| `{port['name']}` | {port['direction']} | {port['bits']} | {text} |")
    return "\n".join([*lines, ""])
