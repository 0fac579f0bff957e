import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from hwsim.precision import WidthSet
from quant import data, models
from quant.image_folder import load_images
from quant.reference import Reference
from quant.tests.conftest import small_model
from quant.train import train_network
from quant.training_config import TrainingConfig, preset


def png(value, size=(4, 3), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "png")
    return buffer.getvalue()


FILES = {
    "photos/train/cat/b.png": png((1, 2, 3)),
    "photos/train/cat/a.png": png((4, 5, 6)),
    "photos/train/ant/a.png": png((7, 8, 9)),
    "photos/test/cat/a.png": png((10, 11, 12)),
    "photos/test/ant/z.PNG": png((13, 14, 15)),
    "photos/train/cat/notes.txt": b"text",
    "photos/readme.png": b"text",
}


def folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def archive(path, files):
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_images_come_by_class(tmp_path, packed):
    split = load_images(archive(tmp_path / "a.tar.gz", FILES) if packed else folder(tmp_path, FILES))
    assert split.train_images.shape == (3, 3, 3, 4) and split.train_images.dtype == np.uint8
    seen = {(int(label), *image[:, 0, 0].tolist()) for image, label in zip(split.train_images, split.train_labels,
                                                                          strict=True)}  # fmt: skip
    assert seen == {(1, 1, 2, 3), (1, 4, 5, 6), (0, 7, 8, 9)}
    tested = zip(split.test_indices.tolist(), split.test_labels.tolist(), split.test_images[:, 0, 0, 0], strict=True)
    assert set(tested) == {(3, 0, 13), (4, 1, 10)}


def test_an_image_is_there_once(tmp_path):
    twice = {name.replace("photos", "more"): content for name, content in FILES.items()}
    with pytest.raises(ValueError, match=r"must hold one image t\w+/\w+/\w.\w+, and \w+/.* is another one"):
        load_images(folder(tmp_path, FILES | twice))


def test_grey_images_have_one_channel_and_classes_are_mixed(tmp_path):
    files = {
        f"{part}/{label}/{index:02}.png": png(index, (2, 2), "L")
        for part in ("train", "test") for label in "ab" for index in range(20)
    }  # fmt: skip
    split = load_images(folder(tmp_path, files))
    assert split.train_images.shape == (40, 1, 2, 2)
    assert 0 < split.train_labels[:10].sum() < 10 and 0 < split.test_labels[:10].sum() < 10
    again = load_images(tmp_path)
    assert np.array_equal(split.train_labels, again.train_labels)
    assert np.array_equal(split.test_indices, again.test_indices)
    by_class = split.test_images[np.argsort(split.test_indices), 0, 0, 0]
    assert by_class.tolist() == [*range(20), *range(20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photos/train/cat/b.png": b"text"}, r"photos/train/cat/b.png cannot be read as an image"),
        ({"photos/train/cat/b.png": png(0, (5, 3))}, r"must have shape \(3, 3, [45]\) as .* has, not \(3, 3, [45]\)"),
        ({"photos/test/dog/b.png": png(0)}, "class dog has images to test on, but none to train on"),
        ({"photos/train/cat/a.png": None, "photos/train/cat/b.png": None}, "of two classes at least, not only of ant"),
        ({"photos/test/cat/a.png": None, "photos/test/ant/z.PNG": None}, "as test/<class>/<image>, and has none"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, message):
    files = {name: content for name, content in {**FILES, **change}.items() if content is not None}
    with pytest.raises(ValueError, match=message):
        load_images(folder(tmp_path, files))
    with pytest.raises(ValueError, match="nothing is neither a folder nor a tar archive of images"):
        load_images(tmp_path / "nothing")


@pytest.mark.parametrize("classes", [3, 12])
def test_a_network_trains_on_images_by_class_and_is_verified_on_them(tmp_path, monkeypatch, classes):
    monkeypatch.setitem(models.ARCHITECTURES, "small", small_model)
    digits, _ = data.load_digits()
    files = {}
    for index in range(48):
        buffer = io.BytesIO()
        Image.fromarray(digits[index, 0]).save(buffer, "png")
        files[f"{'test' if index >= 40 else 'train'}/{index % classes:02}/{index:03}.png"] = buffer.getvalue()
    path = archive(tmp_path / "digits.tar.gz", files)
    config = TrainingConfig(
        architecture="small", data="images", data_path=str(path), widths=WidthSet((8, 2)), float_epochs=1,
        joint_epochs=1, batch_size=20, flip=True, compare_float=False,
    )  # fmt: skip
    result = train_network(config, checkpoint=tmp_path / "a.safetensors", progress=False)
    assert len(result.split.test_labels) == 8 and set(result.accuracies) == {"W8A8", "W2A2"}
    assert result.model.classes == classes
    reference = Reference(tmp_path / "a.safetensors")
    assert np.array_equal(reference.images, result.split.test_images)
    moved = path.rename(tmp_path / "moved.tar.gz")
    with pytest.raises(ValueError, match="is neither a folder nor a tar archive of images"):
        Reference(tmp_path / "a.safetensors")
    assert np.array_equal(Reference(tmp_path / "a.safetensors", data_path=str(moved)).images, reference.images)
    assert preset("images").architecture == "resnet20" and preset("digits") == TrainingConfig()
    for change, message in (
        ({"data": "mnist"}, "data must be one of digits, cifar10, images, not 'mnist'"),
        ({"data": "images"}, "images by class need a data_path, not None"),
        ({"data_path": "x"}, "the digits come with scikit-learn and have no data_path, not 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingConfig(**change)
