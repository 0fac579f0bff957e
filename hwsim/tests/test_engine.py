import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from hwsim import backends, engine, fused, plan
from hwsim.assignments import standard_assignments
from hwsim.backends import BACKENDS
from hwsim.network import uniform_assignment
from hwsim.precision import CATALOG, WidthSet
from hwsim.random_network import (
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    Residual,
    random_assignment,
    random_images,
    random_network,
)
from hwsim.requantize import LayerRequantizers, build_requantizers
from hwsim.tests import reference
from hwsim.tests.mutation import interpreted_fused, mutant
from hwsim.verification import compare

TINY = (
    Convolution(channels=4),
    Residual(channels=4),
    Residual(channels=6, stride=2),
    Residual(channels=6),
    MaximumPool(kernel=2, stride=1, padding=1),
    Convolution(channels=5, kernel=(3, 1), padding=0, batch_norm=False),
    AveragePool(kernel=2, stride=1),
    AveragePool(),
    Hidden(features=7),
)
SETS = {**CATALOG, "3-1": WidthSet((3, 1)), "8-5-1": WidthSet((8, 5, 1))}


@pytest.fixture(params=SETS, scope="module")
def network(request):
    return random_network(31, SETS[request.param], (2, 6, 5), TINY, classes=5)


def differences(network, assignments, images):
    total = 0
    for assignment in assignments:
        tables = build_requantizers(network, assignment)
        wanted = reference.run(network, assignment, tables, images)
        found = engine.run(network, assignment, tables, images)
        assert list(found) == list(wanted)
        assert compare(assignment.name, wanted, wanted).equal
        total += compare(assignment.name, wanted, found).mismatches
    return total


def test_the_engine_is_the_reference(network):
    assignments = [*standard_assignments(network), random_assignment(network, 1)]
    assert differences(network, assignments, random_images(network.image_shape, 3, 8)) == 0


def test_forms_and_dtypes(network):
    assignment = uniform_assignment(network, network.width_set.highest)
    stored = engine.run(
        network, assignment, build_requantizers(network, assignment), random_images(network.image_shape, 2, 0)
    )
    assert [key for key in stored if key[0].startswith("block2")] == [
        ("block2_a", "code"),
        ("block2_shortcut", "skip"),
        ("block2_b", "skip"),
        ("block2_b", "code"),
    ]
    assert ("block1_b", "code") in stored and ("block1_b", "skip") not in stored
    assert ("conv1", "skip") in stored and ("conv1", "code") in stored
    for (tensor, form), array in stored.items():
        assert array.dtype == {"code": np.uint8, "skip": np.int16, "logits": np.int32}[form]
        assert array.shape == (2, *network.shape(tensor))
        if form == "code":
            assert array.max() < 2 ** assignment.code_bits(tensor)
    assert stored["block2_shortcut", "skip"].min() < 0


SKIP = "np.int64(added[c])"


def made_and_images():
    made = random_network(31, CATALOG["8-4"], (2, 6, 5), TINY, classes=5)
    return made, standard_assignments(made)[:1], random_images(made.image_shape, 1, 8)


@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("engine", ('_NONE["skip"] if skip is None else live[skip, "skip"][1]', '_NONE["skip"]')),
        ("plan", ("(self.border - padding) * (self", "self.border * (self")),
        ("plan", ("weights.transpose(0, 2, 3, 1)", "weights.transpose(0, 2, 3, 1)[..., ::-1]")),
        ("plan", ('_rows(made["code"])[:, 0].copy()', "_rows(made[\"skip\"])[:, 0].copy()")),
        ("backends", ("transpose(1, 2, 0, 3).ravel()", "transpose(2, 1, 0, 3).ravel()")),
        ("backends", ("-(-row_bytes // RUN_BYTES)])", "row_bytes // RUN_BYTES])")),
        ("fused", ("max(out[channel], part[channel])", "min(out[channel], part[channel])")),
        ("fused", ("sums[channel] += np.int32(part[channel])", "sums[channel] = np.int32(part[channel])")),
        ("fused", (SKIP, f"{SKIP} - 1")),
        ("fused", ("kept = np.int64(sums[c])", "kept = np.int64(sums[c]) + 1")),
        ("fused", ("out[np.uintp(index)] = last = place", "out[np.uintp(index)] = last = place + 1")),
        ("fused", ("next_row = layout[1] -", "next_row = layout[1] + 1 -")),
        ("fused", ("out_width) * layout[2] + layout[3]", "out_width) * layout[2]")),
    ],
)  # fmt: skip
def test_a_wrong_engine_is_caught(module, change, monkeypatch):
    if module == "fused":
        changed = interpreted_fused(change)
        for name in ("convolve", "max_windows", "sum_windows"):
            monkeypatch.setattr(fused, name, getattr(changed, name))
    elif module == "engine":
        monkeypatch.setattr(engine, "run", mutant("hwsim.engine", change).run)
    elif module == "plan":
        changed = mutant("hwsim.plan", change)
        monkeypatch.setattr(engine, "make_plan", changed.make_plan)
    else:
        monkeypatch.setattr(engine, "make_backend", mutant("hwsim.backends", change).make_backend)
    assert differences(*made_and_images())


def test_the_interpreted_kernels_are_the_reference(monkeypatch):
    """What the mutants above start from is right."""
    changed = interpreted_fused()
    for name in ("convolve", "max_windows", "sum_windows"):
        monkeypatch.setattr(fused, name, getattr(changed, name))
    assert differences(*made_and_images()) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_backends_make_the_same_integers(network, backend, threads, monkeypatch):
    if backend == "torch":
        pytest.importorskip("torch")
    monkeypatch.setattr(backends, "COLUMN_BYTES", 1 << 12)
    monkeypatch.setattr(engine, "GROUP_BYTES", 1 << 8)
    images = random_images(network.image_shape, 7, 3)
    for assignment in [*standard_assignments(network)[:1], random_assignment(network, 2)]:
        tables = build_requantizers(network, assignment)
        wanted = engine.run(network, assignment, tables, images)
        made = engine.Engine(network, assignment, tables, backend=backend, threads=threads)
        assert compare(assignment.name, wanted, made.run(images)).equal
        assert (made.logits(images) == wanted[network.layers[-1].name, "logits"][:, :, 0, 0]).all()


def test_logits_need_no_more_memory_for_more_images(small):
    images = random_images((1, 8, 8), 2, 4)
    many = np.broadcast_to(images[0], (20000, 1, 8, 8))
    made = engine.Engine(*small, threads=2)
    made.logits(images)
    tracemalloc.start()
    made.logits(many[:10000])
    fewer = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    made.logits(many)
    more = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    outputs = 20000 * 10 * 4
    assert fewer > 100_000 and more - fewer < outputs + 400_000


@pytest.fixture(scope="module")
def small():
    made = random_network(3, CATALOG["8-4-2"])
    assignment = uniform_assignment(made, 4)
    return made, assignment, build_requantizers(made, assignment)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([[0]], TypeError, "images must be a NumPy array, not list"),
        (np.zeros((1, 1, 8, 8)), ValueError, r"images must be uint8 codes 0 \.\. 255, not float64"),
        (np.zeros((1, 1, 8, 8), np.int8), ValueError, r"images must be uint8 codes 0 \.\. 255, not int8"),
        (np.zeros((1, 8, 8), np.uint8), ValueError, r"shape \(n, 1 x 8 x 8\) with n at least 1, not \(1, 8, 8\)"),
        (np.zeros((1, 1, 8, 9), np.uint8), ValueError, r"shape \(n, 1 x 8 x 8\) .* not \(1, 1, 8, 9\)"),
        (np.zeros((0, 1, 8, 8), np.uint8), ValueError, r"with n at least 1, not \(0, 1, 8, 8\)"),
    ],
)
def test_bad_images_are_refused(small, images, error, message):
    for function in (engine.run, engine.logits):
        with pytest.raises(error, match=message):
            function(*small, images)


def test_tables_of_another_width_are_refused(small):
    made, assignment, tables = small
    images = random_images(made.image_shape, 1, 0)
    others = build_requantizers(made, uniform_assignment(made, 2))
    with pytest.raises(ValueError, match="layer conv1: its requantizer makes codes up to 3, not 4 bits"):
        engine.run(made, assignment, others, images)
    with pytest.raises(ValueError, match="layer block1_a: has no requantizer"):
        engine.run(made, assignment, {k: v for k, v in tables.items() if k != "block1_a"}, images)
    with pytest.raises(ValueError, match="layer block2_a: has 12 channels, but its requantizer 8"):
        engine.run(made, assignment, {**tables, "block2_a": tables["block1_a"]}, images)
    with pytest.raises(ValueError, match="layer conv1: its requantizers do not make the forms that W4A4 stores"):
        engine.run(made, assignment, {**tables, "conv1": LayerRequantizers(tables["conv1"].primary)}, images)
    with pytest.raises(ValueError, match="assignment W4A4 belongs to another network"):
        engine.run(random_network(3, CATALOG["8-4-2"]), assignment, tables, images)


def test_a_sum_beyond_64_bits_is_refused(small):
    made, assignment, tables = small
    table = tables["conv1"].primary
    images = random_images(made.image_shape, 1, 0)
    wide = replace(table, multiplier=np.full(8, 2**55))
    huge = replace(table, addend=np.full(8, 2**62), multiplier=np.full(8, 2**49))
    for bad in (wide, huge, replace(table, shift=np.full(8, 63))):
        changed = {**tables, "conv1": replace(tables["conv1"], primary=bad)}
        with pytest.raises(ValueError, match=r"layer conv1: .* must fit 64 bits, its shift 0 \.\. 62"):
            engine.run(made, assignment, changed, images)


def test_an_accumulator_beyond_32_bits_is_refused(small, monkeypatch):
    monkeypatch.setattr(plan, "accumulator_range", lambda *_: (np.array([-(2**31)]), np.array([0])))
    with pytest.raises(ValueError, match="layer conv1: an accumulator can reach 2147483648, and 32 bits are the most"):
        engine.run(*small, random_images((1, 8, 8), 1, 0))


def test_an_unknown_backend_is_refused(small):
    with pytest.raises(ValueError, match="the backend must be one of numba, numpy, torch, not 'cuda'"):
        engine.Engine(*small, backend="cuda")


def test_logits_alone_are_those_of_a_run(small):
    images = random_images((1, 8, 8), 7, 4)
    whole = engine.run(*small, images)["logits", "logits"]
    parts = engine.logits(*small, images)
    assert parts.shape == (7, 10) and (parts == whole[:, :, 0, 0]).all()
    assert (engine.classify(whole) == engine.classify(parts)).all()


def test_classify_takes_the_first_of_equals():
    assert engine.classify(np.array([[1, 5, 5], [-3, -9, -3], [0, 0, 1]], np.int32)).tolist() == [1, 0, 2]
