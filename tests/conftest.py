"""A small trained network, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitswitch


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint and the network file of a network that was trained for two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    assert bitswitch.main(["train", "--float-epochs", "1", "--joint-epochs", "1", "--out", str(folder)]) == 0
    assert bitswitch.main(["export", str(folder / bitswitch.CHECKPOINT)]) == 0
    return folder
