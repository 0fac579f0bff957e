"""The machine whose units are proved: small, but with more than one of everything there can be more of."""

from __future__ import annotations

import dataclasses

from hwsim.machine import Machine
from hwsim.precision import WidthSet

SMALL = Machine(
    weight_widths=WidthSet((8, 4, 2)),
    activation_widths=WidthSet((8, 4, 2)),
    lanes=4,
    columns=4,
    banks=2,
    requantizers=2,
    weight_port_bits=4,
    strip_pixels=4,
    accumulator_bits=16,
    weight_words=64,
    staging_words=16,
    table_words=8,
    skip_table_words=8,
    activation_words=16,
    skip_words=16,
    image_words=4,
    raw_image_words=9,
    layer_slots=3,
    result_words=3,
)

UNEVEN = dataclasses.replace(
    SMALL,
    weight_words=21,
    staging_words=11,
    table_words=7,
    skip_table_words=5,
    activation_words=5,
    skip_words=6,
)
"""No memory has a power of two of words whose words a program chooses: so there are addresses out of range."""
