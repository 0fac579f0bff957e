"""`bitswitch export`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bitswitch.chain import NETWORK, OK, Result


def run_export(options: argparse.Namespace) -> Result:
    """Write the network file of a checkpoint."""
    from hwsim.estimate import storage

    out = options.out or options.checkpoint.with_name(NETWORK)
    network = export_checkpoint(options.checkpoint, out, options.width)
    stored = storage(network)
    print(
        f"{out}: {stored.weights:,} weights stored once in {stored.stored_once_bits:,} bits, widths {network.width_set}"
    )
    report = {
        "network": str(out),
        "spec_version": spec_version(),
        "provenance": dict(network.provenance),
        "storage": storage_report(stored),
    }
    return report, OK


def export_checkpoint(checkpoint: Path, out: Path, width: int | None = None) -> Any:
    """Write the network file of a checkpoint, and return the network."""
    from hwsim import network_file
    from quant.checkpoint import load_checkpoint
    from quant.export import export_network
    from quant.hot_swap import at_width
    from quant.reference import provenance

    loaded = load_checkpoint(checkpoint)
    training = {"training": json.dumps(loaded.config, sort_keys=True)}
    model, switched = loaded.model, {}
    if width is not None:
        model, switched = at_width(model, width), {"switched_to": str(width)}
    network = export_network(model, provenance(checkpoint, loaded.architecture) | training | switched)
    out.parent.mkdir(parents=True, exist_ok=True)
    network_file.save(network, out)
    return network


def spec_version() -> int:
    """Return the version of the arithmetic contract."""
    from hwsim import spec

    return int(spec.SPEC_VERSION)


def storage_report(stored: Any) -> dict[str, Any]:
    """Return what is stored, as plain values."""
    from dataclasses import asdict

    return asdict(stored) | {
        "float_ratio": round(stored.float_ratio, 3),
        "model_per_width_ratio": round(stored.model_per_width_ratio, 3),
    }
