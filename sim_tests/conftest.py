"""Tests that need Verilator are skipped, with the reason, where it is missing (and fail if CI is set)."""

from __future__ import annotations

import pytest

from sim_tests import verilator_tool


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("verilator"):
        try:
            verilator_tool.root()
        except verilator_tool.ToolMissing as missing:
            pytest.skip(str(missing))
