"""What all detection data sets share: samples, batches, loaders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heads import Targets
from tasks.detect.annotations import BoxAnnotations
from tasks.detect.transforms import Augmentation, LightAugmentation, ResizeOnly, apply
from tasks.images import RGBImage, read_image


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
                raise ValueError(f"{self.train_set.annotations.source or 'the training split'}: holds no images to train on")
            check_same_classes(self.train_set.annotations, self.val_set.annotations)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled; the last, smaller batch is left out where there is a full one."""
        world_size = self.trainer.world_size if self.trainer else 1
        return self._loader(self.train_set, shuffle=True, drop_last=len(self.train_set) // world_size >= self.batch_size)

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
    info: Any = torch.utils.data.get_worker_info()  # never None in a worker
    info.dataset.pipeline.set_random_seed((info.seed + rank * 1_000_003) % 2**32)  # else all workers draw the same augmentations


def check_same_classes(train: BoxAnnotations, val: BoxAnnotations) -> None:
    """Refuses splits with different classes, which would train and score 0 in silence.

    Raises:
        ValueError: names the classes that only one split has, or says that their order differs.
    """
    if train.class_names != val.class_names:
        differing = set(train.class_names) ^ set(val.class_names)
        what = f"the classes {', '.join(sorted(differing))}" if differing else "the order of the classes"
        raise ValueError(f"{train.source} and {val.source} differ in {what}; both need the same categories")
