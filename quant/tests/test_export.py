import numpy as np
import pytest
import torch

from hwsim import network_file, spec
from hwsim.precision import CATALOG
from hwsim.requantize import switched_weights
from quant import functional
from quant.convert import prepare
from quant.export import export_network
from quant.tests.conftest import small_model


def test_the_network_holds_the_codes_that_training_computed_with(trained):
    network = export_network(trained)
    compared = 0
    for name, layer in trained.weight_layers():
        exported = network.layer(name)
        for bits in (8,) if trained.is_pinned(name) else trained.width_set:
            weight = functional.double_rounding(layer.weight, layer.weight_scale, layer.stored_bits, bits)
            step = exported.weight_scale * np.float32(2.0 ** spec.switch_scale_exponent(exported.stored_bits, bits))
            codes = switched_weights(exported, bits)
            shape = (-1, *(1,) * (codes.ndim - 1))
            assert np.array_equal(codes.astype(np.float32) * step.reshape(shape), weight.detach().numpy())
            compared += codes.size
    assert compared > 900


def test_real_parameters_are_exported_bit_for_bit(trained):
    network = export_network(trained, {"made": "here"})
    assert network.provenance == {"made": "here"} and network.width_set == trained.width_set
    for name, layer in trained.weight_layers():
        exported = network.layer(name)
        assert exported.weight_scale.tobytes() == layer.weight_scale.detach().numpy().tobytes()
        if layer.batch_norm is None:
            assert exported.batch_norms == {} and exported.bias is not None
            continue
        for bits, norm in exported.batch_norms.items():
            module = layer.batch_norm.set_at(bits)
            assert norm.mean.tobytes() == module.running_mean.numpy().tobytes()
            assert norm.gamma.tobytes() == module.weight.detach().numpy().tobytes()
        if layer.output.code is not None:
            for bits in layer.output.code.widths:
                assert exported.output.code[bits] == layer.output.code.scale(bits).item()


def test_it_survives_the_network_file(trained, tmp_path):
    network = export_network(trained)
    network_file.save(network, tmp_path / "network.safetensors")
    loaded = network_file.load(tmp_path / "network.safetensors")
    for name, _ in trained.weight_layers():
        assert np.array_equal(loaded.layer(name).codes, network.layer(name).codes)


def test_broken_parameters_are_refused_by_name():
    model = prepare(small_model(), "double-rounding", CATALOG["8-4"])
    model.layer("blocks.0.conv1").output.code.scale(4).data.fill_(-1.0)
    with pytest.raises(ValueError, match=r"layer blocks.0.conv1: the scale at 4 bits must be positive"):
        export_network(model)
    model = prepare(small_model(), "double-rounding", CATALOG["8-4"])
    model.layer("conv").weight_scale.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"layer conv: the weight scale must be finite"):
        export_network(model)
