import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from hwsim import engine, network_file, spec
from hwsim.network import Network, uniform_assignment
from hwsim.network_file import checksum_failures, describe_failure, load, save, structure_of, tensors_of
from hwsim.precision import CATALOG
from hwsim.random_network import SMALL, AveragePool, Convolution, Hidden, MaximumPool, random_images, random_network
from hwsim.requantize import build_requantizers

SKETCHES = (
    *SMALL[:3],
    MaximumPool(kernel=2, stride=1, padding=1),
    Convolution(channels=5, batch_norm=False),
    AveragePool(),
    Hidden(features=6),
)


@pytest.fixture(params=CATALOG, scope="module")
def network(request):
    made = random_network(13, CATALOG[request.param], sketches=SKETCHES)
    provenance = {"checkpoint": "run 7.pt", "checkpoint_sha256": "ab" * 32, "müsli": "日本"}
    return replace(made, provenance=provenance)


@pytest.fixture
def path(network, tmp_path):
    save(network, tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


def assert_equal(first, second):
    assert structure_of(first) == structure_of(second)
    assert dict(first.provenance) == dict(second.provenance)
    ours, theirs = tensors_of(first), tensors_of(second)
    assert list(ours) == list(theirs) and len(ours) > 20
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype and (array == theirs[name]).all()


def content_of(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["bitswitch"])


def rewrite(path, change_content=None, change_tensors=None, checksums=True):
    """Write the file again with its metadata or tensors changed, and its checksums made to fit if asked."""
    content, tensors = content_of(path), safetensors.numpy.load_file(path)
    if change_content:
        change_content(content)
    if change_tensors:
        change_tensors(tensors)
    if checksums:
        content["tensor_sha256"] = {
            name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in tensors.items()
        }
        rest = {key: value for key, value in content.items() if key != "sha256"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    safetensors.numpy.save_file(tensors, path, metadata={"bitswitch": text})


def test_round_trip(network, path):
    assert_equal(network, load(path))
    assert checksum_failures(path) == ()


def test_the_loaded_network_computes_the_same(network, path):
    images = random_images(network.image_shape, 2, 0)
    results = []
    for one in (network, load(path)):
        assignment = uniform_assignment(one, network.width_set.highest)
        results.append(engine.run(one, assignment, build_requantizers(one, assignment), images))
    assert all((results[0][key] == results[1][key]).all() for key in results[0])


def test_the_same_network_gives_the_same_bytes(network, path, tmp_path):
    save(load(path), tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_codes_are_stored_once_and_nothing_is_pickled(network, path):
    tensors = safetensors.numpy.load_file(path)
    codes = {name: array for name, array in tensors.items() if array.dtype == np.int8}
    assert sorted(codes) == sorted(f"{layer.name}.codes" for layer in network.weight_layers)
    assert {array.dtype for name, array in tensors.items() if name not in codes} == {np.dtype(np.float32)}
    content = content_of(path)
    assert content["spec_version"] == spec.SPEC_VERSION and content["format_version"] == 1
    assert content["width_set"] == list(network.width_set)


def test_the_checksums_are_those_of_the_bytes(path):
    before = path.read_bytes()
    rewrite(path)
    assert path.read_bytes() == before


def flip(path, tensor, byte=0, bit=0):
    """Flip one bit of a tensor in the file."""
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    start = json.loads(data[8 : 8 + header])[tensor]["data_offsets"][0]
    data[8 + header + start + byte] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_of_a_code_is_refused_by_name(network, path, bit):
    flip(path, "block1_b.codes", 17, bit)
    message = (
        r"network\.safetensors: tensor block1_b\.codes \(the stored codes of layer block1_b\) fails its checksum; "
        "the file was changed"
    )
    with pytest.raises(ValueError, match=message):
        load(path)
    assert checksum_failures(path) == ("block1_b.codes",)
    if network.width_set.highest == 8:
        codes = load(path, ignore_checksum=True).layer("block1_b").codes
        assert (codes != network.layer("block1_b").codes).sum() == 1


def test_flipped_bits_of_parameters_are_refused_by_name(path):
    flip(path, "conv1.weight_scale")
    flip(path, "block2_b.output.code_scales", 1, 3)
    with pytest.raises(ValueError, match=r"tensor .* fails its checksum"):
        load(path)
    assert set(checksum_failures(path)) == {"conv1.weight_scale", "block2_b.output.code_scales"}
    assert load(path, ignore_checksum=True)


def test_changed_metadata_is_refused(path):
    rewrite(path, lambda content: content["provenance"].update(checkpoint="other"), checksums=False)
    with pytest.raises(ValueError, match="the metadata fails its checksum"):
        load(path)
    assert checksum_failures(path) == ("metadata",)
    assert load(path, ignore_checksum=True).provenance["checkpoint"] == "other"
    assert describe_failure("metadata") == "the metadata"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=4), "was written for FORMAT_VERSION 4, and this is FORMAT_VERSION 3"),
        (lambda c: c.update(spec_version=0), f"for SPEC_VERSION 0, and this is SPEC_VERSION {spec.SPEC_VERSION}; exp"),
        (lambda c: c.pop("spec_version"), "was written for SPEC_VERSION None"),
        (lambda c: c.pop("layers"), "the structure in the metadata lacks 'layers'"),
        (lambda c: c["layers"][0].pop("relu"), "the structure in the metadata lacks 'relu'"),
        (lambda c: c["layers"][0].update(kind="conv3d"), "its kind must be one of conv2d, .* not 'conv3d'"),
        (lambda c: c["layers"][0].update(shape=[8, 1, 9]), r"tensor conv1\.codes must have shape \(8, 1, 9\), not"),
        (lambda c: c["layers"][0].update(code_widths=[8, 7, 6, 5, 4]), r"code_scales must have shape \(5,\), not"),
        (lambda c: c["layers"][0].update(stride=2), "a kernel of .* does not fit into"),
        (lambda c: c["layers"][1].update(input="x"), "layer block1_a: its input 'x' is not made by an earlier layer"),
        (lambda c: c["layers"].pop(), "tensor logits.* belongs to no layer of the structure"),
        (lambda c: c["layers"].reverse(), "layer logits: its input 'hidden1' is not made by an earlier layer"),
        (lambda c: c.update(width_set=[8, 9]), "a width must be 1 .. 8 bits, not 9"),
        (lambda c: c.update(width_set=7), "the structure in the metadata is not readable"),
        (lambda c: c.update(layers=[3]), "the structure in the metadata is not readable"),
        (lambda c: c.update(image_shape=[3, 8, 8]), "layer conv1: has 1 input channels, but image has 3"),
    ],
)  # fmt: skip
def test_inconsistent_structures_are_refused(path, change, message):
    rewrite(path, change)
    for ignore_checksum in (False, True):
        with pytest.raises(ValueError, match=message) as error:
            load(path, ignore_checksum=ignore_checksum)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("block1_a.codes"), r"tensor block1_a\.codes is missing"),
        (lambda t: t.pop("logits.output.logit_scale"), r"tensor logits\.output\.logit_scale is missing"),
        (lambda t: t.update({"x.codes": np.zeros(1, np.int8)}), r"tensor x\.codes belongs to no layer"),
        (lambda t: t.update({"conv1.codes": t["conv1.codes"][:-1]}), r"must have shape \(8, 1, 3, 3\), not \(7, 1, 3"),
        (lambda t: t.update({"conv1.codes": t["conv1.codes"].astype(np.int16)}), "layer conv1: codes must be int8"),
        (lambda t: t.update({"conv1.weight_scale": t["conv1.weight_scale"][1:]}), "the weight scale must be float32"),
        (lambda t: t.update({"conv1.weight_scale": -t["conv1.weight_scale"]}), "the weight scale must be positive"),
        (
            lambda t: t.update({"logits.output.logit_scale": np.ones(1)}),
            r"logits\.output\.logit_scale must be float32, not float64",
        ),
        (
            lambda t: t.update({"conv1.output.code_scales": t["conv1.output.code_scales"].view(np.int32)}),
            r"conv1\.output\.code_scales must be float32, not int32",
        ),
        (lambda t: t["conv1.batch_norm.8.gamma"].fill(np.nan), "BatchNorm gamma must be finite, not nan"),
    ],
)  # fmt: skip
def test_inconsistent_tensors_are_refused(path, change, message):
    rewrite(path, change_tensors=change)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    data = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, *range(200, len(data), len(data) // 23), len(data) - 1]:
        path.write_bytes(data[:length])
        for function in (load, checksum_failures):
            with pytest.raises(ValueError, match="is truncated or no safetensors file"):
                function(path)


def test_any_flipped_bit_anywhere_is_refused(path):
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(data), 150, replace=False):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ValueError) as error:
            load(path)
        assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no such network file"):
        load(path)
    path.write_bytes(os.urandom(2000))
    with pytest.raises(ValueError, match="is truncated or no safetensors file"):
        load(path)
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="is a safetensors file, but no bitswitch network"):
        load(path)
    for text, message in (("{", "its metadata is no JSON"), ("[]", "its metadata must be a JSON object, not list")):
        safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path, metadata={"bitswitch": text})
        with pytest.raises(ValueError, match=message):
            load(path)


def test_saving_leaves_the_old_file_or_the_new_one(network, path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    other = replace(network, provenance={"made": "later"})
    with pytest.raises(OSError, match="disk full"):
        save(other, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    save(other, path)
    assert load(path).provenance == {"made": "later"}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_saving_makes_the_folder_if_it_can(network, tmp_path):
    save(network, tmp_path / "new" / "network.safetensors")
    assert load(tmp_path / "new" / "network.safetensors").width_set == network.width_set
    with pytest.raises(OSError):
        save(network, tmp_path / "new" / "network.safetensors" / "network.safetensors")


def test_only_networks_are_what_load_returns(path):
    assert isinstance(load(path), Network)
    assert network_file.FORMAT_VERSION == 3


def test_a_network_that_rounds_is_written_as_version_1(network, path):
    assert content_of(path)["format_version"] == 1
    assert all("switch_rule" not in entry for entry in content_of(path)["layers"])


def test_the_switch_rule_survives_and_needs_version_2(network, path, tmp_path):
    chosen = network.weight_layers[1].name
    layers = [replace(layer, switch_rule="floor") if layer.name == chosen else layer for layer in network]
    changed = replace(network, layers=tuple(layers))
    save(changed, tmp_path / "floor.safetensors")
    assert content_of(tmp_path / "floor.safetensors")["format_version"] == 2
    loaded = load(tmp_path / "floor.safetensors")
    assert_equal(changed, loaded)
    assert {layer.name for layer in loaded.weight_layers if layer.switch_rule == "floor"} == {chosen}
    rewrite(path, lambda content: content["layers"][0].update(switch_rule="up"))
    with pytest.raises(ValueError, match="the switch rule must be round or floor, not 'up'"):
        load(path)


def test_a_tensor_without_a_checksum_fails(path):
    content, tensors = network_file._read(path)
    content["tensor_sha256"] = {}
    assert set(network_file._failures(content, tensors)) == {network_file.METADATA, *tensors}
