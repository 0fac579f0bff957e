"""Functional coverage: the covering networks hit every supported bin, and only what was equal counts."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from hwsim.random_network import random_images
from sim_tests import coverage, simulate

networks = functools.cache(coverage.covering_networks)


def test_the_covering_networks_have_every_supported_bin():
    supported = coverage.supported()
    meant = {
        coverage.bin_of(network, assignment, layer.name)
        for network in networks()
        for assignment in coverage.every_pair(network)
        for layer in network
    }
    assert len(supported) == 2894
    assert supported <= meant


def test_a_report_names_what_was_never_exercised():
    missing = coverage.Bin("convolution", (3, 3), 2, 1, 5, 3, "projection")
    told = coverage.report(dict.fromkeys(coverage.supported() - {missing}, 1) | {missing: 0})
    assert told["never_exercised"] == ["convolution 3x3 stride 2 padding 1 W5A3 + projection"]
    assert told["bins"] == told["hit"] + 1
    assert coverage.report({})["hit"] == 0


@pytest.mark.verilator
def test_only_runs_that_were_equal_count():
    network = networks()[-1]
    assignments = coverage.every_pair(network)[::9]
    images = random_images(network.image_shape, 1, seed=3)
    machine = coverage.covering_machine([network])
    result = simulate.simulate(network, machine, assignments, images, quick=True)
    hit = coverage.hits(result, images)
    assert sorted({each.activation_bits for each in hit if each.kind == "maximum"}) == list(range(1, 9))
    assert sum(hit.values()) == len(assignments) * len(network.layers)

    stored = {name: dict(tensors) for name, tensors in result.stored.items()}
    stored["W3A3"]["conv1", "code"] = stored["W3A3"]["conv1", "code"] ^ 1
    changed = coverage.hits(dataclasses.replace(result, stored=stored), images)
    assert {each for each in hit if not changed[each]} == {each for each in hit if each.activation_bits == 3}


@pytest.mark.verilator
@pytest.mark.thorough
def test_every_supported_bin_is_hit():
    told = coverage.report(coverage.covered(networks(), coverage.covering_machine(networks())))
    assert told["never_exercised"] == []
