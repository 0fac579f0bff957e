"""Files appear complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.whole_file import write_bytes, write_json, written_whole


def test_a_file_appears_in_a_new_folder_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    for rows in ([1, 2], [3]):
        write_json(path, {"rows": rows})
        assert json.loads(path.read_text()) == {"rows": rows}
    write_bytes(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half"), written_whole(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]
