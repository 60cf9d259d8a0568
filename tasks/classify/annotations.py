"""Labels of a data set of images: folders named after classes, or a data set of torchvision."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from tasks.faults import Fault
from tasks.images import SUFFIXES, RGBImage, read_image
from tasks.labels import distinct
from tasks.probe import Inspection, probe


class LabelAnnotations(ABC):
    """Images with a class each.

    Args:
        files: (I,) image paths, or other names of images for messages.
        class_names: the K names; label k stands for `class_names[k]`. Names that occur twice are numbered.
        source: where the labels come from, for messages.

    Raises:
        ValueError: there are fewer than two classes.
    """

    def __init__(self, files: Sequence[str], class_names: Sequence[str], source: str | Path) -> None:
        if len(class_names) < 2:
            raise ValueError(f"{source}: has {len(class_names)} classes; accepted: 2 or more")
        self.files = np.array(files, dtype=np.str_)
        self.class_names, self.source = distinct(class_names), source

    def __len__(self) -> int:
        return len(self.files)

    @abstractmethod
    def labels_of(self) -> NDArray[np.int64] | None:
        """(I,) labels in 0..K-1; None where they show only on reading."""

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """The files that reading needs."""
        return {"image": self.files}

    def facts(self) -> bytes:
        """Nothing beside the files."""
        return b""

    @abstractmethod
    def select(self, kept: NDArray[np.int64]) -> "LabelAnnotations":
        """Returns those of some images, given by their ascending indices."""

    @abstractmethod
    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Finds what is wrong with image `index`; without `decode`, with its beginning."""

    @abstractmethod
    def read(self, index: int) -> tuple[RGBImage, int]:
        """Reads image `index`, (H, W, 3), and its label in 0..K-1.

        Raises:
            ValueError: it cannot be read; the message names it.
        """


class LabelledFiles(LabelAnnotations):
    """Image files, see `LabelAnnotations`.

    Args:
        files: (I,) image paths.
        labels: (I,) labels in 0..K-1.
        class_names: the K names.
        source: where the labels come from, for messages.
    """

    def __init__(self, files: Sequence[str], labels: NDArray[np.int64], class_names: Sequence[str], source: str | Path) -> None:
        super().__init__(files, class_names, source)
        self.labels = labels

    def labels_of(self) -> NDArray[np.int64]:
        """The labels, see `LabelAnnotations.labels_of`."""
        return self.labels

    def select(self, kept: NDArray[np.int64]) -> "LabelledFiles":
        """Returns those of some images, see `LabelAnnotations.select`."""
        return LabelledFiles(self.files[kept].tolist(), self.labels[kept], self.class_names, self.source)

    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Looks at a file, see `LabelAnnotations.inspect`."""
        return probe(str(self.files[index]), decode)

    def read(self, index: int) -> tuple[RGBImage, int]:
        """Reads a file, see `LabelAnnotations.read`."""
        return read_image(self.files[index]), int(self.labels[index])


class LabelledSet(LabelAnnotations):
    """A data set of torchvision, see `LabelAnnotations`.

    Args:
        dataset: gives a PIL image and a whole number for each index.
        class_names: the K names.
        source: what the data set is called in messages.
    """

    def __init__(self, dataset: Any, class_names: Sequence[str], source: str) -> None:
        super().__init__([f"image {number} of {source}" for number in range(len(dataset))], class_names, source)
        self.dataset = dataset

    def labels_of(self) -> None:
        """None: see `LabelAnnotations.labels_of`."""

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """None: torchvision's data sets do not name their files."""
        return {}

    def select(self, kept: NDArray[np.int64]) -> "LabelledSet":
        """Returns those of some images, see `LabelAnnotations.select`."""
        chosen = LabelledSet(Subset(self.dataset, kept.tolist()), self.class_names, str(self.source))
        chosen.files = self.files[kept]
        return chosen

    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Reads an image, see `LabelAnnotations.inspect`."""
        try:
            pixels, label = self.read(index)
        except ValueError as error:
            return Inspection([Fault("broken_image", str(error), str(self.files[index]))])
        return Inspection([], (pixels.shape[0], pixels.shape[1]), np.bincount([label], minlength=len(self.class_names)))

    def read(self, index: int) -> tuple[RGBImage, int]:
        """Reads one of the set's images, see `LabelAnnotations.read`."""
        try:
            image, label = self.dataset[index]
            pixels = np.array(image.convert("RGB"))
        except Exception as error:  # each data set and Pillow's readers raise their own
            raise ValueError(f"{self.files[index]}: cannot be read as an image with a label: {error}") from error
        if not isinstance(label, (int, np.integer)) or not 0 <= label < len(self.class_names):
            raise ValueError(f"{self.files[index]}: has the label {label!r}; accepted: 0 to {len(self.class_names) - 1}")
        return pixels, int(label)


def from_folders(folder: str | Path, labels_file: str | Path | None = None) -> LabelledFiles:
    """Lists the images in folders named after classes; the order of the classes is that of the sorted folders.

    Args:
        folder: holds a folder for each class, which is searched through.
        labels_file: names of the classes, one a line in the order of the sorted folders, where those of the folders will not do.

    Raises:
        ValueError: a folder or file does not exist, there are no images, or the names are not as many as the folders.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; images are looked for in {folder}/<class>/")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"{folder}: holds no images; accepted: {folder}/<class>/ with files of {', '.join(SUFFIXES)}")
    names = classes if labels_file is None else _read_names(Path(labels_file), len(classes), folder)
    return LabelledFiles(files, np.array(labels, dtype=np.int64), names, folder)


def _images(folder: Path) -> list[str]:
    found = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
    return sorted(path for path in found if path.lower().endswith(SUFFIXES))


def _read_names(path: Path, count: int, folder: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file of class names")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not a text file of class names in UTF-8: {error}") from error
    if len(names) != count:
        raise ValueError(f"{path}: has {len(names)} names, but {folder} has {count} folders of classes; accepted: one name a line for each")
    return names
