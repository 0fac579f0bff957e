"""Training away from the CPU, checked where there is no other device: with tensors that have a device and no values."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from hwsim.precision import WidthSet
from quant import layers, sdq
from quant.block_replacement import FloatPartner
from quant.convert import prepare
from quant.epochs import FloatTraining, JointTraining
from quant.methods import METHODS
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, train_network

ACCELERATOR = "pretended:0"
SHARED = {"joint_epochs": 2, "float_epochs": 1, "batch_size": 16, "compare_float": False, "channels_last": True}


@functools.cache
def registered():
    """Tell PyTorch of the accelerator, once in a process."""
    _setup_privateuseone_for_python_backend("pretended")


class _Readings(TorchDispatchMode):
    """Whatever Python reads out of a tensor is 4.0, 1 or True; a count has 256 entries."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return 4.0 if dtype.is_floating_point else dtype == torch.bool or 1
        if function is torch.ops.aten.bincount.default:
            return args[0].new_zeros(256)
        return function(*args, **(kwargs or {}))


def to(module, device=None, dtype=None, memory_format=None):
    """``nn.Module.to`` with new parameters and buffers: PyTorch's exchanges their contents, which have none here."""
    for each in module.modules():
        for tensors, make in ((each._parameters, torch.nn.Parameter), (each._buffers, lambda tensor: tensor)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    wanted = dtype if tensor.is_floating_point() else None
                    moved = torch.zeros(tensor.shape, dtype=wanted or tensor.dtype, device=device or tensor.device)
                    tensors[name] = make(moved)
    return module


@contextmanager
def accelerator(monkeypatch) -> Iterator[None]:
    """Every operator refuses tensors of several devices, as that of a real accelerator does."""
    registered()
    # The search of sdq keeps its few numbers on the CPU, and reads them as an array.
    monkeypatch.setattr(sdq, "lowered", lambda bits, *others: bits)
    # Of the many scales that are tried, one is enough here.
    monkeypatch.setattr(layers.best_scale, "__defaults__", (1,))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: [one.item() for one in tensor.unbind()])
    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)
    with torch.autograd.set_multithreading_enabled(False), FakeTensorMode(), _Readings():
        yield


def digits():
    return (
        torch.zeros(16, 1, 8, 8, dtype=torch.uint8, device=ACCELERATOR),
        torch.zeros(16, dtype=torch.int64, device=ACCELERATOR),
    )


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("method", METHODS)
def test_joint_training_stays_on_the_device_of_model_and_images(method, monkeypatch):
    config = TrainingConfig(
        method=method,
        widths=WidthSet((4,)) if method == "lsq" else WidthSet((8, 4, 2)),
        self_distillation=0.0 if METHODS[method].own_teacher else 0.7,
        block_replacement=0.5,
        bfloat16=True,
        **SHARED,
    )
    narrowed = set()
    monkeypatch.setattr(
        torch, "autocast", lambda device, dtype, enabled: narrowed.add((device, enabled)) or nullcontext()
    )
    with accelerator(monkeypatch):
        float_model = small_model().to(ACCELERATOR)
        images, labels = digits()
        FloatTraining.begin(float_model, config, 1).run_epoch(images, labels, 0)
        partner = FloatPartner(prepare(float_model, method, config.widths))
        training = JointTraining.begin(prepare(float_model, method, config.widths), images, labels, config, partner)
        training.run_epoch(images, labels, 0)
        resumed = JointTraining.begin(prepare(float_model, method, config.widths), images, labels, config, partner)
        resumed.load_state(training.state())
        resumed.run_epoch(images, labels, 1)
        resumed.finish()
        assert {str(tensor.device) for tensor in resumed.model.state_dict().values()} == {ACCELERATOR}
        assert not resumed.model.fused
    assert narrowed == {(torch.device(ACCELERATOR).type, True)}


def test_a_device_that_is_not_there_is_refused():
    config = replace(TrainingConfig(), **SHARED)
    with pytest.raises(ValueError, match="the device must be one that this PyTorch can use, not 'abacus'"):
        train_network(config, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="the device must be one that this PyTorch can use, not 'cuda'"):
            train_network(config, device="cuda")
