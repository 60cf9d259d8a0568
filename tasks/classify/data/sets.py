"""Folders of classes, data sets of torchvision, and the built-in shapes."""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.classify.annotations import LabelAnnotations, LabelledFiles, LabelledSet, from_folders
from tasks.classify.data.base import ImageData
from tasks.classify.model import CROP
from tasks.classify.transforms import Augmentation, InceptionAugmentation
from tasks.faults import OnFault
from tasks.shapes import SHAPE_CLASSES, default_root, ensure_shape_folders

# Where torchvision's data sets keep the names of the classes, and the labels.
NAME_ATTRIBUTES, LABEL_ATTRIBUTES = ("classes", "categories"), ("targets", "labels", "_labels")


class ImageFolder(ImageData):
    """ImageNet, or one's own images, in a folder for each class; the folders' names are those of the classes.

    Args:
        root: folder with `train/<class>/` and `val/<class>/`.
        train_images: folder of the training images' classes, if not `root/train`.
        val_images: folder of the validation images' classes, if not `root/val`.
        labels: a file with a name a line for the sorted folders, such as words for ImageNet's numbers; by default the folders' names.
        size: height and width of the network's input in pixels.
        crop: side of the part in the middle of an image that evaluation looks at, as a share of the largest that fits.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
    """

    def __init__(
        self,
        root: str = "data/imagenet",
        train_images: str | None = None,
        val_images: str | None = None,
        labels: str | None = None,
        size: tuple[int, int] = (224, 224),
        crop: float = CROP,
        batch_size: int = 64,
        augmentation: Augmentation = InceptionAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop, batch_size, augmentation, num_workers, on_fault)
        self.folders, self.labels = {"train": train_images or f"{root}/train", "val": val_images or f"{root}/val"}, labels

    def read_annotations(self, split: str) -> LabelledFiles:
        """Lists the files of `train` or `val`."""
        return from_folders(self.folders[split], self.labels)


class Torchvision(ImageData):
    """A data set of torchvision, such as CIFAR10, CIFAR100, Flowers102, Food101, FGVCAircraft, OxfordIIITPet, STL10 or Imagenette.

    Args:
        name: its class in torchvision.datasets.
        root: folder that it is kept in.
        train_split: what to train on, by torchvision's name; `train` or `test` where torchvision knows no other.
        val_split: what to evaluate on, by torchvision's name: test, val, ...
        download: fetch it where it is missing.
        names: names of the classes, for sets that come without; by default numbers.
        size: height and width of the network's input in pixels.
        crop: side of the part in the middle of an image that evaluation looks at, as a share of the largest that fits.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.

    Raises:
        ValueError: torchvision has no such data set with splits.
    """

    def __init__(
        self,
        name: str = "CIFAR10",
        root: str = "data",
        train_split: str = "train",
        val_split: str = "test",
        download: bool = False,
        names: Sequence[str] | None = None,
        size: tuple[int, int] = (224, 224),
        crop: float = CROP,
        batch_size: int = 64,
        augmentation: Augmentation = InceptionAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop, batch_size, augmentation, num_workers, on_fault)
        self.set_name, self.root, self.download, self.names = name, Path(root), download, names
        self.splits = {"train": train_split, "val": val_split}
        self.builder = _find(name)

    def prepare_data(self) -> None:
        """Downloads both splits where `download` says so."""
        if self.download:
            if "download" not in inspect.signature(self.builder).parameters:
                raise ValueError(f"torchvision cannot download {self.set_name}; get it by hand and set download to false")
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{self.set_name}.lock"):  # the processes of one run may all come here
                for split in self.splits.values():
                    self._build(split, download=True)

    def read_annotations(self, split: str) -> LabelAnnotations:
        """Opens `train` or `val`."""
        dataset = self._build(self.splits[split])
        return LabelledSet(dataset, self.names or _names(dataset, self.set_name), f"{self.set_name} {self.splits[split]}")

    def _build(self, split: str, **options: Any) -> Any:
        try:
            if "split" in inspect.signature(self.builder).parameters:
                return self.builder(str(self.root), split=split, **options)
            if split not in ("train", "test"):
                raise ValueError(f"there is no split {split!r}; accepted: train, test")
            return self.builder(str(self.root), train=split == "train", **options)
        except Exception as error:  # each data set and the network raise their own
            hint = "" if self.download else "; --data.download true fetches it"
            raise ValueError(
                f"torchvision's {self.set_name} {split!r} in {self.root} cannot be used: {str(error).strip()}{hint}"
            ) from error


class Shapes(ImageData):
    """The built-in data set of drawn shapes (see `tasks.shapes`), for first runs and tests; drawn once and kept.

    Args:
        root: folder to keep the pictures in; by default the user's cache folder.
        train_images: number of training pictures.
        val_images: number of validation pictures.
        seed: another seed draws other pictures.
        size: height and width of the network's input in pixels.
        crop: side of the part in the middle of an image that evaluation looks at, as a share of the largest that fits.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
    """

    def __init__(
        self,
        root: str | None = None,
        train_images: int = 2000,
        val_images: int = 500,
        seed: int = 0,
        size: tuple[int, int] = (80, 80),
        crop: float = 1.0,
        batch_size: int = 32,
        augmentation: Augmentation = InceptionAugmentation(min_scale=0.5),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop, batch_size, augmentation, num_workers, on_fault)
        self.root, self.counts, self.seed = root or default_root(), (train_images, val_images), seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the shapes, sorted as their folders are."""
        return tuple(sorted(SHAPE_CLASSES))

    def prepare_data(self) -> None:
        """Draws the pictures where they are missing."""
        ensure_shape_folders(self.root, *self.counts, self.seed)

    def read_annotations(self, split: str) -> LabelledFiles:
        """Lists the pictures of `train` or `val`."""
        return from_folders(ensure_shape_folders(self.root, *self.counts, self.seed) / split)


def _find(name: str) -> Callable[..., Any]:
    """The class of that name in torchvision.datasets."""
    from torchvision import datasets

    known = [n for n in datasets.__all__ if {"train", "split"} & set(inspect.signature(getattr(datasets, n)).parameters)]
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        accepted = f"did you mean {' or '.join(near)}?" if near else f"accepted: {', '.join(sorted(known))}"
        raise ValueError(f"torchvision has no data set {name!r} with splits; {accepted}")
    found: Callable[..., Any] = getattr(datasets, name)
    return found


def _names(dataset: Any, name: str) -> list[str]:
    for attribute in NAME_ATTRIBUTES:
        if found := getattr(dataset, attribute, None):
            return [entry if isinstance(entry, str) else str(entry[0]) for entry in found]  # Imagenette gives synonyms
    for attribute in LABEL_ATTRIBUTES:
        if (labels := getattr(dataset, attribute, None)) is not None and len(labels):
            return [str(label) for label in range(int(max(labels)) + 1)]
    raise ValueError(f"torchvision's {name} comes without names of its classes; give them by --data.names")
