"""Networks that come with the package, and the comparison with what they record (on all: tests/test_recorded.py)."""

import dataclasses
import json

import numpy as np
import pytest

from hwsim import network_file
from hwsim.assignments import learned_assignments, select_assignments
from hwsim.machine import Machine
from hwsim.program import fit_machine
from hwsim.requantize import build_requantizers
from sim_tests import shipped
from sim_tests.simulate import simulate
from sim_tests.tally import Tally

FILES = shipped.network_files()
DIGITS = shipped.NETWORKS / "digits-double-rounding.safetensors"


def loaded(path):
    network = network_file.load(path)
    return network, shipped.stored_images(network)


def compared(network, name, images, labels):
    (assignment,) = select_assignments(network, name)
    return shipped.compare_with_recorded(assignment, build_requantizers(network, assignment), images, labels)


def with_claims(network, claims):
    return dataclasses.replace(network, provenance={**network.provenance, "measured": json.dumps(claims)})


def test_every_file_is_listed_with_its_checksum():
    assert FILES
    assert shipped.listed_checksums() == {path.name: shipped.sha256_of(path) for path in FILES}


def test_every_network_records_all_of_its_images():
    for path in FILES:
        network, (images, labels) = loaded(path)
        assert len(images) == len(labels) == 64 and shipped.claims(network)
        for said in shipped.claims(network).values():
            assert set(said) == {"accuracy", "correct", "tensors_sha256"}


def test_what_is_equal_and_how_much_was_compared():
    network, (images, labels) = loaded(DIGITS)
    found = compared(network, "W4A4", images, labels)
    assert found.equal and found.differing == () and found.images == 64
    assert found.tensors_compared == 9 and found.codes_compared > 64 * 5000
    assert found.correct == found.correct_recorded == shipped.claims(network)["W4A4"]["correct"]


def test_another_weight_code_is_noticed_where_it_is():
    network, (images, labels) = loaded(DIGITS)
    layers = list(network.layers)
    codes = layers[1].codes.copy()
    codes.flat[0] += 64 if codes.flat[0] < 0 else -64
    layers[1] = dataclasses.replace(layers[1], codes=codes)
    found = compared(dataclasses.replace(network, layers=tuple(layers)), "W8A8", images, labels)
    assert not found.equal and found.differing[0][0] == layers[1].name


def test_a_single_other_code_and_another_class_are_noticed():
    network, (images, labels) = loaded(DIGITS)
    assert not compared(network, "W8A8", images, (labels + 1) % 10).equal
    images = images.copy()
    images[-1, 0, 0, 0] ^= 1
    assert compared(network, "W8A8", images, labels).differing[0][0] == network.layers[0].name


def test_the_description_is_of_shapes_and_values_whatever_the_dtypes():
    codes = np.arange(6).reshape(1, 6, 1, 1)
    stored = {("a", "code"): codes, ("b", "logits"): np.ones((1, 2, 1, 1), np.int32)}
    wide = {key: values.astype(np.int32) for key, values in stored.items()}
    narrow = {key: values.astype(np.uint8) for key, values in stored.items()}
    label = np.zeros(1, np.int64)
    said = shipped.describe(wide, label)
    assert said == shipped.describe(narrow, label) and said["correct"] == 1
    turned = wide | {("a", "code"): wide["a", "code"].reshape(1, 3, 2, 1)}
    changed = wide | {("a", "code"): wide["a", "code"] + 256}
    for other in (turned, changed):
        assert shipped.describe(other, label)["tensors_sha256"]["a code"] != said["tensors_sha256"]["a code"]


def test_what_is_not_recorded_is_refused():
    network, (images, labels) = loaded(DIGITS)
    with pytest.raises(ValueError, match=r"the file records nothing of W8A2, only of W8A8, W6A6,"):
        compared(network, "W8A2", images, labels)
    claims = shipped.claims(network)
    del claims["W8A8"]["tensors_sha256"]["linear logits"]
    with pytest.raises(ValueError, match="does not record the tensors of W8A8"):
        compared(with_claims(network, claims), "W8A8", images, labels)
    with pytest.raises(ValueError, match="W8A8: nothing was compared"):
        shipped.RecordedComparison("W8A8", 64, 0, 0, (), 1, 1)


def test_other_images_are_refused(tmp_path):
    network, (images, labels) = loaded(FILES[0])
    np.savez(tmp_path / network.provenance["images"], images=255 - images, labels=labels)
    with pytest.raises(ValueError, match="holds other images than the network was measured on"):
        shipped.stored_images(network, tmp_path)


def test_networks_say_how_they_were_trained():
    for path in FILES:
        training = json.loads(network_file.load(path).provenance["training"])
        assert training["method"] and training["joint_epochs"] >= 1


@pytest.mark.thorough
@pytest.mark.verilator
def test_a_whole_image_of_the_mixed_cifar10_network_in_verilog():
    network, (images, _) = loaded(shipped.NETWORKS / "cifar10-jpeg-sdq.safetensors")
    (assignment,) = learned_assignments(network)
    assert len({widths.weight_bits for widths in assignment.layers.values()}) > 1
    sized = Machine.sized(network.width_set, network.width_set, lanes=32, columns=16)
    machine = fit_machine(network, [assignment], sized)
    result = simulate(network, machine, [assignment], images[:1])
    tally = Tally(assignment.name)
    tally.add(result, images[:1], 0)
    row = tally.row()
    assert row["first_mismatch"] is None and row["mismatches"] == 0 and row["codes_compared"] > 250_000
    assert row["first_differing_count"] is None and row["counts_differing"] == 0
    assert row["counts_compared"] == len(network.layers) + 2
    assert row["cycles_per_image"] == row["cycles_predicted"] > 100_000
