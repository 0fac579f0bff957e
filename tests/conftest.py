"""A small trained network, made once, and simulators that are built once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

import bitswitch

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path("build")


def share_simulators(folder: Path) -> None:
    """Let what is simulated with ``folder`` as the current one take the simulators that other tests have built."""
    simulators = ROOT / BUILD / "sim"
    simulators.mkdir(parents=True, exist_ok=True)
    (folder / BUILD).mkdir(exist_ok=True)
    (folder / BUILD / "sim").symlink_to(simulators)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint and the network file of a network that was trained for two epochs."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # of all workers
    folder = session / "trained"
    with open(session / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / bitswitch.NETWORK).exists():
            assert bitswitch.main(["train", "--float-epochs", "1", "--joint-epochs", "1", "--out", str(folder)]) == 0
            assert bitswitch.main(["export", str(folder / bitswitch.CHECKPOINT)]) == 0
    return folder
