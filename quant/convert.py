"""Turn a user's model into a switchable network: trace it, match layers, insert the quantizers of the hardware.

Handled: convolution, linear, BatchNorm, ReLU, residual add, max and average pooling, global average pooling and
flatten, in post-activation order (convolution, BatchNorm, [add], ReLU). What is not handled is named with the path of
its module.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hwsim.network import IMAGE, PINNED_BITS, Shape
from hwsim.precision import WidthSet
from quant.assemble import assemble
from quant.layers import (
    CodeQuantizer,
    OutputQuantizer,
    QuantAveragePool2d,
    QuantConv2d,
    QuantLinear,
    QuantMaxPool2d,
    QuantWeightLayer,
    SkipQuantizer,
    SwitchableBatchNorm,
)
from quant.methods import method as find_method
from quant.switchable import QuantLayer, SwitchableNetwork, Wiring, code_widths

ADD_FUNCTIONS = (operator.add, operator.iadd, torch.add)
RELU_FUNCTIONS = (torch.relu, F.relu, torch.relu_, F.relu_)
MAX_POOL_FUNCTIONS = (F.max_pool2d, torch.max_pool2d)
AVERAGE_POOL_FUNCTIONS = (F.avg_pool2d,)
ADAPTIVE_POOL_FUNCTIONS = (F.adaptive_avg_pool2d,)


class UnsupportedModelError(ValueError):
    """A model holds something that has no counterpart in the hardware; the message names where."""


@dataclass
class _Draft:
    """A layer that is being matched; the fields fill as BatchNorm, add and ReLU are met."""

    name: str
    module: nn.Module | None
    input: str
    kind: str
    batch_norm: nn.Module | None = None
    skip: str | None = None
    relu: bool = False
    stored: bool = False
    logits: bool = False
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0

    @property
    def has_weights(self) -> bool:
        return self.kind in ("conv", "linear")

    @property
    def inputs_per_output(self) -> int:
        assert isinstance(self.module, (nn.Conv2d, nn.Linear))
        return self.module.weight.numel() // self.module.weight.shape[0]

    @property
    def unsigned(self) -> bool:
        return self.relu or not self.has_weights


_Value: TypeAlias = "_Draft | str"


def prepare(
    model: nn.Module, method: str, widths: WidthSet | tuple[int, ...], image_shape: Shape | None = None
) -> SwitchableNetwork:
    """Return the switchable network of a float model; weights and BatchNorm parameters are copied, as float32.

    Parameters
    ----------
    model : nn.Module
        Traceable by ``torch.fx``; its one input is the image as code / 255, its output the logits.
    method : str
        How it will be trained, a name in ``quant.methods.METHODS``.
    widths : WidthSet or tuple of int
    image_shape : tuple of int, optional
        (channels, height, width); taken from ``model.image_shape`` if not given.

    Raises
    ------
    UnsupportedModelError
        If the model holds what the hardware has no counterpart for; the message names the module.
    ValueError
        If a width is wrong, the image shape is not known, or the method is unknown or cannot do the widths.
    """
    width_set = widths if isinstance(widths, WidthSet) else WidthSet(tuple(widths))
    find_method(method).check_widths(width_set)
    _check_is_float(model)
    shape = image_shape if image_shape is not None else getattr(model, "image_shape", None)
    if shape is None or len(shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), not {shape!r}")
    parameter = next(model.parameters(), torch.zeros(0))
    converter = _Converter(_traced(model, torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)))
    converter.run()
    network = converter.build(width_set, (int(shape[0]), int(shape[1]), int(shape[2])), method)
    return network.to(device=parameter.device, dtype=torch.float32)


def _check_is_float(model: nn.Module) -> None:
    quantized = (CodeQuantizer, SkipQuantizer, OutputQuantizer, QuantWeightLayer, QuantAveragePool2d, QuantMaxPool2d)
    for path, module in model.named_modules():
        if isinstance(module, quantized):
            raise UnsupportedModelError(
                f"module {path or 'at the top'} ({type(module).__name__}): has its quantizers already; "
                "quant.assemble makes networks of such layers"
            )


def _traced(model: nn.Module, image: Tensor) -> fx.GraphModule:
    """Return the graph of a model with the shape of every value; the model is run, and learns nothing from it."""
    training = model.training
    try:
        model.eval()
        try:
            with torch.no_grad():
                model(image)
        except Exception as error:
            told = str(error).strip().split("\n")[0]
            raise UnsupportedModelError(
                f"the model must accept images of shape {tuple(image.shape[1:])}: {told}"
            ) from error
        try:
            graph = fx.symbolic_trace(model)
        except Exception as error:
            told = str(error).strip().split("\n")[0]
            raise UnsupportedModelError(f"the model must be traceable by torch.fx: {told}") from error
        ShapeProp(graph).propagate(image)
        return graph
    finally:
        model.train(training)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _square(value: Any, where: str, what: str) -> int:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1] or not isinstance(pair[0], int):
        raise UnsupportedModelError(f"{where}: {what} must be the same integer in both directions, not {value!r}")
    return pair[0]


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, (tuple, list)) else (int(value), int(value))


class _Converter:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.values: dict[fx.Node, _Value] = {}
        self.shapes: dict[str, Shape] = {}
        self.layers: list[_Draft] = []
        self.by_name: dict[str, _Draft] = {}

    def run(self) -> None:
        """Visit the nodes in execution order."""
        visit: dict[str, Callable[[fx.Node], None]] = {
            "placeholder": self.visit_placeholder,
            "call_module": self.visit_module,
            "call_function": self.visit_function,
            "call_method": self.visit_method,
            "output": self.visit_output,
        }
        for node in self.graph.graph.nodes:
            if node.op not in visit:
                raise UnsupportedModelError(f"{self.where(node)}: a bare parameter or buffer is not supported")
            visit[node.op](node)

    def where(self, node: fx.Node) -> str:
        """Return the path of the module that a node belongs to, and what it does there."""
        if node.op == "call_module":
            return f"module {node.target} ({type(self.graph.get_submodule(str(node.target))).__name__})"
        stack = node.meta.get("nn_module_stack")
        path = next(reversed(stack.values()))[0] if stack else ""
        told = getattr(node.target, "__name__", str(node.target))
        return f"module {path or 'at the top'}: {told}"

    def visit_placeholder(self, node: fx.Node) -> None:
        if self.values:
            raise UnsupportedModelError(f"the model must have one input, not also {node.target}")
        self.values[node] = IMAGE

    def visit_module(self, node: fx.Node) -> None:
        module = self.graph.get_submodule(str(node.target))
        where = self.where(node)
        if isinstance(module, nn.Identity):
            self.values[node] = self.value(self.source(node), node)
        elif isinstance(module, nn.Conv2d):
            self.add_conv(node, module, where)
        elif isinstance(module, nn.Linear):
            self.add_weights(node, module, "linear", where)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            self.add_batch_norm(node, module, where)
        elif type(module) is nn.ReLU:
            self.add_relu(node, where)
        elif isinstance(module, nn.MaxPool2d):
            options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
            self.add_max_pool(node, where, *options, module.return_indices)
        elif isinstance(module, nn.AvgPool2d):
            self.add_average_pool(
                node,
                where,
                module.kernel_size,
                module.stride,
                module.padding,
                module.ceil_mode,
                module.divisor_override,
            )
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            self.add_global_pool(node, where, module.output_size)
        elif isinstance(module, nn.Flatten):
            self.add_flatten(node, where)
        else:
            raise UnsupportedModelError(f"{where}: is not supported")

    def visit_function(self, node: fx.Node) -> None:
        where = self.where(node)
        if node.target in ADD_FUNCTIONS:
            self.add_residual(node, where)
        elif node.target in RELU_FUNCTIONS:
            self.add_relu(node, where)
        elif node.target is torch.flatten:
            self.add_flatten(node, where)
        elif node.target is torch.mean:
            self.add_mean(node, where)
        elif node.target in ADAPTIVE_POOL_FUNCTIONS:
            self.add_global_pool(node, where, self.argument(node, 1, "output_size", None))
        elif node.target in AVERAGE_POOL_FUNCTIONS:
            kernel = self.argument(node, 1, "kernel_size", None)
            stride = self.argument(node, 2, "stride", None)
            padding, ceil_mode = self.argument(node, 3, "padding", 0), self.argument(node, 4, "ceil_mode", False)
            divisor = self.argument(node, 6, "divisor_override", None)
            self.add_average_pool(node, where, kernel, stride or kernel, padding, ceil_mode, divisor)
        elif node.target in MAX_POOL_FUNCTIONS:
            kernel = self.argument(node, 1, "kernel_size", None)
            stride = self.argument(node, 2, "stride", None)
            padding, dilation = self.argument(node, 3, "padding", 0), self.argument(node, 4, "dilation", 1)
            ceil_mode = self.argument(node, 5, "ceil_mode", False)
            indices = self.argument(node, 6, "return_indices", False)
            self.add_max_pool(node, where, kernel, stride or kernel, padding, dilation, ceil_mode, indices)
        elif node.target in (getattr, operator.getitem, operator.mul):
            self.skip_size(node, where)
        else:
            raise UnsupportedModelError(f"{where}: is not supported")

    def visit_method(self, node: fx.Node) -> None:
        where = self.where(node)
        if node.target in ("add", "add_", "__add__"):
            self.add_residual(node, where)
        elif node.target in ("relu", "relu_"):
            self.add_relu(node, where)
        elif node.target in ("flatten", "view", "reshape"):
            self.add_flatten(node, where)
        elif node.target == "mean":
            self.add_mean(node, where)
        elif node.target in ("contiguous", "clone"):
            self.values[node] = self.value(self.source(node), node)
        elif node.target == "size":
            self.skip_size(node, where)
        else:
            raise UnsupportedModelError(f"{where}: is not supported")

    def visit_output(self, node: fx.Node) -> None:
        source = node.args[0]
        if not isinstance(source, fx.Node) or not isinstance(self.values.get(source), _Draft):
            raise UnsupportedModelError("the model must return one tensor, the output of its last layer")
        draft = self.values[source]
        assert isinstance(draft, _Draft)
        if not draft.has_weights or draft.relu or draft.skip or draft.stored:
            raise UnsupportedModelError(
                f"module {draft.name}: the last layer must be a linear layer or a convolution whose output is returned"
            )
        draft.logits = True
        self.store(draft)
        for other in self.values.values():
            if isinstance(other, _Draft) and not other.stored:
                raise UnsupportedModelError(f"module {other.name}: nothing reads its output")

    @staticmethod
    def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
        """Return an argument of a function call by position or name."""
        return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)

    def source(self, node: fx.Node) -> fx.Node:
        """Return the tensor that a call reads, its first argument or the one called ``input``."""
        source = self.argument(node, 0, "input", None)
        if not isinstance(source, fx.Node):
            raise UnsupportedModelError(f"{self.where(node)}: its input must be a tensor of the network")
        return source

    def skip_size(self, node: fx.Node, where: str) -> None:
        """Pass over arithmetic on sizes, which only feeds a reshape."""
        if "tensor_meta" in node.meta and node.target is not getattr:
            raise UnsupportedModelError(f"{where}: is not supported")

    def value(self, source: Any, node: fx.Node) -> _Value:
        """Return the value of an argument."""
        if not isinstance(source, fx.Node) or source not in self.values:
            raise UnsupportedModelError(f"{self.where(node)}: its input must be a tensor of the network")
        return self.values[source]

    def stored_input(self, source: Any, node: fx.Node) -> str:
        """Return the tensor whose code a layer reads, storing it if that is still to be done."""
        value = self.value(source, node)
        if isinstance(value, str):
            return value
        if not value.unsigned:
            raise UnsupportedModelError(
                f"{self.where(node)}: reads the output of {value.name}, which needs a ReLU, "
                "because activation codes are unsigned"
            )
        self.store(value)
        return value.name

    def store(self, draft: _Draft) -> None:
        """Close a layer: it takes its place in execution order."""
        if not draft.stored:
            draft.stored = True
            self.layers.append(draft)

    def open_draft(self, source: Any, node: fx.Node, what: str) -> _Draft:
        """Return the layer that a BatchNorm or ReLU belongs to."""
        value = self.value(source, node)
        if not isinstance(value, _Draft) or not value.has_weights or value.stored or value.relu:
            told = value if isinstance(value, str) else value.name
            raise UnsupportedModelError(
                f"{self.where(node)}: {what} must follow a convolution or linear layer directly, not {told}"
            )
        assert isinstance(source, fx.Node)
        if len(source.users) > 1:
            raise UnsupportedModelError(
                f"{self.where(node)}: the output of {value.name} is also used before {what}, so it would need "
                "another rounding"
            )
        return value

    def new(self, node: fx.Node, name: str, draft: _Draft) -> None:
        """Enter a new layer."""
        if name in self.by_name or name == IMAGE:
            raise UnsupportedModelError(f"module {name}: is called twice or has a name that is taken")
        shape = _shape(node)
        self.shapes[name] = (shape[1], shape[2], shape[3]) if len(shape) == 4 else (shape[1], 1, 1)
        self.by_name[name] = draft
        self.values[node] = draft

    def add_conv(self, node: fx.Node, module: nn.Conv2d, where: str) -> None:
        if module.groups != 1:
            raise UnsupportedModelError(f"{where}: groups must be 1, not {module.groups}")
        if _square(module.dilation, where, "dilation") != 1:
            raise UnsupportedModelError(f"{where}: dilation must be 1, not {module.dilation}")
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            raise UnsupportedModelError(f"{where}: padding must be a number of zeros, not {module.padding!r}")
        stride, padding = _square(module.stride, where, "stride"), _square(module.padding, where, "padding")
        if padding >= min(module.kernel_size):
            raise UnsupportedModelError(f"{where}: padding must be less than the kernel, not {padding}")
        self.add_weights(node, module, "conv", where, stride, padding)

    def add_weights(
        self, node: fx.Node, module: nn.Module, kind: str, where: str, stride: int = 1, padding: int = 0
    ) -> None:
        source = self.source(node)
        if kind == "linear" and len(_shape(source)) != 2:
            raise UnsupportedModelError(f"{where}: its input must be flattened, not of shape {_shape(source)}")
        name = str(node.target)
        draft = _Draft(name, module, self.stored_input(source, node), kind, stride=stride, padding=padding)
        self.new(node, name, draft)

    def add_batch_norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d, where: str) -> None:
        draft = self.open_draft(self.source(node), node, "BatchNorm")
        if draft.batch_norm is not None or draft.skip is not None:
            raise UnsupportedModelError(f"{where}: must follow a convolution or linear layer directly")
        if not module.affine or not module.track_running_stats:
            raise UnsupportedModelError(f"{where}: must have affine parameters and running statistics")
        draft.batch_norm = module
        self.values[node] = draft

    def add_relu(self, node: fx.Node, where: str) -> None:
        draft = self.open_draft(self.source(node), node, "ReLU")
        draft.relu = True
        self.values[node] = draft

    def add_residual(self, node: fx.Node, where: str) -> None:
        operands = node.args
        if len(operands) != 2 or node.kwargs:
            raise UnsupportedModelError(f"{where}: an add must have two tensors and nothing else")
        values = [self.value(operand, node) for operand in operands]
        if values[0] is values[1]:
            raise UnsupportedModelError(f"{where}: adds a tensor to itself")
        main = self.main_path(node, values)
        if main is None:
            raise UnsupportedModelError(
                f"{where}: one operand of an add must be the unrounded output of a convolution or linear layer, "
                "used nowhere else"
            )
        skip = values[1] if main is values[0] else values[0]
        if not isinstance(skip, _Draft) or skip.kind == "max_pool":
            told = skip if isinstance(skip, str) else skip.name
            raise UnsupportedModelError(f"{where}: {told} stores no skip code and cannot be added")
        if self.shapes[skip.name] != self.shapes[main.name]:
            raise UnsupportedModelError(
                f"{where}: both operands must have one shape, not {self.shapes[skip.name]} and {self.shapes[main.name]}"
            )
        self.store(skip)
        main.skip = skip.name
        self.values[node] = main

    def main_path(self, node: fx.Node, values: list[_Value]) -> _Draft | None:
        """Return the operand that takes the add into itself: the one with the larger kernel where both can."""
        candidates = []
        for operand, value in zip(node.args, values, strict=True):
            if not isinstance(value, _Draft) or not value.has_weights or value.stored or value.relu:
                continue
            if value.skip is not None or (isinstance(operand, fx.Node) and len(operand.users) > 1):
                continue
            candidates.append(value)
        if not candidates:
            return None
        return max(candidates, key=lambda draft: draft.inputs_per_output)

    def pool_name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def add_max_pool(
        self,
        node: fx.Node,
        where: str,
        kernel: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil_mode: Any,
        return_indices: Any,
    ) -> None:
        if ceil_mode or return_indices or _square(dilation, where, "dilation") != 1:
            raise UnsupportedModelError(f"{where}: ceil_mode, return_indices and dilation are not supported")
        name, source = self.pool_name(node), self.stored_input(self.source(node), node)
        if source == IMAGE:
            raise UnsupportedModelError(f"{where}: the image must be read by a convolution or linear layer first")
        draft = _Draft(name, None, source, "max_pool", kernel=_pair(kernel), stored=True)
        draft.stride, draft.padding = _square(stride, where, "stride"), _square(padding, where, "padding")
        self.new(node, name, draft)
        self.layers.append(draft)

    def add_average_pool(
        self, node: fx.Node, where: str, kernel: Any, stride: Any, padding: Any, ceil_mode: Any, divisor: Any
    ) -> None:
        if ceil_mode or _square(padding, where, "padding") != 0:
            raise UnsupportedModelError(f"{where}: average pooling must have no padding and no ceil_mode")
        if divisor is not None:
            raise UnsupportedModelError(f"{where}: average pooling must divide by its size, not by {divisor!r}")
        name, source = self.pool_name(node), self.stored_input(self.source(node), node)
        if source == IMAGE:
            raise UnsupportedModelError(f"{where}: the image must be read by a convolution or linear layer first")
        draft = _Draft(name, None, source, "average_pool", kernel=_pair(kernel), stored=True)
        draft.stride = _square(stride, where, "stride")
        self.new(node, name, draft)
        self.layers.append(draft)

    def add_global_pool(self, node: fx.Node, where: str, output_size: Any) -> None:
        if _pair(output_size if output_size is not None else 0) != (1, 1):
            raise UnsupportedModelError(f"{where}: adaptive pooling must have output size 1, not {output_size!r}")
        size = _shape(self.source(node))[2:]
        self.add_average_pool(node, where, size, max(size), 0, False, None)

    def add_mean(self, node: fx.Node, where: str) -> None:
        dimensions = self.argument(node, 1, "dim", None)
        if len(_shape(self.source(node))) != 4 or not isinstance(dimensions, (tuple, list)):
            raise UnsupportedModelError(f"{where}: a mean must be over height and width")
        if sorted(dimension % 4 for dimension in dimensions) != [2, 3]:
            raise UnsupportedModelError(f"{where}: a mean must be over height and width, not {dimensions!r}")
        self.add_global_pool(node, where, 1)

    def add_flatten(self, node: fx.Node, where: str) -> None:
        source = self.source(node)
        shape = _shape(source)
        if _shape(node) != (shape[0], prod(shape[1:])):
            raise UnsupportedModelError(
                f"{where}: must flatten everything but the batch, not {shape} to {_shape(node)}"
            )
        self.values[node] = self.value(source, node)

    def build(self, width_set: WidthSet, image_shape: Shape, method: str) -> SwitchableNetwork:
        """Return the network of the matched layers."""
        readers = {
            tensor: tuple(draft.name for draft in self.layers if draft.input == tensor)
            for tensor in (IMAGE, *(draft.name for draft in self.layers))
        }

        def is_pinned(name: str) -> bool:
            draft = self.by_name[name]
            return draft.has_weights and (draft.input == IMAGE or draft.logits)

        def is_max_pool(name: str) -> bool:
            return self.by_name[name].kind == "max_pool"

        layers: dict[str, QuantLayer] = {}
        for draft in self.layers:
            if draft.kind == "max_pool":
                layers[draft.name] = QuantMaxPool2d(draft.kernel, draft.stride, draft.padding)
                continue
            output = None
            if not draft.logits:
                output = OutputQuantizer(
                    code_widths(draft.name, readers, is_max_pool, is_pinned, width_set),
                    feeds_add=any(other.skip == draft.name for other in self.layers),
                    signed=not draft.unsigned,
                )
            if draft.kind == "average_pool":
                assert output is not None
                layers[draft.name] = QuantAveragePool2d(draft.kernel, draft.stride, output)
            else:
                layers[draft.name] = _weight_layer(draft, width_set, is_pinned(draft.name), output)
        wiring = {draft.name: Wiring(input=draft.input, skip=draft.skip) for draft in self.layers}
        return assemble(layers, wiring, width_set, image_shape, method=method)


def _weight_layer(draft: _Draft, width_set: WidthSet, pinned: bool, output: OutputQuantizer | None) -> QuantLayer:
    module = draft.module
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    batch_norm = None
    if draft.batch_norm is not None:
        assert isinstance(draft.batch_norm, (nn.BatchNorm1d, nn.BatchNorm2d))
        widths = (PINNED_BITS,) if pinned else width_set.widths
        batch_norm = SwitchableBatchNorm.from_float(draft.batch_norm, widths)
    bias: Tensor | None = module.bias
    common: dict[str, Any] = {
        "weight": module.weight,
        "bias": bias,
        "batch_norm": batch_norm,
        "relu": draft.relu,
        "stored_bits": PINNED_BITS if pinned else width_set.highest,
        "output": output,
    }
    if isinstance(module, nn.Conv2d):
        return QuantConv2d(stride=draft.stride, padding=draft.padding, **common)
    return QuantLinear(**common)
