from quant.progress import Progress


def test_a_log_gets_about_five_lines_and_the_last_step(capsys):
    with Progress("stage", 23) as progress:
        for index in range(23):
            progress.advance("all well", index + 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"stage: {step} of 23, all well" for step in (4, 8, 12, 16, 20, 23)]


def test_silence(capsys):
    with Progress("stage", 3, shown=False) as progress:
        progress.advance("all well", 3)
    assert capsys.readouterr().err == ""
