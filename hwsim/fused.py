"""Numba kernels of the engine: each makes the stored forms of one layer's output for a group of images, in one pass.

Private to ``hwsim``; ``plan`` prepares the arguments. Codes are channels last, uint8 in one dimension, with a border
of zeros and whole groups of four channels; skip codes (int16) and logits (int32) are (pixel, channel) without border.
Accumulators live in registers and a small array: they are requantized as soon as a tile is complete, by the function
of ``spec``, compiled. Whoever prepares a layer has checked that no 64-bit sum can overflow.

Arguments that the kernels share:

``source``, ``target``: int64 vectors (image pitch, row pitch, column pitch, first) of the codes that are read (the
pitches of windows, the first window) and written. ``shape``: images, out_height, out_width, channels.
``table``: int64 (4, channels): rows M, K, B, S. ``code_table``: int64 (4,), of the code made from a skip code.
``limits``: low and high of both tables. ``skips``: what is added, empty if nothing. ``code_out``, ``skip_out``,
``logits_out``: the forms to write, empty if the tensor does not have the form.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from hwsim import spec, tiles
from hwsim.compilation import borrowing, compiled

for _function in (spec.clamp, spec.scale_accumulator, spec.requantize):
    register_jitable(_function)

_requantize = spec.requantize
_multiply_tile = tiles.multiply_tile
_move_vector = tiles.move_vector
_TILE_PIXELS = tiles.TILE_PIXELS
_BLOCK_CHANNELS = tiles.BLOCK_CHANNELS
_LANES = tiles.LANES


@compiled
def _spread(table, channels):
    """Return ``table`` with every entry once for each pixel of a tile, flat: (4, blocks of (pixel, channel)).

    The block that begins at channel c begins at ``c * TILE_PIXELS``. Entries beyond the last channel are 0.
    """
    blocks = (channels + _LANES - 1) // _LANES * _LANES
    out = np.zeros((4, blocks * _TILE_PIXELS), np.int64)
    start = 0
    while start < channels:
        width = _width(channels, start)
        for entry in range(4):
            for pixel in range(_TILE_PIXELS):
                for channel in range(min(width, channels - start)):
                    out[entry, start * _TILE_PIXELS + pixel * width + channel] = table[entry, start + channel]
        start += width
    return out.ravel()


@borrowing
def _width(channels, start):
    """Return the channels of the block that begins at ``start``: those of two vectors, or of one."""
    return _BLOCK_CHANNELS if channels - start > _LANES else _LANES


@borrowing
def _move(values, at, size, out, place):
    """Copy ``size`` numbers from ``values[at]`` on to ``out[place]`` on."""
    vectors = size // _LANES
    for index in range(vectors):
        offset = np.uintp(index * _LANES)
        _move_vector(values, at + offset, out, place + offset)
    for c in range(np.uintp(vectors * _LANES), np.uintp(size)):
        out[place + c] = values[at + c]


@borrowing
def _move_tile(sums, count, width, size, channels, first, out):
    """Copy ``size`` channels of ``count`` pixels to dense values."""
    for index in range(count):
        _move(sums, np.uintp(index * width), size, out, np.uintp(first + index * channels))


@borrowing
def _store(
    sums, count, first, places, start, channels,
    tables, code_table, limits, skips, added, code_out, skip_out, logits_out,
):  # fmt: skip
    """Make the forms of one block of channels of ``count`` pixels, whose codes begin at ``places``.

    ``sums`` is worked on in place, the whole tile in one loop. ``tables`` is ``_spread``; ``added`` is room for the
    skips of a tile. Indices are unsigned: Numba would ask of each signed one whether it is negative, and nothing
    would be vectorized.
    """
    width = _width(channels, start)
    size = min(width, channels - start)
    begin, zero, end = np.uintp(start * _TILE_PIXELS), np.uintp(0), np.uintp(count * width)
    quarter = np.uintp(tables.size // 4)
    m_at, k_at = begin, begin + quarter
    b_at, s_at = k_at + quarter, k_at + quarter + quarter
    low, high, none = limits[0], limits[1], np.int64(0)
    dense = first * channels + start
    if skips.size > 0:
        for index in range(count):
            _move(skips, np.uintp(dense + index * channels), size, added, np.uintp(index * width))
        for c in range(zero, end):
            acc, skip = np.int64(sums[c]), np.int64(added[c])
            m, k, b, s = tables[m_at + c], tables[k_at + c], tables[b_at + c], tables[s_at + c]
            sums[c] = _requantize(acc, skip, m, k, b, s, low, high)
    else:
        for c in range(zero, end):
            acc = np.int64(sums[c])
            sums[c] = _requantize(acc, none, tables[m_at + c], none, tables[b_at + c], tables[s_at + c], low, high)
    if logits_out.size > 0:
        _move_tile(sums, count, width, size, channels, dense, logits_out)
    if skip_out.size > 0:
        _move_tile(sums, count, width, size, channels, dense, skip_out)
        if code_out.size > 0:
            code_m, code_b, code_s = code_table[0], code_table[2], code_table[3]
            code_low, code_high = limits[2], limits[3]
            for c in range(zero, end):
                kept = np.int64(sums[c])
                sums[c] = _requantize(kept, none, code_m, none, code_b, code_s, code_low, code_high)
    if code_out.size > 0:
        for index in range(count):
            _move(sums, np.uintp(index * width), size, code_out, np.uintp(places[index] + start))


@compiled
def _place(pixel, layout, out_height, out_width):
    """Return the index of the code, or of the window, of a pixel of the group."""
    area = out_height * out_width
    image = pixel // area
    inside = pixel - image * area
    row = inside // out_width
    return image * layout[0] + row * layout[1] + (inside - row * out_width) * layout[2] + layout[3]


@borrowing
def _walk(at, layout, out_height, out_width, count, out):
    """Write the places of the next ``count`` pixels to ``out``, and the last of them to the rest of it.

    ``at``: place, row and column of the first of them; moved on to the first of those after them. A walk needs none of
    the divisions of ``_place``, which take longer than the products of a narrow layer.
    """
    place, row, column = at[0], at[1], at[2]
    next_row = layout[1] - (out_width - 1) * layout[2]
    next_image = layout[0] - (out_height - 1) * layout[1] - (out_width - 1) * layout[2]
    last = place
    for index in range(count):
        out[np.uintp(index)] = last = place
        column += 1
        if column < out_width:
            place += layout[2]
        else:
            column = 0
            row += 1
            if row < out_height:
                place += next_row
            else:
                row = 0
                place += next_image
    for index in range(count, out.size):
        out[np.uintp(index)] = last
    at[0], at[1], at[2] = place, row, column


@compiled
def _start(pixel, layout, out_height, out_width):
    """Return place, row and column of a pixel of the group."""
    inside = pixel % (out_height * out_width)
    at = np.empty(3, np.int64)
    at[0], at[1], at[2] = _place(pixel, layout, out_height, out_width), inside // out_width, inside % out_width
    return at


@compiled
def convolve(
    codes, weights, shape, source, kernel, target,
    table, code_table, limits, skips, code_out, skip_out, logits_out,
):  # fmt: skip
    """Make the output of a convolution from packed weights (``plan.pack_tiles``).

    ``kernel``: row pitch of the codes, kernel rows, runs of ``tiles.RUN_BYTES`` in a kernel row.
    """
    images, out_height, out_width, channels = shape[0], shape[1], shape[2], shape[3]
    row_pitch, rows, runs = kernel[0], kernel[1], kernel[2]
    pixels = images * out_height * out_width
    origins = np.empty(_TILE_PIXELS, np.int64)
    places = np.empty(_TILE_PIXELS, np.int64)
    sums = np.empty(_TILE_PIXELS * _BLOCK_CHANNELS, np.int32)
    added = np.zeros(_TILE_PIXELS * _BLOCK_CHANNELS, np.int16)
    tables = _spread(table, channels)
    read_at = _start(0, source, out_height, out_width)
    write_at = _start(0, target, out_height, out_width)
    for first in range(0, pixels, _TILE_PIXELS):
        count = min(_TILE_PIXELS, pixels - first)
        _walk(read_at, source, out_height, out_width, count, origins)
        _walk(write_at, target, out_height, out_width, count, places)
        start = 0
        while start < channels:
            width = _width(channels, start)
            first_weight = start * rows * runs * tiles.RUN_BYTES
            _multiply_tile(codes, origins, row_pitch, rows, runs, weights, first_weight, width // _LANES, sums)
            _store(
                sums, count, first, places, start, channels,
                tables, code_table, limits, skips, added, code_out, skip_out, logits_out,
            )  # fmt: skip
            start += width


@compiled
def unfold(codes, shape, source, kernel, first, columns):
    """Write the windows of pixels from ``first`` on to the rows of ``columns`` (pixels, rows * run), any number type.

    ``kernel``: row pitch of the codes, kernel rows, bytes of a kernel row.
    """
    origins = np.empty(columns.shape[0], np.int64)
    _walk(_start(first, source, shape[1], shape[2]), source, shape[1], shape[2], origins.size, origins)
    _unfold(codes, origins, kernel[0], kernel[1], kernel[2], columns.reshape(-1))


@borrowing
def _unfold(codes, origins, row_pitch, rows, run, columns):
    """Write the kernel rows of the windows at ``origins``, one after another, to ``columns``."""
    place = 0
    for index in range(origins.size):
        at = origins[np.uintp(index)]
        for _ in range(rows):
            _move(codes, np.uintp(at), run, columns, np.uintp(place))
            at += row_pitch
            place += run


@compiled
def store_sums(sums, first, shape, target, table, code_table, limits, skips, code_out, skip_out, logits_out):
    """Make the output of pixels from ``first`` on from their accumulators (pixels, channels), any number type."""
    channels = shape[3]
    pixels = sums.shape[0]
    places = np.empty(_TILE_PIXELS, np.int64)
    part = np.zeros(_TILE_PIXELS * _BLOCK_CHANNELS, np.int32)
    flat = sums.reshape(-1)
    added = np.zeros(_TILE_PIXELS * _BLOCK_CHANNELS, np.int16)
    tables = _spread(table, channels)
    write_at = _start(first, target, shape[1], shape[2])
    for tile in range(0, pixels, _TILE_PIXELS):
        count = min(_TILE_PIXELS, pixels - tile)
        _walk(write_at, target, shape[1], shape[2], count, places)
        start = 0
        while start < channels:
            width = _width(channels, start)
            for index in range(count):
                at, place = np.uintp((tile + index) * channels + start), np.uintp(index * width)
                _move(flat, at, min(width, channels - start), part, place)
            _store(
                part, count, first + tile, places, start, channels,
                tables, code_table, limits, skips, added, code_out, skip_out, logits_out,
            )  # fmt: skip
            start += width


@compiled
def sum_windows(codes, shape, source, kernel, target, table, code_table, limits, skips, code_out, skip_out, logits_out):
    """Make the output of an average pooling. ``kernel``: row pitch, column pitch, height, width."""
    channels = shape[3]
    places = np.empty(1, np.int64)
    sums = np.empty(_BLOCK_CHANNELS, np.int32)
    added = np.zeros(_BLOCK_CHANNELS, np.int16)
    tables = _spread(table, channels)
    for pixel in range(shape[0] * shape[1] * shape[2]):
        origin = _place(pixel, source, shape[1], shape[2])
        places[0] = _place(pixel, target, shape[1], shape[2])
        first = 0
        while first < channels:
            width = _width(channels, first)
            sums[:] = 0
            for row in range(kernel[2]):
                for column in range(kernel[3]):
                    start = origin + row * kernel[0] + column * kernel[1] + first
                    part = codes[start : start + min(width, channels - first)]
                    for channel in range(part.size):
                        sums[channel] += np.int32(part[channel])
            _store(
                sums, 1, pixel, places, first, channels,
                tables, code_table, limits, skips, added, code_out, skip_out, logits_out,
            )  # fmt: skip
            first += width


@compiled
def max_windows(codes, shape, source, kernel, target, code_out):
    """Make the codes of a max pooling. ``kernel``: row pitch, column pitch, height, width."""
    channels = shape[3]
    for pixel in range(shape[0] * shape[1] * shape[2]):
        origin = _place(pixel, source, shape[1], shape[2])
        place = _place(pixel, target, shape[1], shape[2])
        out = code_out[place : place + channels]
        out[:] = 0
        for row in range(kernel[2]):
            for column in range(kernel[3]):
                start = origin + row * kernel[0] + column * kernel[1]
                part = codes[start : start + channels]
                for channel in range(channels):
                    out[channel] = max(out[channel], part[channel])


@compiled
def lay_out(images, target, code_out):
    """Write images (n, c, h, w) to channels-last codes with a border."""
    count, channels, height, width = images.shape
    for image in range(count):
        for row in range(height):
            first = image * target[0] + row * target[1] + target[3]
            for channel in range(channels):
                line = images[image, channel, row]
                for column in range(width):
                    code_out[first + column * target[2] + channel] = line[column]


@compiled
def take_out(values, source, out):
    """Write channels-last values to ``out`` (n, c, h, w)."""
    count, channels, height, width = out.shape
    for image in range(count):
        for row in range(height):
            first = image * source[0] + row * source[1] + source[3]
            for channel in range(channels):
                line = out[image, channel, row]
                for column in range(width):
                    line[column] = values[first + column * source[2] + channel]
