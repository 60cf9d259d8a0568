"""Detection data: COCO, VOC, one's own files in COCO's format, and the built-in shapes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heads import Targets
from tasks.detect.annotations import BoxAnnotations, from_coco, from_voc
from tasks.detect.transforms import Augmentation, LightAugmentation, ResizeOnly, apply
from tasks.download import Archive, fetch
from tasks.images import RGBImage, read_image
from tasks.labels import VOC_CLASSES
from tasks.shapes import SHAPE_CLASSES, default_root, ensure_shapes

COCO_URL = "http://images.cocodataset.org"
COCO_ARCHIVES = (
    Archive(
        f"{COCO_URL}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    Archive(f"{COCO_URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017"),
    Archive(f"{COCO_URL}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017"),
)
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
VOC_ARCHIVES = (
    Archive(
        f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar",
        "c52e279531787c972589f7e41ab4ae64",
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar",
        "b6e924de25625d8de591ea690078ad9f",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
    ),
)


class Sample(NamedTuple):
    """One image of a data set: (3, H, W) uint8, (N, 4) boxes, (N,) labels, original (height, width), and its position."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    size: tuple[int, int]
    position: int


class Batch(NamedTuple):
    """A batch as the model takes it.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        targets: boxes in pixels of `images`.
        sizes: (B, 2) int64 heights and widths of the original images.
        indices: (B,) int64 positions in the data set.
    """

    images: Tensor
    targets: Targets
    sizes: Tensor
    indices: Tensor


class BoxDataset(Dataset[Sample]):
    """Images with boxes, augmented; ignored objects are left out of the targets."""

    def __init__(self, annotations: BoxAnnotations, augmentation: Augmentation, size: tuple[int, int]) -> None:
        self.annotations = annotations
        self.pipeline = augmentation.compose(size)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        image = self._read(index)
        rows = self.annotations.of_image(index)
        used = ~self.annotations.ignored[rows]
        boxes, labels = self.annotations.boxes[rows][used], self.annotations.labels[rows][used]
        pixels, boxes, labels = apply(self.pipeline, image, boxes, labels)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return Sample(tensor, torch.from_numpy(boxes), torch.from_numpy(labels), (image.shape[0], image.shape[1]), index)

    def _read(self, index: int) -> RGBImage:
        path, size = self.annotations.files[index], tuple(self.annotations.sizes[index].tolist())
        # Boxes of COCO and VOC are drawn on the stored pixels; those of tools that turn pictures, on the turned ones.
        image = read_image(path, apply_exif=False)
        if 0 not in size and image.shape[:2] != size:
            image = read_image(path)
            if image.shape[:2] != size:
                found = f"{image.shape[0]} x {image.shape[1]}"
                raise ValueError(f"{path}: is {found} pixels high and wide, its annotations say {size[0]} x {size[1]}")
        return image


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples; memory stays in the order of channels_last."""
    images = torch.stack([sample.image.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    return Batch(
        images,
        Targets.collate([sample.boxes for sample in samples], [sample.labels for sample in samples]),
        torch.tensor([sample.size for sample in samples]),
        torch.tensor([sample.position for sample in samples]),
    )


class BoxData(L.LightningDataModule, ABC):
    """A data set with boxes.

    Args:
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0 or min(size) < 1:
            raise ValueError(
                f"size {size}, batch_size {batch_size}, num_workers {num_workers}: sizes and batches are at least 1, workers at least 0"
            )
        self.size, self.batch_size, self.augmentation, self.num_workers = size, batch_size, augmentation, num_workers

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the K foreground classes, in the order of their labels."""

    @abstractmethod
    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val`."""

    def setup(self, stage: str) -> None:
        """Reads the annotations.

        Raises:
            ValueError: they cannot be read, or the splits have different classes.
        """
        if not hasattr(self, "val_set"):
            self.val_set = BoxDataset(self.annotations("val"), ResizeOnly(), self.size)
        if stage == "fit" and not hasattr(self, "train_set"):
            self.train_set = BoxDataset(self.annotations("train"), self.augmentation, self.size)
            if not len(self.train_set):
                raise ValueError(f"{self.train_set.annotations.source}: holds no images to train on")
            check_same_classes(self.train_set.annotations, self.val_set.annotations)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled; the last, smaller batch is left out where there is a full one."""
        return self._loader(self.train_set, shuffle=True, drop_last=len(self.train_set) >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every image once, in order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[Sample]:
        """The validation images: none of these data sets has public test annotations."""
        return self._loader(self.val_set)

    def _loader(self, dataset: BoxDataset, shuffle: bool = False, drop_last: bool = False) -> DataLoader[Sample]:
        if self.num_workers == 0:
            dataset.pipeline.set_random_seed(torch.initial_seed() % 2**32)  # else the run's seed does not reach it
        return DataLoader(
            dataset,
            self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=partial(_start_worker, rank=self.trainer.global_rank if self.trainer else 0),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _start_worker(number: int, rank: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # else every worker starts as many threads as there are cores
    info = torch.utils.data.get_worker_info()
    assert info is not None  # only called in workers
    dataset: Any = info.dataset
    dataset.pipeline.set_random_seed((info.seed + rank * 1_000_003) % 2**32)  # else all workers draw the same augmentations


def check_same_classes(train: BoxAnnotations, val: BoxAnnotations) -> None:
    """Refuses splits with different classes, which would train and score 0 in silence.

    Raises:
        ValueError: names the classes that only one split has, or says that their order differs.
    """
    if train.class_names != val.class_names:
        differing = set(train.class_names) ^ set(val.class_names)
        what = f"the classes {', '.join(sorted(differing))}" if differing else "the order of the classes"
        raise ValueError(f"{train.source} and {val.source} differ in {what}; both need the same categories")


class Coco(BoxData):
    """COCO, or any data set in its format; class names are those of the annotation files.

    Args:
        root: folder with `train2017/`, `val2017/` and `annotations/`.
        train_images: folder of the training images, if not `root/train2017`.
        train_annotations: their annotation file, if not `root/annotations/instances_train2017.json`.
        val_images: folder of the validation images, if not `root/val2017`.
        val_annotations: their annotation file, if not `root/annotations/instances_val2017.json`.
        download: fetch COCO 2017 (19 GB) into `root` where it is missing.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
    """

    def __init__(
        self,
        root: str = "data/coco",
        train_images: str | None = None,
        train_annotations: str | None = None,
        val_images: str | None = None,
        val_annotations: str | None = None,
        download: bool = False,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
        base = Path(root)
        self.root, self.download = base, download
        self.sources = {
            "train": (Path(train_images or base / "train2017"), Path(train_annotations or base / "annotations/instances_train2017.json")),
            "val": (Path(val_images or base / "val2017"), Path(val_annotations or base / "annotations/instances_val2017.json")),
        }
        self._read: dict[str, BoxAnnotations] = {}

    def prepare_data(self) -> None:
        """Downloads COCO where `download` says so."""
        if self.download:
            fetch(COCO_ARCHIVES, self.root)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the validation annotations, by ascending category id."""
        self.prepare_data()
        return self.annotations("val").class_names

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val`, once."""
        if split not in self._read:
            folder, file = self.sources[split]
            self._read[split] = from_coco(file, folder)
        return self._read[split]


class Voc(BoxData):
    """PASCAL VOC's 20 classes of boxes.

    Args:
        root: the VOCdevkit folder, which holds `VOC2007/` and `VOC2012/`.
        train_splits: what to train on, as year/split; the usual 07+12 is 2007/trainval and 2012/trainval.
        val_splits: what to evaluate on, as year/split.
        download: fetch VOC 2007 and 2012 (3 GB) where they are missing; `root` must then end in VOCdevkit.
        train_difficult: train on objects marked difficult too; they never count in evaluation.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.

    Raises:
        ValueError: a split is not written as year/split.
    """

    def __init__(
        self,
        root: str = "data/VOCdevkit",
        train_splits: Sequence[str] = ("2007/trainval", "2012/trainval"),
        val_splits: Sequence[str] = ("2007/test",),
        download: bool = False,
        train_difficult: bool = False,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
        self.root, self.download, self.train_difficult = Path(root), download, train_difficult
        wrong = [split for split in [*train_splits, *val_splits] if split.count("/") != 1]
        if wrong:
            raise ValueError(f"split {wrong[0]!r} is not possible; accepted: year/split, such as 2012/trainval")
        self.splits = {"train": train_splits, "val": val_splits}

    def prepare_data(self) -> None:
        """Downloads VOC where `download` says so."""
        if self.download:
            if self.root.name != "VOCdevkit":
                raise ValueError(f"root {self.root} cannot be downloaded to; accepted: a folder named VOCdevkit, as in the archives")
            fetch(VOC_ARCHIVES, self.root.parent)

    @property
    def class_names(self) -> tuple[str, ...]:
        """VOC's 20 classes."""
        return VOC_CLASSES

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the boxes of `train` or `val`."""
        pairs = [(year, name) for year, _, name in (s.partition("/") for s in self.splits[split])]
        read = from_voc(self.root, pairs)
        if split == "train" and self.train_difficult:
            read.ignored[:] = False
        return read


class Shapes(BoxData):
    """The built-in data set of drawn shapes (see `tasks.shapes`), for first runs and tests; drawn once and kept.

    Args:
        root: folder to keep the pictures in; by default the user's cache folder.
        train_images: number of training pictures.
        val_images: number of validation pictures.
        seed: another seed draws other pictures.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
    """

    def __init__(
        self,
        root: str | None = None,
        train_images: int = 2000,
        val_images: int = 200,
        seed: int = 0,
        size: tuple[int, int] = (192, 192),
        batch_size: int = 32,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
        self.root, self.counts, self.seed = root or default_root(), (train_images, val_images), seed

    def prepare_data(self) -> None:
        """Draws the pictures where they are missing."""
        ensure_shapes(self.root, *self.counts, self.seed)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the shapes."""
        return SHAPE_CLASSES

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val` with the COCO reader."""
        folder = ensure_shapes(self.root, *self.counts, self.seed)
        return from_coco(folder / "annotations" / f"instances_{split}.json", folder / split)
