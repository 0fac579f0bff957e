import numpy as np
import pytest
import torch

from quant import data


def test_digits_are_15_times_the_pixel():
    images, labels = data.load_digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert set(np.unique(images)) == {15 * pixel for pixel in range(17)}
    assert set(labels) == set(range(10))


def test_folds_part_the_images_and_deal_every_class_out_evenly():
    _, labels = data.load_digits()
    folds = data.fold_indices(labels, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(1797))
    for fold in folds:
        assert 355 <= len(fold) <= 364
        counts, whole = np.bincount(labels[fold], minlength=10), np.bincount(labels)
        assert (np.abs(counts - whole / 5) < 1.01).all()


def test_folds_depend_on_the_seed_alone():
    _, labels = data.load_digits()
    first, same, other = (data.fold_indices(labels, 5, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_a_split_tests_on_nothing_it_trains_on():
    images, labels = data.load_digits()
    split = data.load_digits_split(2, 5)
    assert len(split.train_labels) + len(split.test_labels) == 1797
    assert np.array_equal(split.test_images, images[split.test_indices])
    rest = np.setdiff1d(np.arange(1797), split.test_indices)
    assert np.array_equal(split.train_images, images[rest]) and np.array_equal(split.train_labels, labels[rest])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 5), "the fold must be 0 .. 4, not 5"), ((0, 1), "the number of folds must be 2 .. 174, not 1")],
)
def test_wrong_folds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load_digits_split(*arguments)


def test_shifts_move_whole_images_by_a_pixel_and_let_zeros_in():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 7
    moved = data.shift(image.repeat(200, 1, 1, 1), 1, torch.Generator().manual_seed(0))
    assert moved.shape == (200, 1, 5, 5) and (moved.sum((1, 2, 3)) == 7).all()
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    edge = torch.full((100, 1, 5, 5), 7, dtype=torch.uint8)
    assert (data.shift(edge, 1, torch.Generator().manual_seed(0)) == 0).any()


def test_an_epoch_uses_every_image_once_with_its_label():
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    seen = list(data.batches(images, torch.arange(10), 4, 0, generator))
    assert [len(labels) for _, _, labels in seen] == [4, 4, 2]
    labels = torch.cat([labels for _, _, labels in seen])
    assert torch.equal(torch.cat([batch for _, batch, _ in seen]).flatten().long(), labels)
    assert sorted(labels.tolist()) == list(range(10)) and labels.tolist() != list(range(10))
    assert [len(labels) for _, _, labels in data.batches(images[:9], torch.arange(9), 4, 0, generator)] == [4, 4]


def test_half_of_the_images_are_mirrored_and_indices_tell_which_is_which():
    images = torch.arange(400 * 4, dtype=torch.int32).reshape(400, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    mirrored = 0
    for indices, batch, labels in data.batches(images, torch.arange(400), 100, 0, generator, flip=True):
        assert torch.equal(indices, labels)
        for index, image in zip(indices.tolist(), batch, strict=True):
            flipped = torch.equal(image, images[index].flip(2))
            assert flipped or torch.equal(image, images[index])
            mirrored += flipped
    assert 150 < mirrored < 250
