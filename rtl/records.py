"""Amaranth layouts of the records that the program and the hardware share."""

from amaranth.lib import data

from hwsim.machine import FieldLayout


def struct(layout: FieldLayout) -> data.StructLayout:
    """Return the Amaranth layout with the same fields at the same bits."""
    return data.StructLayout(dict(layout.fields))
