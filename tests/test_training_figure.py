import json
import sys

import pytest

from benchmarks import training_figure


def row(method, assignment, accuracy, cycles, data="some images"):
    return {
        "method": method, "network": "resnet20", "data": data, "assignment": assignment, "accuracy": accuracy,
        "float_accuracy": 90.0, "cycles_per_image": cycles, "average_weight_bits": cycles and cycles / 500,
    }  # fmt: skip


ROWS = [
    row("float", "float32", 90.0, None),
    row("one", "W8A8", 89.5, 4000),
    row("one", "W2A2", 85.0, 1000),
    row("one", "mixed-1", 87.0, 2000),
    row("other", "W4A8", 88.0, 3000),
    row("one", "W8A8", 99.0, 10, data="other images"),
]


def test_every_measured_row_is_a_point():
    (axes,) = training_figure.accuracy_figure(ROWS[:5]).axes
    drawn = [tuple(map(list, line.get_data())) for line in axes.get_lines()]
    assert ([1000, 4000], [85.0, 89.5]) in drawn
    assert ([2000], [87.0]) in drawn and ([3000], [88.0]) in drawn
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other", "float, as many epochs"]
    assert axes.get_ylim() == (82, 90.5) and not axes.texts
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title(loc="left").startswith("resnet20, some images")


def test_what_is_far_below_the_float_network_is_told_at_the_edge():
    (axes,) = training_figure.accuracy_figure([*ROWS[:5], row("one", "mixed-2", 10.04, 2000)]).axes
    assert axes.get_ylim()[0] == 82
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("10.0", (2000, 82))]


def test_the_float_network_alone_is_a_line():
    (axes,) = training_figure.accuracy_figure(ROWS[:1]).axes
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [[90.0, 90.0]]


def test_the_picture_is_of_one_data_set(tmp_path, monkeypatch, capsys):
    table, picture = tmp_path / "table.json", tmp_path / "picture.png"
    table.write_text(json.dumps({"rows": ROWS}))
    arguments = ["training_figure.py", "--json", str(table), "--figure", str(picture), "--data"]
    monkeypatch.setattr(sys, "argv", [*arguments, "some images"])
    training_figure.main()
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", [*arguments, "no images"])
    with pytest.raises(SystemExit):
        training_figure.main()
    assert "--data must be one of other images, some images, not 'no images'" in capsys.readouterr().err
