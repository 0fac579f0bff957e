"""Speed of the bit-accurate model: ResNet-20, batches of 100 images, against the runtimes people use.

All engines take turns in one run. Images/s are of an engine's fastest turn; ratios are medians over the rounds of
the ratio within a round, of wall time and, where other work shares the cores, more reliably of processor time.
Ours makes exact integers at every assignment and backend (checked here: equal logits); onnxruntime gets the same
network with BatchNorm folded, in QDQ form with one weight scale for each channel, and as float32. First-call times
(compilation, or loading what was compiled before) are reported apart.

Brevitas' fake-quantized forward (the same layers, 8-bit weights for each channel, 8-bit activations) and QONNX's
executor (the QDQ model, node by node) are in the extra ``benchmarks``, like onnxruntime. They are slow: fewer turns.

    OPENBLAS_NUM_THREADS=1 python benchmarks/integer_model.py --json benchmarks/integer_model.json
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# NumPy's BLAS runs in the engine's threads, one a core; it reads this when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from hwsim.backends import BACKENDS
from hwsim.engine import Engine
from hwsim.network import IMAGE, IMAGE_SCALE, AveragePool2d, Linear, Network, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.random_network import random_assignment, random_images, resnet20
from hwsim.requantize import build_requantizers
from hwsim.whole_file import write_json

BATCH = 100
REFERENCE = "onnxruntime int8"


def folded(network: Network) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the 8-bit weights, their scales and the real biases of every layer, BatchNorm folded in."""
    layers = {}
    for layer in network.weight_layers:
        codes, scale = layer.codes.astype(np.int16), layer.weight_scale.astype(np.float64)
        bias = np.zeros(len(codes)) if layer.bias is None else layer.bias.astype(np.float64)
        if layer.batch_norms:
            norm = layer.batch_norms[8]
            gain = norm.gamma / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
            bias = norm.beta + gain * (bias - norm.mean)
            scale = np.maximum(np.abs(gain), 1e-6) * scale
            codes = codes * np.where(gain < 0, -1, 1).reshape(-1, *[1] * (codes.ndim - 1))
        layers[layer.name] = np.clip(codes, -127, 127).astype(np.int8), scale.astype(np.float32), bias
    return layers


def onnx_model(network: Network, quantized: bool) -> bytes:
    """Return the network as an ONNX model: float32, or in QDQ form for uint8 images."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    scales = {IMAGE: (IMAGE_SCALE, 0)}

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def stored(tensor: str, value: str) -> str:
        """Quantize and dequantize a tensor."""
        if not quantized:
            return value
        scale, zero = scales[tensor]
        parameters = [
            constant(f"{tensor}_scale", np.float32(scale)),
            constant(f"{tensor}_zero", np.uint8(zero)),
        ]
        code = value if tensor == IMAGE else node("QuantizeLinear", [value, *parameters], f"{tensor}_code")
        return node("DequantizeLinear", [code, *parameters], f"{tensor}_read")

    values = {IMAGE: stored(IMAGE, IMAGE)}
    for layer in network:
        name, source = layer.name, values[layer.input]
        if isinstance(layer, AveragePool2d):
            scales[name] = layer.output.code[8], 0
            values[name] = stored(name, node("GlobalAveragePool", [source], f"{name}_value"))
            continue
        codes, weight_scale, bias = folded(network)[name]
        if quantized:
            scale = constant(f"{name}_weight_scale", weight_scale)
            zero = constant(f"{name}_weight_zero", np.zeros(len(codes), np.int8))
            weight = node(
                "DequantizeLinear", [constant(f"{name}_weight", codes), scale, zero], f"{name}_weight_read", axis=0
            )
            step = weight_scale.astype(np.float64) * scales[layer.input][0]
            limit = 2**31 - 1
            rounded = np.clip(np.rint(bias / step), -limit, limit).astype(np.int32)
            parts = [
                constant(f"{name}_bias", rounded),
                constant(f"{name}_bias_scale", step.astype(np.float32)),
                constant(f"{name}_bias_zero", np.zeros(len(codes), np.int32)),
            ]
            added = node("DequantizeLinear", parts, f"{name}_bias_read", axis=0)
        else:
            real = codes * weight_scale.reshape(-1, *[1] * (codes.ndim - 1))
            weight, added = constant(f"{name}_weight", real), constant(f"{name}_bias", bias.astype(np.float32))
        if isinstance(layer, Linear):
            flat = node("Flatten", [source], f"{name}_flat")
            values[name] = node("Gemm", [flat, weight, added], f"{name}_value", transB=1)
            continue
        padding, stride = [layer.padding] * 4, [layer.stride] * 2
        value = node("Conv", [source, weight, added], f"{name}_sum", pads=padding, strides=stride)
        scales[name] = (layer.output.code[8], 0) if layer.relu else (layer.output.skip, 128)
        if layer.skip is not None:
            if quantized:
                scales[f"{name}_before"] = layer.output.skip / 2, 128
                value = stored(f"{name}_before", value)
            value = node("Add", [value, values[layer.skip]], f"{name}_add")
        if layer.relu:
            value = node("Relu", [value], f"{name}_value")
        values[name] = stored(name, value)
    last = values[network.layers[-1].name]
    kind = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "resnet20",
        [helper.make_tensor_value_info(IMAGE, kind, ["n", *network.image_shape])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", network.classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def onnxruntime_engine(network: Network, images: np.ndarray, quantized: bool, threads: int) -> Callable[[], Any]:
    """Return a call that runs the batch in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_model(network, quantized), options, ["CPUExecutionProvider"])
    feed = {IMAGE: images if quantized else (images * np.float32(IMAGE_SCALE))}
    return lambda: session.run(None, feed)[0]


def torch_engine(network: Network, images: np.ndarray) -> Callable[[], Any]:
    """Return a call that runs the batch in PyTorch, float32 and channels last."""
    import torch
    from torch.nn import functional

    parameters = {}
    for name, (codes, scale, bias) in folded(network).items():
        weight = torch.from_numpy(codes * scale.reshape(-1, *[1] * (codes.ndim - 1)))
        if weight.ndim == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        parameters[name] = weight, torch.from_numpy(bias.astype(np.float32))
    batch = torch.from_numpy(images * np.float32(IMAGE_SCALE)).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> Any:
        values = {IMAGE: batch}
        for layer in network:
            source = values[layer.input]
            if isinstance(layer, AveragePool2d):
                values[layer.name] = source.mean((2, 3), keepdim=True)
                continue
            weight, bias = parameters[layer.name]
            if isinstance(layer, Linear):
                values[layer.name] = functional.linear(source.flatten(1), weight, bias)
                continue
            value = functional.conv2d(source, weight, bias, layer.stride, layer.padding)
            if layer.skip is not None:
                value += values[layer.skip]
            values[layer.name] = value.relu_() if layer.relu else value
        return values[network.layers[-1].name].numpy()

    return run


def brevitas_engine(network: Network, images: np.ndarray) -> Callable[[], Any]:
    """Return a call that runs the batch through Brevitas: weights and activations quantized in floating point."""
    import torch
    from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
    from brevitas.quant import Int8WeightPerChannelFloat
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.products, self.outputs = nn.ModuleDict(), nn.ModuleDict()
            for name, (codes, scale, bias) in folded(network).items():
                layer = network.layer(name)
                channels, inputs, *kernel = codes.shape
                if kernel:
                    options = {"stride": layer.stride, "padding": layer.padding}
                    product = QuantConv2d(
                        inputs, channels, kernel[0], **options, weight_quant=Int8WeightPerChannelFloat
                    )
                else:
                    product = QuantLinear(inputs, channels, bias=True, weight_quant=Int8WeightPerChannelFloat)
                product.weight.data = torch.from_numpy(codes * scale.reshape(-1, *[1] * (codes.ndim - 1)))
                product.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))
                self.products[name] = product
                self.outputs[name] = QuantReLU(bit_width=8) if layer.relu else QuantIdentity(bit_width=8)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found = {IMAGE: values}
            for layer in network:
                source = found[layer.input]
                if isinstance(layer, AveragePool2d):
                    found[layer.name] = source.mean((2, 3), keepdim=True)
                    continue
                value = self.products[layer.name](source.flatten(1) if isinstance(layer, Linear) else source)
                if not isinstance(layer, Linear) and layer.skip is not None:
                    value = value + found[layer.skip]
                found[layer.name] = value if isinstance(layer, Linear) else self.outputs[layer.name](value)
            return found[network.layers[-1].name]

    batch = torch.from_numpy(images * np.float32(IMAGE_SCALE))
    model = Model().train()
    with torch.no_grad():
        for _ in range(2):  # the ranges of the activations
            model(batch)
    model.eval()

    @torch.inference_mode()
    def run() -> Any:
        return model(batch).numpy()

    return run


def qonnx_engine(network: Network, images: np.ndarray) -> Callable[[], Any]:
    """Return a call that runs the batch through QONNX's executor, one onnxruntime session a node."""
    import onnx
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    loaded = onnx.load_from_string(onnx_model(network, True))
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = len(images)
    model = ModelWrapper(loaded).transform(InferShapes())
    return lambda: execute_onnx(model, {IMAGE: images})


def product_limit(size: int = 2048) -> tuple[Callable[[], Any], float]:
    """Return a call of one large product of bytes in PyTorch, and its multiply-accumulates in units of 1e9."""
    import torch

    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (size, size), dtype=torch.uint8, generator=generator)
    weights = torch.randint(-128, 128, (size, size), dtype=torch.int8, generator=generator)
    return lambda: torch._int_mm(codes, weights), size**3 / 1e9


def versions() -> dict[str, str]:
    """Return the versions of what was compared."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "llvmlite", "torch", "onnx", "onnxruntime", "brevitas", "qonnx"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class Contender:
    """An engine at an assignment: a call that runs some images, and the times of its turns."""

    def __init__(self, call: Callable[[], Any], images: int, every: int = 1) -> None:
        self.call, self.images, self.every = call, images, every
        self.wall_seconds: dict[int, float] = {}
        self.processor_seconds: dict[int, float] = {}

    def turn(self, number: int) -> None:
        """Run, and note the seconds of an image."""
        began, used = time.perf_counter(), time.process_time()
        self.call()
        self.wall_seconds[number] = (time.perf_counter() - began) / self.images
        self.processor_seconds[number] = (time.process_time() - used) / self.images

    def ratio_to(self, other: Contender, processor: bool) -> float:
        """Return how many times as fast it is as another one: the median over the rounds that both ran in."""
        ours, theirs = (one.processor_seconds if processor else one.wall_seconds for one in (self, other))
        return float(np.median([theirs[number] / ours[number] for number in ours if number in theirs]))


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="turns of every engine (default 30)")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="backends of ours (default all)")
    parser.add_argument("--threads", type=int, help="of every engine (default: one a core)")
    parser.add_argument("--fast-only", action="store_true", help="leave out Brevitas and QONNX")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()

    threads = arguments.threads or len(os.sched_getaffinity(0))
    network = resnet20(0, CATALOG["8-6-4-2"])
    images = random_images(network.image_shape, BATCH, 1)
    mixed = random_assignment(network, 5)
    assignments = {f"W{bits}A{bits}": uniform_assignment(network, bits) for bits in (8, 4, 2)} | {"mixed": mixed}
    gmacs_per_image = sum(network.macs(layer) for layer in network.weight_layers) / 1e9

    found: dict[tuple[str, str], Contender] = {}
    first_call_seconds: dict[str, float] = {}
    skipped: list[str] = []
    for label, assignment in assignments.items():
        tables = build_requantizers(network, assignment)
        logits = None
        for backend in arguments.backends.split(","):
            try:
                engine = Engine(network, assignment, tables, backend=backend, threads=arguments.threads)
            except ValueError as problem:
                skipped.append(f"bitswitch {backend}: {problem}")
                continue
            began = time.perf_counter()
            made = engine.logits(images)
            first_call_seconds.setdefault(f"bitswitch {backend}", time.perf_counter() - began)
            logits = made if logits is None else logits
            if (made != logits).any():
                raise SystemExit(f"backend {backend} differs at {label}")
            found[f"bitswitch {backend}", label] = Contender(lambda engine=engine: engine.logits(images), BATCH)

    def add(engine: str, label: str, make: Callable[[], Callable[[], Any]], count: int = BATCH, every: int = 1) -> None:
        try:
            found[engine, label] = Contender(make(), count, every)
        except ImportError as missing:
            skipped.append(f"{engine}: {missing.name} is not installed")

    limit_work = 0.0
    add("torch float32", "float32", lambda: torch_engine(network, images))
    add(REFERENCE, "W8A8", lambda: onnxruntime_engine(network, images, True, threads))
    add("onnxruntime float32", "float32", lambda: onnxruntime_engine(network, images, False, threads))
    if not arguments.fast_only:
        add("Brevitas, fake-quantized", "W8A8", lambda: brevitas_engine(network, images[:20]), 20, 10)
        add("QONNX executor", "W8A8", lambda: qonnx_engine(network, images[:5]), 5, 10)
    try:
        import torch

        torch.set_num_threads(threads)
        call, limit_work = product_limit()
        found["int8 limit", "product"] = Contender(call, 1)
    except ImportError:
        skipped.append("int8 limit: PyTorch is not installed")

    floats = [one.call for (_, label), one in found.items() if label == "float32"]
    if len(floats) == 2 and not np.allclose(floats[0](), floats[1](), rtol=1e-2, atol=1e-2):
        raise SystemExit("the float32 engines compute different networks")

    for number in range(-1, arguments.rounds):
        for one in found.values():
            if number % one.every:
                continue
            # Threads of the engine before may still be spinning.
            time.sleep(0.02)
            one.turn(number)
    for one in found.values():
        # The first turn, which warms caches up, does not count.
        for times in (one.wall_seconds, one.processor_seconds):
            times.pop(-1, None)

    limit = None
    if limit_work:
        limit = limit_work / min(found.pop(("int8 limit", "product")).wall_seconds.values())
    reference = found.get((REFERENCE, "W8A8"))
    rows = []
    print(f"ResNet-20, {gmacs_per_image * 1e3:.1f} M MACs an image, batch {BATCH}, {threads} threads")
    print(
        f"{'engine':24} {'assignment':10} {'images/s':>10} {'to onnxruntime int8':>20} {'by processor time':>18} "
        f"{'of int8 limit':>14}"
    )
    for (engine, label), one in found.items():
        rate = 1 / min(one.wall_seconds.values())
        ratio, by_processor = (None if reference is None else one.ratio_to(reference, kind) for kind in (False, True))
        fraction = rate * gmacs_per_image / limit if limit else None
        rows.append(
            {
                "engine": engine,
                "assignment": label,
                "images_per_s": round(rate, 1),
                "ratio_to_onnxruntime_int8": None if ratio is None else round(ratio, 4),
                "ratio_by_processor_time": None if by_processor is None else round(by_processor, 4),
                "fraction_of_int8_limit": None if fraction is None else round(fraction, 4),
            }
        )
        told = ["-" if value is None else f"{value:.3f}" for value in (ratio, by_processor, fraction)]
        print(f"{engine:24} {label:10} {rate:10,.0f} {told[0]:>20} {told[1]:>18} {told[2]:>14}")
    if limit:
        print(f"int8 limit (torch._int_mm, 2048 x 2048 x 2048): {limit:,.0f} GMAC/s")
    for engine, seconds in first_call_seconds.items():
        print(f"first call of {engine}: {seconds:.2f} s")
    for line in skipped:
        print(f"not measured: {line}")
    if arguments.json:
        report = {
            "rows": rows,
            "int8_limit_gmac_per_s": None if limit is None else round(limit, 1),
            "first_call_seconds": {engine: round(seconds, 2) for engine, seconds in first_call_seconds.items()},
            "batch": BATCH,
            "threads": threads,
            "processor_load": os.getloadavg()[0],
            "machine": platform.machine(),
            "rounds": arguments.rounds,
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": " ".join(["python", "benchmarks/integer_model.py", *sys.argv[1:]]),
        }
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
