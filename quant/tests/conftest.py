"""Small prepared networks that the tests of quant share."""

from collections.abc import Iterator

import pytest
import torch

from hwsim.precision import CATALOG
from quant import data
from quant.convert import prepare
from quant.models import ResidualNetwork
from quant.progress import Progress
from quant.switchable import SwitchableNetwork
from quant.train import TrainingConfig, train_jointly


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_model(classes: int = 10) -> ResidualNetwork:
    """Return an untrained float network with an identity add and a projected add."""
    torch.manual_seed(5)
    return ResidualNetwork((1, 8, 8), ((4, 1, 1), (6, 1, 2)), classes)


def small_network(width_set) -> SwitchableNetwork:
    """Return a small network after one epoch of joint training on 96 digits."""
    images, labels = data.load_digits()
    model = prepare(small_model(), "double-rounding", width_set)
    config = TrainingConfig(widths=width_set, joint_epochs=1, batch_size=32, compare_float=False)
    train_jointly(
        model, torch.from_numpy(images[:96]), torch.from_numpy(labels[:96]), config, Progress("", 1, shown=False)
    )
    return model


@pytest.fixture(scope="session", params=list(CATALOG))
def trained(request) -> SwitchableNetwork:
    """A small trained network of every width set of the catalog."""
    return small_network(CATALOG[request.param])


@pytest.fixture(scope="session")
def trained_8642() -> SwitchableNetwork:
    """A small trained network of widths 8, 6, 4 and 2."""
    return small_network(CATALOG["8-6-4-2"])


@pytest.fixture
def images():
    """Forty digits, uint8."""
    return data.load_digits()[0][200:240]
