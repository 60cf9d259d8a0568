"""What all segmentation data sets share: samples and batches."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.augment import check_recipe
from tasks.data import TaskData
from tasks.faults import OnFault
from tasks.segment.annotations import MaskAnnotations
from tasks.segment.transforms import Augmentation, DeepLabAugmentation, Unchanged


class Sample(NamedTuple):
    """One image of a data set: (3, H, W) uint8, (H, W) uint8 mask, and its position."""

    image: Tensor
    mask: Tensor
    position: int


class Batch(NamedTuple):
    """A batch as the training module takes it: crops of one size in training, whole images of any size in evaluation.

    Attributes:
        images: (3, H, W) uint8 RGB, one an image.
        masks: (H, W) uint8 class indices, 255 for void, one an image.
        indices: (B,) int64 positions in the data set.
    """

    images: list[Tensor]
    masks: list[Tensor]
    indices: Tensor


class MaskDataset(Dataset[Sample]):
    """Images with masks, augmented."""

    def __init__(self, annotations: MaskAnnotations, augmentation: Augmentation, size: tuple[int, int]) -> None:
        self.annotations = annotations
        self.pipeline = augmentation.compose(size)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        image, mask = self.annotations.read(index)
        changed = self.pipeline(image=image, mask=mask)
        pixels = torch.from_numpy(np.ascontiguousarray(changed["image"])).permute(2, 0, 1)
        return Sample(pixels, torch.from_numpy(np.ascontiguousarray(changed["mask"])), index)


def collate(samples: Sequence[Sample]) -> Batch:
    """Lists images and masks."""
    return Batch([s.image for s in samples], [s.mask for s in samples], torch.tensor([s.position for s in samples]))


class MaskData(TaskData):
    """A data set with masks.

    Args:
        size: height and width of the network's input in evaluation; larger images are reduced to it, smaller ones padded.
        crop_size: height and width of training crops; by default `size`.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.

    Raises:
        ValueError: an argument is out of range.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        size: tuple[int, int] = (513, 513),
        crop_size: tuple[int, int] | None = None,
        batch_size: int = 16,
        augmentation: Augmentation = DeepLabAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, batch_size, num_workers, on_fault)
        self.crop_size, self.augmentation = crop_size or size, check_recipe(augmentation)
        if min(self.crop_size) < 1:
            raise ValueError(f"crop_size {crop_size} is not possible; accepted: heights and widths of at least 1")

    @abstractmethod
    def annotations(self, split: str) -> MaskAnnotations:
        """Lists the images and masks of `train` or `val`."""

    def dataset(self, split: str) -> MaskDataset:
        """Builds the data set of `train`, augmented, or of `val`, as it is; looks at some masks of it first."""
        annotations = self.usable(split)
        annotations.check()
        return MaskDataset(annotations, self.augmentation if split == "train" else Unchanged(), self.crop_size)
