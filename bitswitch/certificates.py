"""What is told about the requantizers of a network: exact, or on which part of the operands they are displaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.tables import text_table


def certified(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificates of an assignment's layers, and how many are exact."""
    from dataclasses import asdict

    certificates = {name: table.certificate for name, table in tables.items()}
    exact = sum(certificate.exact for certificate in certificates.values())
    return {
        "layers_exact": exact,
        "layers_displaced": len(certificates) - exact,
        "certificates": {
            name: {**asdict(certificate), "verdict": str(certificate)} for name, certificate in certificates.items()
        },
    }


def certificate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdict on every layer's requantizer at every assignment: exact, or the part of displaced pairs."""

    def cell(certificate: Mapping[str, Any]) -> str:
        displaced = certificate["displaced_pairs"] / certificate["operand_pairs"]
        return f"{displaced:.0e}" if displaced else "exact"

    layers = rows[0]["certificates"]
    largest = max(one["largest_displacement"] for row in rows for one in row["certificates"].values())
    table = text_table(
        ("requantizer of", *(row["assignment"] for row in rows)),
        ((layer, *(cell(row["certificates"][layer]) for row in rows)) for layer in layers),
    )
    codes = "1 code" if largest == 1 else f"{largest} codes"
    told = f", numbers: the part of all reachable operands on which it is displaced, by at most {codes}"
    return f"{table}\n(exact: equal to the trained function on every reachable operand{told if largest else ''})"
