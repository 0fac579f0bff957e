"""The assignments that every report runs: a uniform one for each width of the set, two mixed ones, and learned ones."""

from __future__ import annotations

from hwsim.network import Assignment, Network, assignment_from_weights, uniform_assignment


def uniform_assignments(network: Network) -> tuple[Assignment, ...]:
    """Return one uniform assignment for each width of the set, widest first."""
    return tuple(uniform_assignment(network, bits) for bits in network.width_set)


def mixed_assignments(network: Network) -> tuple[Assignment, ...]:
    """Return ``mixed-1`` and ``mixed-2``, in which weight and activation widths change from layer to layer.

    With widths ``v[0] > v[1] > ... > v[n-1]``, weight layer i and tensor j, counted in execution order: ``mixed-1``
    has weights of ``v[i mod n]`` and activations of ``v[(j + 1) mod n]``, so that in a plain chain both of a layer are
    the same; ``mixed-2`` runs through the weight widths upwards and has activations of ``v[(j + j div n) mod n]``, so
    that they differ. Pinned layers stay W8A8. A set of one width has none.
    """
    widths = network.width_set.widths
    count = len(widths)
    if count == 1:
        return ()
    weight_layers = [layer.name for layer in network.weight_layers]
    tensor_index = {layer.name: index for index, layer in enumerate(network)}
    return (
        assignment_from_weights(
            network,
            "mixed-1",
            {name: widths[index % count] for index, name in enumerate(weight_layers)},
            lambda tensor: widths[(tensor_index[tensor] + 1) % count],
        ),
        assignment_from_weights(
            network,
            "mixed-2",
            {name: widths[count - 1 - index % count] for index, name in enumerate(weight_layers)},
            lambda tensor: widths[(tensor_index[tensor] + tensor_index[tensor] // count) % count],
        ),
    )


def learned_assignments(network: Network) -> tuple[Assignment, ...]:
    """Return the assignments that the network's training found."""
    return tuple(Assignment(name=name, network=network, layers=one) for name, one in network.learned.items())


def standard_assignments(network: Network) -> tuple[Assignment, ...]:
    """Return the uniform assignments, widest first, then the mixed ones, then the learned ones."""
    return uniform_assignments(network) + mixed_assignments(network) + learned_assignments(network)


def select_assignments(network: Network, names: str | None) -> tuple[Assignment, ...]:
    """Return the assignments named in ``"W8A8,W2A4,mixed-1"``; all standard ones for None.

    Raises
    ------
    ValueError
        If a name is neither ``W<bits>A<bits>`` with widths of the set nor that of a mixed or learned assignment, or
        comes twice.
    """
    if names is None:
        return standard_assignments(network)
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if wanted.count(name) > 1:
            raise ValueError(f"each assignment must be named once, not {name} {wanted.count(name)} times")
    return tuple(_assignment(network, name) for name in wanted)


def _assignment(network: Network, name: str) -> Assignment:
    named = {one.name: one for one in mixed_assignments(network) + learned_assignments(network)}
    if name in named:
        return named[name]
    weight_bits, letter, activation_bits = name.removeprefix("W").partition("A")
    if name.startswith("W") and letter and weight_bits.isdecimal() and activation_bits.isdecimal():
        return uniform_assignment(network, int(weight_bits), int(activation_bits))
    known = ", ".join(["W<bits>A<bits>", *network.learned, "mixed-1"]) + " or mixed-2"
    raise ValueError(f"an assignment must be {known}, not {name!r}")
