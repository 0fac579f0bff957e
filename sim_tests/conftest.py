"""Tests that need Verilator are skipped, with the reason, where it is missing (and fail if CI is set)."""

from __future__ import annotations

import re

import pytest

from sim_tests import verilator_tool

LONGEST = "test_every_supported_bin_is_hit"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave thorough tests out, unless tests were chosen by that marker or by ``verilator``."""
    if re.search(r"\b(thorough|verilator)\b", config.option.markexpr or ""):
        # At the end the other processes would have nothing left to do beside it.
        items.sort(key=lambda item: item.name != LONGEST)
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("verilator"):
        try:
            verilator_tool.root()
        except verilator_tool.ToolMissing as missing:
            pytest.skip(str(missing))
