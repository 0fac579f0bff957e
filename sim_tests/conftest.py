"""Tests that need Verilator are skipped, with the reason, where it is missing (and fail if CI is set)."""

from __future__ import annotations

import re

import pytest

from sim_tests import verilator_tool


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the many drawn machines out, unless the tests were chosen by their marker or by ``verilator``."""
    if re.search(r"\b(configurations|verilator)\b", config.option.markexpr or ""):
        return
    many = [item for item in items if item.get_closest_marker("configurations")]
    items[:] = [item for item in items if item not in many]
    config.hook.pytest_deselected(items=many)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("verilator"):
        try:
            verilator_tool.root()
        except verilator_tool.ToolMissing as missing:
            pytest.skip(str(missing))
