"""Rules for the whole test suite."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# Testbenches run inside the simulator; pytest has nothing to collect there.
collect_ignore_glob = ["sim_tests/tb_*.py"]

SKIP_IS_ERROR = os.environ.get("CI", "").lower() in ("1", "true")


def _told(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    return f"skipped where every check must run (CI is set): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SKIP_IS_ERROR and report.skipped and not hasattr(report, "wasxfail"):
        report.longrepr, report.outcome = _told(report), "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if SKIP_IS_ERROR and report.skipped:
        report.longrepr, report.outcome = _told(report), "failed"
    return report
