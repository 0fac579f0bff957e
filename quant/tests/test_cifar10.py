import io
import tarfile

import numpy as np
import pytest

from quant import cifar10
from quant.cifar10 import TEST_MEMBERS, TRAIN_MEMBERS, load_cifar10


def records(seed, count=3):
    generator = np.random.default_rng(seed)
    made = generator.integers(0, 256, (count, 3073), np.uint8)
    made[:, 0] %= 10
    return made


def archive(path, contents):
    with tarfile.open(path, "w:gz") as made:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def contents():
    names = (*TRAIN_MEMBERS, *TEST_MEMBERS, "batches.meta.txt")
    return {name: records(index).tobytes() for index, name in enumerate(names)}


@pytest.mark.parametrize("unpacked", [False, True])
def test_records_become_images_with_planes_and_labels(contents, tmp_path, unpacked):
    path = archive(tmp_path / "a.tar.gz", contents)
    if unpacked:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        path = tmp_path
    split = load_cifar10(path)
    assert split.train_images.shape == (15, 3, 32, 32) and split.test_images.shape == (3, 3, 32, 32)
    for index, record in enumerate(np.concatenate([records(number) for number in range(5)])):
        assert split.train_labels[index] == record[0]
        for channel, row, column in ((0, 0, 0), (1, 5, 30), (2, 31, 31)):
            assert split.train_images[index, channel, row, column] == record[1 + channel * 1024 + row * 32 + column]
    assert split.test_labels.tolist() == records(5)[:, 0].tolist()
    assert split.test_indices.tolist() == [15, 16, 17]


def test_what_is_no_cifar10_is_refused(contents, tmp_path):
    with pytest.raises(ValueError, match="none is neither the CIFAR-10 binary archive nor a folder of its files"):
        load_cifar10(tmp_path / "none")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="text is damaged or no tar archive"):
        load_cifar10(tmp_path / "text")
    short = {**contents, "data_batch_3.bin": contents["data_batch_3.bin"][:-1]}
    with pytest.raises(ValueError, match=r"data_batch_3.bin must be records of 3073 bytes, and has 9218 bytes"):
        load_cifar10(archive(tmp_path / "short.tar.gz", short))
    del short["data_batch_2.bin"]
    with pytest.raises(ValueError, match=r"has no file data_batch_2.bin, so it is not CIFAR-10"):
        load_cifar10(archive(tmp_path / "less.tar.gz", short))
    wrong = {**contents, "test_batch.bin": bytes([11]) + contents["test_batch.bin"][1:]}
    with pytest.raises(ValueError, match=r"classes must be 0 .. 9, not 11"):
        load_cifar10(archive(tmp_path / "wrong.tar.gz", wrong))


def test_the_download_is_checked(monkeypatch, tmp_path):
    import pooch

    asked = {}
    monkeypatch.setattr(pooch, "retrieve", lambda url, **options: asked.update(options, url=url) or "there")
    assert cifar10.download(progress=False).name == "there"
    assert asked["known_hash"] == "md5:c32a1d4ab5d03f1284b67883e8d87530"
    assert asked["url"].endswith("cifar-10-binary.tar.gz") and asked["progressbar"] is False
