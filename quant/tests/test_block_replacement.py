import pytest
import torch
import torch.nn.functional as F

from hwsim.network import IMAGE_SCALE
from quant import data
from quant.block_replacement import BlockReplacement, FloatPartner, block_ends
from quant.convert import prepare
from quant.double_rounding import initialise_scales
from quant.switchable import set_width
from quant.tests.conftest import small_model


@pytest.fixture
def batch():
    images, labels = data.load_digits()
    return torch.from_numpy(images[:16]), torch.from_numpy(labels[:16])


def test_the_partner_is_the_float_network(batch):
    model = small_model().eval()
    partner = FloatPartner(prepare(model, "double-rounding", (8, 2)))
    with torch.no_grad():
        assert torch.allclose(partner(batch[0]), model(batch[0] * IMAGE_SCALE), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in partner.parameters())
    assert not partner.train().model.training


def test_blocks_end_where_one_tensor_carries_all():
    model = prepare(small_model(), "double-rounding", (8, 2))
    assert block_ends(model) == ("conv", "blocks.0.conv2", "blocks.1.conv2", "pool")


def test_mixed_models_are_quantized_up_to_a_block_and_float_after_it(batch):
    model = prepare(small_model(), "double-rounding", (8, 2))
    initialise_scales(model, batch[0])
    partner = FloatPartner(model)
    stored = {}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    logits = set_width(model.eval(), 2)(batch[0], stored=stored)
    last = model.layer("linear")
    expected = F.linear(stored["pool"].code.flatten(1), last.weight, last.bias)
    assert torch.allclose(partner.complete(stored, "pool"), expected, atol=1e-5)
    assert torch.allclose(partner.complete(stored, "pool"), logits, atol=0.1)
    distances = [float((partner.complete(stored, end) - partner(batch[0])).abs().mean()) for end in block_ends(model)]
    assert distances[0] < distances[-1]
    assert distances[0] < distances[1] < distances[2]


def test_guidance_reaches_the_quantized_blocks_and_not_the_partner(batch):
    model = prepare(small_model(), "double-rounding", (8, 2))
    initialise_scales(model, batch[0])
    guided = BlockReplacement(
        model.train(),
        FloatPartner(prepare(small_model(), "double-rounding", (8, 2))),
        0.5,
        torch.Generator().manual_seed(0),
    )
    before = {name: value.clone() for name, value in guided.partner.state_dict().items()}
    loss, logits = guided(2, *batch)
    assert loss.item() > F.cross_entropy(logits, batch[1]).item()
    loss.backward()
    assert float(model.layer("conv").weight.grad.abs().max()) > 0
    assert all(torch.equal(value, before[name]) for name, value in guided.partner.state_dict().items())
    assert all(parameter.grad is None for parameter in guided.partner.parameters())


def test_an_unquantized_copy_has_nothing_to_learn_from_its_partner(batch):
    model = prepare(small_model(), "double-rounding", (8, 2))
    partner = FloatPartner(model)
    teacher = partner(batch[0]).log_softmax(1)
    assert float(F.kl_div(teacher, teacher, log_target=True, reduction="batchmean")) == 0
    with pytest.raises(ValueError, match="the weight of block replacement must be positive, not 0"):
        BlockReplacement(model, partner, 0, torch.Generator())
