"""A second, slow integer model in plain Python: nested loops and ``spec``, nothing shared with layers and kernels."""

import numpy as np

from hwsim import spec
from hwsim.network import AveragePool2d, Linear, MaxPool2d


def window(codes, channel, top, left, height, width):
    """Codes of one channel under a window; 0 outside the map."""
    rows, columns = len(codes[channel]), len(codes[channel][0])
    return [
        codes[channel][y][x] if 0 <= y < rows and 0 <= x < columns else 0
        for y in range(top, top + height)
        for x in range(left, left + width)
    ]


def accumulators(layer, weight_bits, codes):
    """Accumulators [channel][row][column] of one image's codes [channel][row][column], plane after plane."""
    stored = layer.codes
    if isinstance(layer, Linear):
        flat = [value for channel in codes for row in channel for value in row]
        codes = [[[value]] for value in flat]
        stored = stored[:, :, None, None]
        stride, padding = 1, 0
    else:
        stride, padding = layer.stride, layer.padding
    _, _, height, width = stored.shape
    out = []
    for weights in stored.tolist():
        rows = []
        for top in range(-padding, len(codes[0]) + padding - height + 1, stride):
            row = []
            for left in range(-padding, len(codes[0][0]) + padding - width + 1, stride):
                taps = [
                    (spec.switch(code, layer.stored_bits, weight_bits), activation)
                    for channel, kernel in enumerate(weights)
                    for code, activation in zip(
                        [code for line in kernel for code in line],
                        window(codes, channel, top, left, height, width),
                        strict=True,
                    )
                ]
                total = 0
                for position in range(spec.planes_applied(weight_bits)):
                    plane_sum = sum(spec.plane_bit(weight, weight_bits, position) * value for weight, value in taps)
                    total = spec.accumulate(total, plane_sum, True, spec.plane_subtracts(weight_bits, position))
                row.append(total)
            rows.append(row)
        out.append(rows)
    return out


def pooled(layer, codes, reduce):
    height, width = layer.kernel
    padding = getattr(layer, "padding", 0)
    return [
        [
            [
                reduce(window(codes, channel, top, left, height, width))
                for left in range(-padding, len(codes[0][0]) + padding - width + 1, layer.stride)
            ]
            for top in range(-padding, len(codes[0]) + padding - height + 1, layer.stride)
        ]
        for channel in range(len(codes))
    ]


def requantized(values, skips, table):
    def entry(part, channel):
        return int(part[channel if len(part) > 1 else 0])

    return [
        [
            [
                spec.requantize(
                    value,
                    0 if skips is None else skips[channel][y][x],
                    entry(table.multiplier, channel),
                    entry(table.skip_multiplier, channel),
                    entry(table.addend, channel),
                    entry(table.shift, channel),
                    table.low,
                    table.high,
                )
                for x, value in enumerate(line)
            ]
            for y, line in enumerate(lines)
        ]
        for channel, lines in enumerate(values)
    ]


def run(network, assignment, tables, images):
    """What ``engine.run`` must return."""
    parts = []
    for image in images.tolist():
        stored = {("image", "code"): image}
        for layer in network:
            codes = stored[layer.input, "code"]
            if isinstance(layer, MaxPool2d):
                stored[layer.name, "code"] = pooled(layer, codes, max)
                continue
            skips = None
            if isinstance(layer, AveragePool2d):
                values = pooled(layer, codes, sum)
            else:
                values = accumulators(layer, assignment.weight_bits(layer.name), codes)
                if layer.skip is not None:
                    skips = stored[layer.skip, "skip"]
            made = requantized(values, skips, tables[layer.name].primary)
            if layer is network.layers[-1]:
                stored[layer.name, "logits"] = made
            elif network.adders(layer.name):
                stored[layer.name, "skip"] = made
                if network.readers(layer.name):
                    stored[layer.name, "code"] = requantized(made, None, tables[layer.name].code)
            else:
                stored[layer.name, "code"] = made
        del stored["image", "code"]
        parts.append(stored)
    return {key: np.array([part[key] for part in parts]) for key in parts[0]}
