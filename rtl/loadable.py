"""What a driver needs of a program, in one small file: build on one computer, run on another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsim.program import Program
from hwsim.whole_file import written_whole
from rtl.bus import register_map

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadableProgram:
    """A program ready to be sent to the accelerator.

    Parameters
    ----------
    configuration : mapping of str to mapping of str to int
        Constant registers of the machine it was made for: register -> field -> value.
    words : ndarray of uint32, shape (words,)
        What the load stream takes.
    slots : mapping of str to int
        Name of an assignment -> what the run command names.
    image_shape : (channels, height, width)
    classes : int
    """

    configuration: Mapping[str, Mapping[str, int]]
    words: NDArray[np.uint32]
    slots: Mapping[str, int]
    image_shape: tuple[int, int, int]
    classes: int

    @classmethod
    def from_program(cls, program: Program) -> LoadableProgram:
        """Return what a driver needs of ``program``."""
        return cls(
            configuration=register_map.configuration(program.machine),
            words=program.load_words(),
            slots={name: part.slot for name, part in program.assignments.items()},
            image_shape=program.network.image_shape,
            classes=program.network.classes,
        )

    @property
    def image_bytes(self) -> int:
        """Bytes of an image."""
        channels, height, width = self.image_shape
        return channels * height * width

    def save(self, path: Path) -> None:
        """Write the file (NumPy's .npz), a whole one."""
        description = {
            "format_version": FORMAT_VERSION,
            "configuration": self.configuration,
            "slots": self.slots,
            "image_shape": self.image_shape,
            "classes": self.classes,
        }
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, words=self.words, description=np.array(json.dumps(description)))

    @classmethod
    def load(cls, path: Path) -> LoadableProgram:
        """Read what ``save`` wrote.

        Raises
        ------
        ValueError
            If the file has another format version.
        """
        with np.load(path, allow_pickle=False) as file:
            description, words = json.loads(str(file["description"])), file["words"]
        version = description.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"{path}: format_version must be {FORMAT_VERSION}, not {version}")
        description["image_shape"] = tuple(description["image_shape"])
        return cls(words=words, **description)
