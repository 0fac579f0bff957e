import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quant import checkpoint
from quant.checkpoint import load_checkpoint, save_checkpoint
from quant.convert import prepare
from quant.models import build
from quant.switchable import set_width


@pytest.fixture
def model():
    torch.manual_seed(0)
    return prepare(build("digits"), "double-rounding", (4, 2))


def test_a_checkpoint_brings_the_model_back(model, tmp_path):
    model.layer("conv").output.code.scale(4).data.fill_(0.03)
    save_checkpoint(model, tmp_path / "a.safetensors", architecture="digits", config={"seed": 3}, results={"x": 1.5})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.model.width_set.widths == (4, 2) and not loaded.model.training
    assert (loaded.architecture, loaded.config, loaded.results) == ("digits", {"seed": 3}, {"x": 1.5})
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(set_width(model.eval(), 2)(images), set_width(loaded.model, 2)(images))


def test_a_users_own_model_comes_back_with_its_module(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.image_shape = (1, 4, 4)
            self.first, self.last = nn.Conv2d(1, 2, 3), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)).flatten(1))

    model = prepare(Own(), "double-rounding", (8, 2))
    save_checkpoint(model, tmp_path / "own.safetensors", architecture="own")
    loaded = load_checkpoint(tmp_path / "own.safetensors", Own())
    assert torch.equal(loaded.model.layer("last").weight, model.layer("last").weight)
    with pytest.raises(ValueError, match="the architecture must be one of"):
        load_checkpoint(tmp_path / "own.safetensors")


def test_nothing_is_left_when_writing_fails(model, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("hwsim.whole_file.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, path, architecture="digits")
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"] and path.read_bytes() == b"before"


def changed(model, path, **changes):
    save_checkpoint(model, path, architecture="digits")
    metadata = {
        "format": checkpoint.CHECKPOINT_FORMAT,
        "version": 1,
        "spec_version": checkpoint.spec.SPEC_VERSION,
        "architecture": "digits",
        "widths": [4, 2],
        "config": {},
        "results": {},
        **changes,
    }
    save_file(model.state_dict(), path, {"bitswitch": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "must be a bitswitch checkpoint, not 'other'"),
        ({"version": 99}, "must have version 1, not 99"),
        ({"spec_version": 99}, "must have spec_version 1, not 99"),
        (
            {"architecture": "resnet20"},
            r"resnet20: layers.conv.weight must have shape \(16, 3, 3, 3\), not \(16, 1, 3, 3\)$",
        ),
        (
            {"widths": [8, 2]},
            "does not fit the architecture digits: it has no layers.conv.output.code.scales.8$",
        ),
        ({"method": "hot-swap"}, "does not fit the architecture digits: it has no .*reconstruction.gains.2$"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(model, tmp_path, changes, message):
    path = tmp_path / "a.safetensors"
    changed(model, path, **changes)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_a_damaged_or_missing_file_is_refused(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(model, path, architecture="digits")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="is not a file"):
        load_checkpoint(tmp_path / "none.safetensors")
