import gzip
import io
import tarfile

import pytest

from quant.tar_archive import files_of

FILES = {f"some/{number}.txt": bytes([number]) * 700 for number in range(9)}


def archive(path, mode):
    with tarfile.open(path, mode) as made:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_wanted_files_come_with_their_content(tmp_path, mode):
    path = archive(tmp_path / "some.tar", mode)
    assert dict(files_of(path, lambda name: True)) == FILES
    assert dict(files_of(path, lambda name: name.endswith("3.txt"))) == {"some/3.txt": bytes([3]) * 700}


# A file takes a header of 512 bytes and two blocks of 512.
@pytest.mark.parametrize("kept_bytes", [9 * 1536, 5 * 1536, 5 * 1536 + 100, 5 * 1536 + 512, 5 * 1536 + 900, 700, 0])
def test_an_archive_that_is_cut_is_refused(tmp_path, kept_bytes):
    path = archive(tmp_path / "some.tar", "w")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match=r"some\.tar is damaged or no tar archive: "):
        list(files_of(path, lambda name: True))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_header_is_noticed(tmp_path, mode):
    path = archive(tmp_path / "some.tar", "w")
    content = bytearray(path.read_bytes())
    content[4 * 1536 + 3] ^= 1
    path.write_bytes(content)
    if mode == "w:gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=f"the header at byte {4 * 1536} is none"):
        list(files_of(path, lambda name: True))
