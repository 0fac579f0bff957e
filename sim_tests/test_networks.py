"""The networks that come with the package compute what they say, code by code."""

import dataclasses
import json

import numpy as np
import pytest

from hwsim import network_file
from sim_tests import shipped

FILES = shipped.network_files()


def loaded(path):
    network = network_file.load(path)
    return network, shipped.stored_images(network)


def wrong_claims(network, images, labels, names=None):
    """Return the assignments whose codes or classes are not what the network says."""
    said = shipped.claims(network)
    wrong = []
    for name in said if names is None else names:
        found = shipped.measure(network, name, images, labels)
        if found != {key: said[name][key] for key in found}:
            wrong.append(name)
    return wrong


def test_every_file_is_listed_with_its_checksum():
    assert FILES
    assert shipped.listed_checksums() == {path.name: shipped.sha256_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_network_computes_the_codes_that_it_says(path):
    network, (images, labels) = loaded(path)
    assert len(images) == 64 and len(shipped.claims(network)) >= 1
    assert wrong_claims(network, images, labels) == []


def test_another_weight_code_is_noticed():
    network, (images, labels) = loaded(FILES[0])
    layers = list(network.layers)
    codes = layers[1].codes.copy()
    codes.flat[0] += 64 if codes.flat[0] < 0 else -64
    layers[1] = dataclasses.replace(layers[1], codes=codes)
    changed = dataclasses.replace(network, layers=tuple(layers))
    name = next(iter(shipped.claims(network)))
    assert wrong_claims(changed, images, labels, [name]) == [name]


def test_another_class_is_noticed():
    network, (images, labels) = loaded(FILES[0])
    name = next(iter(shipped.claims(network)))
    assert wrong_claims(network, images, (labels + 1) % 10, [name]) == [name]


def test_other_images_are_refused(tmp_path):
    network, (images, labels) = loaded(FILES[0])
    np.savez(tmp_path / network.provenance["images"], images=255 - images, labels=labels)
    with pytest.raises(ValueError, match="holds other images than the network was measured on"):
        shipped.stored_images(network, tmp_path)


def test_networks_say_how_they_were_trained():
    for path in FILES:
        training = json.loads(network_file.load(path).provenance["training"])
        assert training["method"] and training["joint_epochs"] >= 1
