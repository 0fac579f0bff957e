import numpy as np
import pytest

from hwsim import engine
from hwsim.assignments import standard_assignments
from hwsim.network import uniform_assignment
from hwsim.network_file import structure_of, tensors_of
from hwsim.precision import CATALOG, WidthSet
from hwsim.random_network import (
    SMALL,
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    Residual,
    random_images,
    random_network,
    resnet20,
)
from hwsim.requantize import build_requantizers

SETS = {**CATALOG, "2-1": WidthSet((2, 1))}


@pytest.mark.parametrize("name", SETS)
def test_codes_are_spread_over_their_range(name):
    network = random_network(5, SETS[name])
    images = random_images(network.image_shape, 32, 3)
    for assignment in standard_assignments(network):
        stored = engine.run(network, assignment, build_requantizers(network, assignment), images)
        for (tensor, form), array in stored.items():
            if form == "code":
                high = 2 ** assignment.code_bits(tensor) - 1
                assert array.max() == high or tensor == "average1"
                assert (array > 0).mean() > 0.02
                assert len(np.unique(array)) > min(high, 12) * 0.75
        assert len(np.unique(stored["logits", "logits"])) > 100


def test_the_same_arguments_give_the_same_network_and_others_do_not():
    made = [random_network(seed, CATALOG["8-4-2"]) for seed in (1, 1, 2)]
    tensors = [tensors_of(network) for network in made]
    assert structure_of(made[0]) == structure_of(made[1])
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])
    assert (tensors[0]["conv1.codes"] != tensors[2]["conv1.codes"]).any()


def test_sketches_choose_every_shape():
    network = random_network(
        1,
        CATALOG["8-4"],
        (3, 9, 7),
        [
            Convolution(channels=5, kernel=(5, 3), stride=2, padding=1, name="stem"),
            Convolution(channels=6, kernel=1, relu=False),
            Convolution(channels=6, kernel=3, input="stem", skip="conv1"),
            Residual(channels=6),
            Residual(channels=6, stride=2),
            MaximumPool(kernel=2, stride=1),
            Hidden(features=4),
        ],
        classes=3,
    )
    assert [layer.name for layer in network] == [
        "stem", "conv1", "conv2", "block1_a", "block1_b", "block2_a", "block2_shortcut", "block2_b", "maximum1",
        "hidden1", "logits",
    ]  # fmt: skip
    assert network.shape("stem") == (5, 4, 4)
    assert network.layer("stem").kernel == (5, 3) and network.layer("stem").stride == 2
    assert network.shape("maximum1") == (6, 1, 1)
    assert network.skip_range("conv1") == (-128, 127) and network.skip_range("conv2") == (0, 255)
    assert network.adders("conv2") == ("block1_b",) and network.adders("block2_shortcut") == ("block2_b",)
    assert network.shape("hidden1") == (4, 1, 1) and network.classes == 3


def test_resnet20():
    network = resnet20(1, CATALOG["8-6-4-2"])
    assert len(network.weight_layers) == 1 + 18 + 2 + 1
    macs = {layer.name: network.macs(layer) for layer in network.weight_layers}
    assert sum(count for name, count in macs.items() if "shortcut" not in name) == 40_551_040
    assert network.shape("average1") == (64, 1, 1)
    assert uniform_assignment(network, 2).average_weight_bits == 2


def test_channels_of_every_sign_occur():
    network = random_network(3, CATALOG["8"], sketches=[Convolution(channels=200), AveragePool()])
    gamma = network.layer("conv1").batch_norms[8].gamma
    assert (gamma > 0).any() and (gamma < 0).any() and (gamma == 0).any()


def test_sketches_that_make_no_network_are_refused():
    with pytest.raises(ValueError, match="layer block1_b: its skip 'image' is not made by an earlier layer"):
        random_network(1, CATALOG["8"], sketches=[Convolution(channels=1, name="block1_b", skip="image")])
    with pytest.raises(ValueError, match=r"layer maximum1: a kernel of \(3, 3\) does not fit into conv1 of 2 x 2"):
        random_network(1, CATALOG["8"], (1, 2, 2), [*SMALL[:1], MaximumPool(kernel=3)])


def test_random_images():
    images = random_images((3, 4, 5), 8, 1)
    assert images.dtype == np.uint8 and images.shape == (8, 3, 4, 5)
    assert (images[-1] == 255).all() and (images[-2] == 0).all()
    assert (images == random_images((3, 4, 5), 8, 1)).all() and (images != random_images((3, 4, 5), 8, 2)).any()
