import torch

from hwsim import spec
from quant.convert import prepare
from quant.export import export_network
from quant.tests.conftest import small_model


def test_training_export_and_spec_agree_on_every_weight():
    model = prepare(small_model(), "truncation-ready", (8, 4, 2))
    network = export_network(model)
    compared = 0
    for name, layer in model.weight_layers():
        assert network.layer(name).switch_rule == ("round" if model.is_pinned(name) else "floor")
        if model.is_pinned(name):
            continue
        for bits in (8, 4, 2):
            stored = network.layer(name).codes.reshape(-1)
            step = layer.weight_scale.detach() * 2.0 ** (8 - bits)
            codes = (layer.quantized_weight(bits).detach().flatten(1) / step[:, None]).round()
            expected = [spec.switch_floor(int(code), 8, bits) for code in stored]
            assert codes.flatten().to(torch.int64).tolist() == expected
            compared += len(expected)
    assert compared > 1000
