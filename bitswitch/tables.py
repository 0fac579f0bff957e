"""Tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines of columns, the first one left-aligned and the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def as_percent(accuracy: float | None) -> str:
    """Return an accuracy with two decimals, nothing if there is none."""
    return "" if accuracy is None else f"{accuracy:.2f}"


def accuracy_table(rows: Iterable[tuple[str, float | None]]) -> str:
    """Return accuracies as text."""
    return text_table(("model", "accuracy %"), ((name, as_percent(accuracy)) for name, accuracy in rows))


def as_kibibytes(bits: int) -> str:
    """Return bits as KiB."""
    return f"{bits / 8192:,.1f} KiB"
