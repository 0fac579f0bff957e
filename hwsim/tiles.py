"""Dot products of a tile: a few windows of codes by a block of output channels, accumulated in registers.

Private to ``hwsim.convolution``. Codes are channels last, so that each kernel row of a window is one run of bytes.
The products are unsigned by signed bytes, summed in int32: no product or sum saturates, and whoever prepares a layer
has checked that no accumulator leaves 32 bits.

Two twins, chosen by what the processor offers and proved equal: ``portable_tile`` in plain Numba, and the AVX-512
instruction VPDPBUSD (four byte products and their sum in each of 16 lanes), which Numba does not find by itself.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

TILE_PIXELS = 12
"""Windows of a tile: with 2 vectors of channels, 24 of the 32 vector registers hold accumulators."""

LANES = 16
"""Output channels of a vector; a block is one or two vectors."""

BLOCK_CHANNELS = 2 * LANES

RUN_BYTES = 16
"""Weights of a kernel row are filled with zeros to whole runs of this many bytes; codes are read that far."""


def has_byte_products() -> bool:
    """Return whether the compiler's target has AVX-512 VNNI."""
    if numba.config.CPU_NAME not in (None, "", binding.get_host_cpu_name()) or numba.config.CPU_FEATURES is not None:
        return False
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512bw"))


def portable_tile(codes, origins, row_pitch, rows, runs, weights, first_weight, vectors, sums):
    """Write the dot products of ``TILE_PIXELS`` windows with one block of channels to ``sums``.

    Parameters
    ----------
    codes : ndarray of uint8, one dimension
    origins : ndarray of int64, shape (TILE_PIXELS,)
        Index of the first code of each window.
    row_pitch, rows, runs : int
        Bytes from one kernel row to the next, kernel rows, runs of ``RUN_BYTES`` in a kernel row.
    weights : ndarray of int8, one dimension
        From ``first_weight`` on in order (row, group of four bytes, channel of the block, byte).
    vectors : int
        The block has ``LANES * vectors`` channels.
    sums : ndarray of int32, one dimension
        (window, channel of the block).
    """
    channels = LANES * vectors
    for pixel in range(TILE_PIXELS):
        total = sums[pixel * channels : (pixel + 1) * channels]
        total[:] = 0
        index = first_weight
        for row in range(rows):
            source = origins[pixel] + row * row_pitch
            for group in range(runs * RUN_BYTES // 4):
                four = codes[source + 4 * group : source + 4 * group + 4]
                block = weights[index : index + 4 * channels]
                for channel in range(channels):
                    for byte in range(4):
                        total[channel] += np.int32(four[byte]) * np.int32(block[4 * channel + byte])
                index += 4 * channels


def _byte_product_tile(vectors):
    """Return the intrinsic for blocks of ``vectors`` vectors, with the arguments of ``portable_tile``."""

    @intrinsic
    def tile(typing_context, codes, origins, row_pitch, rows, runs, weights, first_weight, sums):
        size = types.int64
        signature = types.void(codes, origins, size, size, size, weights, size, sums)
        return signature, generate

    def generate(context, builder, signature, arguments):
        arrays = {
            place: context.make_array(signature.args[place])(context, builder, arguments[place]).data
            for place in (0, 1, 5, 7)
        }
        row_pitch, rows, runs, first_weight = (arguments[place] for place in (2, 3, 4, 6))
        byte, word, size = ir.IntType(8), ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(word, LANES)
        product = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )
        splat = ir.Constant(ir.VectorType(word, LANES), [0] * LANES)

        def load(kind, base, offset):
            pointer = builder.bitcast(builder.gep(base, [offset], source_etype=byte), kind.as_pointer())
            return builder.load(pointer, align=1, typ=kind)

        def constant(value):
            return ir.Constant(size, value)

        codes_base = builder.bitcast(arrays[0], byte.as_pointer())
        starts = []
        for pixel in range(TILE_PIXELS):
            origin = builder.load(builder.gep(arrays[1], [constant(pixel)], source_etype=size), typ=size)
            starts.append(builder.gep(codes_base, [origin], source_etype=byte))
        weights_base = builder.gep(builder.bitcast(arrays[5], byte.as_pointer()), [first_weight], source_etype=byte)
        totals = [
            [cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * LANES)) for _ in range(vectors)]
            for _ in range(TILE_PIXELS)
        ]
        row_bytes = builder.mul(runs, constant(RUN_BYTES * LANES * vectors))
        with cgutils.for_range(builder, rows, intp=size) as row:
            row_start = builder.mul(row.index, row_pitch)
            weights_row = builder.mul(row.index, row_bytes)
            with cgutils.for_range(builder, runs, intp=size) as run:
                code_run = builder.add(row_start, builder.mul(run.index, constant(RUN_BYTES)))
                weight_run = builder.add(weights_row, builder.mul(run.index, constant(RUN_BYTES * LANES * vectors)))
                for group in range(RUN_BYTES // 4):
                    blocks = [
                        load(
                            vector,
                            weights_base,
                            builder.add(weight_run, constant((group * vectors + place) * 4 * LANES)),
                        )
                        for place in range(vectors)
                    ]
                    at = builder.add(code_run, constant(4 * group))
                    for pixel in range(TILE_PIXELS):
                        four = load(word, starts[pixel], at)
                        one = builder.insert_element(ir.Constant(vector, ir.Undefined), four, ir.Constant(word, 0))
                        four = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), splat)
                        for place in range(vectors):
                            total = totals[pixel][place]
                            builder.store(builder.call(product, [builder.load(total), four, blocks[place]]), total)
        sums_base = builder.bitcast(arrays[7], byte.as_pointer())
        for pixel in range(TILE_PIXELS):
            for place in range(vectors):
                at = constant(4 * LANES * (pixel * vectors + place))
                pointer = builder.bitcast(builder.gep(sums_base, [at], source_etype=byte), vector.as_pointer())
                builder.store(builder.load(totals[pixel][place]), pointer, align=4)
        return context.get_dummy_value()

    return tile


if has_byte_products():
    _one_vector, _two_vectors = _byte_product_tile(1), _byte_product_tile(2)

    @numba.njit(nogil=True, _nrt=False)
    def multiply_tile(codes, origins, row_pitch, rows, runs, weights, first_weight, vectors, sums):
        """As ``portable_tile``, which says what the arguments are."""
        if vectors == 1:
            _one_vector(codes, origins, row_pitch, rows, runs, weights, first_weight, sums)
        else:
            _two_vectors(codes, origins, row_pitch, rows, runs, weights, first_weight, sums)

else:
    multiply_tile = numba.njit(nogil=True)(portable_tile)


def portable_move(values, at, out, place):
    """Copy ``LANES`` numbers from ``values[at]`` on to ``out[place]`` on: what ``move_vector`` does, in Python."""
    out[place : place + np.uintp(LANES)] = values[at : at + np.uintp(LANES)]


@intrinsic
def move_vector(typing_context, values, at, out, place):
    """Copy ``LANES`` numbers from ``values[at]`` on to ``out[place]`` on, kept in their lower bits.

    One load, one conversion and one store of a vector: of a loop, the compiler cannot know that source and target do
    not overlap, and copies one by one. Numbers of floating point hold integers that fit the target.
    """
    signature = types.void(values, types.uintp, out, types.uintp)

    def generate(context, builder, signature, arguments):
        pointers, kinds = [], []
        for array, index in ((0, 1), (2, 3)):
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            pointers.append(builder.gep(data, [arguments[index]]))
            kinds.append(ir.VectorType(context.get_data_type(signature.args[array].dtype), LANES))
        loaded = builder.load(builder.bitcast(pointers[0], kinds[0].as_pointer()), align=1, typ=kinds[0])
        source, target = signature.args[0].dtype, signature.args[2].dtype
        if isinstance(source, types.Float):
            converted = builder.fptosi(loaded, kinds[1])
        elif isinstance(target, types.Float):
            converted = (builder.sitofp if source.signed else builder.uitofp)(loaded, kinds[1])
        elif source.bitwidth > target.bitwidth:
            converted = builder.trunc(loaded, kinds[1])
        elif source.bitwidth < target.bitwidth:
            converted = (builder.sext if source.signed else builder.zext)(loaded, kinds[1])
        else:
            converted = loaded
        builder.store(converted, builder.bitcast(pointers[1], kinds[1].as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate
