"""Files of a tar archive, whole or not at all."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path


def files_of(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files of an archive, compressed or not, whose name is wanted.

    Raises
    ------
    ValueError
        If the archive is damaged, cut short or none.
    """
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if wanted(entry.name) else None
                if file is not None:
                    yield entry.name, file.read()
            # A damaged header, or none, is the end to tarfile; that of a whole archive is a block of zeros.
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"the header at byte {archive.offset} is none")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or no tar archive: {error}") from error
