"""The network and the machine that a verb is about."""

from __future__ import annotations

import argparse
from typing import Any

from bitswitch.chain import RANDOM_NETWORK

_SIZES = ("requantizers", "strip_pixels", "datapath")


def _machine(options: argparse.Namespace, weight_widths: Any, activation_widths: Any) -> Any:
    """Return the machine of --lanes and --columns; its narrower parts are as wide as these two allow."""
    from hwsim.machine import Machine
    from hwsim.precision import CATALOG

    default = CATALOG["8-6-4-2"]
    return Machine.sized(
        weight_widths or default,
        activation_widths or default,
        Machine.lanes if options.lanes is None else options.lanes,
        Machine.columns if options.columns is None else options.columns,
        **{name: value for name, value in vars(options).items() if name in _SIZES and value is not None},
    )


def design_of(options: argparse.Namespace, names: str | None) -> tuple[Any, Any, Any]:
    """Return the machine of ``add_design``, the network it is for, and its assignments; None and none without.

    ``names`` are those of the assignments; all standard ones for ``"standard"``, the uniform ones for None.
    """
    from hwsim.assignments import select_assignments, uniform_assignments
    from hwsim.program import fit_machine

    if options.network is None:
        return _machine(options, options.weight_bits or options.bits, options.activation_bits or options.bits), None, ()
    network = load_network(options)
    if names is None:
        assignments = uniform_assignments(network)
    else:
        assignments = select_assignments(network, None if names == "standard" else names)
    weight_widths = options.weight_bits or options.bits or network.width_set
    machine = _machine(options, weight_widths, options.activation_bits or options.bits or network.width_set)
    return fit_machine(network, assignments, machine), network, assignments


def load_network(options: argparse.Namespace) -> Any:
    """Return the network of a verb that needs no trained one."""
    from hwsim import network_file
    from hwsim.precision import CATALOG
    from hwsim.random_network import resnet20

    if str(options.network) == RANDOM_NETWORK and not options.network.exists():
        return resnet20(1, CATALOG["8-6-4-2"])
    return network_file.load(options.network, ignore_checksum=options.ignore_checksum)


def machine_for(options: argparse.Namespace, network: Any, assignments: Any) -> Any:
    """Return the machine of --lanes and --columns whose memories hold a network at all of the assignments."""
    from hwsim.program import fit_machine

    return fit_machine(network, assignments, _machine(options, network.width_set, network.width_set))
