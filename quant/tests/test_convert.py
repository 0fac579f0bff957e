import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsim import engine
from hwsim.assignments import mixed_assignments, uniform_assignments
from hwsim.network import AveragePool2d, Conv2d, Linear, MaxPool2d
from hwsim.requantize import build_requantizers
from quant.convert import UnsupportedModelError, prepare
from quant.deploy import deployed_forward
from quant.double_rounding import initialise_scales
from quant.export import export_network
from quant.switchable import set_width


class Everything(nn.Module):
    """Every kind of layer that prepare knows, written as users write them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=True), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.same = nn.Identity()
        self.other = nn.Conv2d(4, 4, 1)
        self.hidden = nn.Linear(16, 12)
        self.norm = nn.BatchNorm1d(12)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = self.pool(self.first(x))
        y = F.relu(self.branch(x) + self.same(self.other(x)))
        y = F.avg_pool2d(y, 2)
        x = F.max_pool2d(y, kernel_size=2, stride=1)
        x = x.view(x.size(0), -1)
        x = torch.relu(self.norm(self.hidden(x)))
        return self.last(x)


@pytest.fixture
def prepared():
    torch.manual_seed(3)
    model = prepare(Everything(), "double-rounding", (8, 4, 2), (2, 12, 12))
    initialise_scales(model, torch.randint(0, 256, (32, 2, 12, 12), dtype=torch.uint8))
    return model


def test_every_kind_of_layer_is_found_with_its_name(prepared):
    network = export_network(prepared)
    assert [(layer.name, type(layer)) for layer in network] == [
        ("first.0", Conv2d),
        ("pool", MaxPool2d),
        ("other", Conv2d),
        ("branch", Conv2d),
        ("avg_pool2d", AveragePool2d),
        ("max_pool2d", MaxPool2d),
        ("hidden", Linear),
        ("last", Linear),
    ]
    assert network.layer("branch").skip == "other" and network.layer("branch").relu
    assert network.skip_range("other") == (-128, 127)
    assert network.layer("first.0").bias is not None and list(network.layer("first.0").batch_norms) == [8]
    assert sorted(network.layer("hidden").batch_norms) == [2, 4, 8] and network.layer("last").batch_norms == {}


def test_every_kind_of_layer_runs_to_the_same_integers(prepared):
    network = export_network(prepared)
    images = torch.randint(0, 256, (16, 2, 12, 12), dtype=torch.uint8).numpy()
    compared = 0
    for assignment in (*uniform_assignments(network), *mixed_assignments(network)):
        tables = build_requantizers(network, assignment)
        expected = engine.run(network, assignment, tables, images)
        found = deployed_forward(prepared, assignment, tables, images)
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert (found[key] == values).all() and found[key].dtype == values.dtype
            compared += values.size
    assert compared > 10_000


def test_a_wide_prepared_network_approximates_the_float_model():
    torch.manual_seed(4)
    model = Everything()
    images = torch.randint(0, 256, (64, 2, 12, 12), dtype=torch.uint8)
    model.train()
    for _ in range(30):
        model(images / 255)
    prepared = prepare(model.eval(), "double-rounding", (8,), (2, 12, 12))
    initialise_scales(prepared, images)
    expected, found = model(images / 255).detach(), prepared.eval()(images).detach()
    assert float((expected - found).abs().mean()) < 0.05 * float(expected.std())


def test_the_model_and_its_batch_norm_are_left_as_they_were():
    model = Everything().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared = prepare(model, "double-rounding", (8, 2), (2, 12, 12))
    set_width(prepared, 2)(torch.randint(0, 256, (4, 2, 12, 12), dtype=torch.uint8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_in_double_precision_becomes_float32():
    prepared = prepare(Everything().double(), "double-rounding", (8, 2), (2, 12, 12))
    assert {tensor.dtype for tensor in prepared.state_dict().values()} == {torch.float32, torch.int64}
    export_network(prepared)


def test_a_global_mean_is_global_average_pooling():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.last(torch.relu(self.conv(x)).mean((-2, -1)))

    network = export_network(prepare(Model(), "double-rounding", (8,), (1, 6, 6)))
    assert network.layer("mean").kernel == (4, 4)


def test_the_projection_is_the_skip_whichever_operand_comes_first():
    class Model(nn.Module):
        def __init__(self, swapped):
            super().__init__()
            self.swapped = swapped
            self.first = nn.Conv2d(1, 3, 3, padding=1)
            self.wide, self.projection = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
            self.last = nn.Conv2d(3, 2, 8)

        def forward(self, x):
            x = torch.relu(self.first(x))
            a, b = (self.projection(x), self.wide(x)) if self.swapped else (self.wide(x), self.projection(x))
            return self.last(torch.relu(a + b))

    for swapped in (False, True):
        network = export_network(prepare(Model(swapped), "double-rounding", (8,), (1, 8, 8)))
        assert network.layer("wide").skip == "projection"


class Wrapped(nn.Module):
    """A first convolution, a body in the middle, and a last layer."""

    def __init__(self, body):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.body = body
        self.last = nn.LazyLinear(3)

    def forward(self, x):
        return self.last(torch.flatten(self.body(torch.relu(self.first(x))), 1))


class Body(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.indexed = nn.BatchNorm2d(4), nn.MaxPool2d(2, return_indices=True)

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sigmoid()), r"module body.1 \(Sigmoid\): is not supported"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU6()), r"module body.1 \(ReLU6\): is not supported"),
        (nn.Conv2d(4, 4, 3, groups=2), r"module body \(Conv2d\): groups must be 1, not 2"),
        (nn.Conv2d(4, 4, 3, dilation=2), r"module body \(Conv2d\): dilation must be 1, not \(2, 2\)"),
        (nn.Conv2d(4, 4, 3, stride=(1, 2)), r"module body \(Conv2d\): stride must be the same integer in both"),
        (nn.Conv2d(4, 4, 3, padding="same"), r"module body \(Conv2d\): padding must be a number of zeros, not 'same'"),
        (nn.Conv2d(4, 4, 3, padding=3), r"module body \(Conv2d\): padding must be less than the kernel, not 3"),
        (nn.Conv2d(4, 4, 3), "reads the output of body, which needs a ReLU, because activation codes are unsigned"),
        (nn.BatchNorm2d(4), r"module body \(BatchNorm2d\): BatchNorm must follow a convolution or linear"),
        (nn.AvgPool2d(2, padding=1), r"module body \(AvgPool2d\): average pooling must have no padding"),
        (nn.MaxPool2d(2, ceil_mode=True), r"module body \(MaxPool2d\): ceil_mode, return_indices and dilation are not"),
        (Body(lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0]), "module body: .*: is not supported"),
        (Body(lambda m, x: m.indexed(x)[0]), "ceil_mode, return_indices and dilation are not"),
        (nn.AvgPool2d(2, divisor_override=1), r"module body \(AvgPool2d\): average pooling must divide by its size"),
        (Body(lambda m, x: F.avg_pool2d(x, 2, divisor_override=3)), "must divide by its size, not by 3"),
        (nn.AdaptiveAvgPool2d(2), r"module body \(AdaptiveAvgPool2d\): adaptive pooling must have output size 1"),
        (Body(lambda m, x: torch.sigmoid(m.conv(x))), r"module body: sigmoid: is not supported"),
        (Body(lambda m, x: x * 2), r"module body: mul: is not supported"),
        (Body(lambda m, x: torch.relu(m.conv(x) + 1)), "module body: add: its input must be a tensor of the network"),
        (Body(lambda m, x: x + x), "module body: add: adds a tensor to itself"),
        (Body(lambda m, x: torch.relu(m.conv(torch.relu(m.conv(x))))), "module body.conv: is called twice"),
        (Body(lambda m, x: torch.relu(m.norm(m.conv(x) + x))), "norm.*must follow a convolution or linear"),
        (Body(lambda m, x: F.max_pool2d(x, 2) + torch.relu(m.conv(F.max_pool2d(x, 2)))),
         "one operand of an add must be the unrounded output"),
        (Body(lambda m, x: torch.relu(F.max_pool2d(x, 2) + m.conv(F.max_pool2d(x, 2)))),
         "max_pool2d stores no skip code and cannot be added"),
        (Body(lambda m, x: (lambda y: torch.relu(m.norm(y)) + torch.relu(m.conv2(torch.relu(y))))(m.conv(x))),
         "is also used before BatchNorm"),
        (Body(lambda m, x: torch.relu(torch.add(m.conv(x), x, alpha=2))), "an add must have two tensors"),
        (Body(lambda m, x: x.mean(1, keepdim=True)), "module body: mean: a mean must be over height and width"),
        (Body(lambda m, x: x if x.sum() > 0 else m.conv(x)), "must be traceable by torch.fx"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_is_named(body, message):
    model = Wrapped(body)
    with torch.no_grad():
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UnsupportedModelError, match=message):
        prepare(model, "double-rounding", (8, 2), (1, 8, 8))


def test_inputs_may_be_named_and_layers_called_as_they_like():
    class Named(nn.Module):
        """Every layer has the name of something that a ModuleDict has."""

        def __init__(self):
            super().__init__()
            self.keys, self.items, self.pop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(36, 3)

        def forward(self, x):
            x = F.relu(input=self.items(input=self.keys(input=x)))
            return self.pop(input=torch.flatten(input=F.max_pool2d(input=x, kernel_size=2), start_dim=1))

    torch.manual_seed(0)
    model = Named().eval()
    network = prepare(model, "double-rounding", (8, 2), (1, 8, 8))
    assert network.names[0] == "keys" and network.names[-1] == "pop"
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    initialise_scales(network, images)
    expected, found = model(images / 255).detach(), network.eval()(images).detach()
    assert float((found - expected).norm() / expected.norm()) < 0.05
    exported = export_network(network)
    assert [layer.name for layer in exported.weight_layers] == ["keys", "pop"]


def test_a_last_layer_with_an_activation_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 2, 3), nn.Linear(72, 2)

        def forward(self, x):
            return torch.relu(self.last(torch.relu(self.first(x)).flatten(1)))

    with pytest.raises(UnsupportedModelError, match="module last: the last layer must be a linear layer or a conv"):
        prepare(Model(), "double-rounding", (8,), (1, 8, 8))


def test_wrong_images_and_widths_are_refused():
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\), not None"):
        prepare(Everything(), "double-rounding", (8, 2))
    with pytest.raises(UnsupportedModelError, match=r"the model must accept images of shape \(3, 12, 12\)"):
        prepare(Everything(), "double-rounding", (8, 2), (3, 12, 12))
    with pytest.raises(ValueError, match=r"a width must be 1 .. 8 bits, not 16"):
        prepare(Everything(), "double-rounding", (16, 2), (2, 12, 12))
