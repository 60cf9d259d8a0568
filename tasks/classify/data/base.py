"""What all classification data sets share: samples and batches."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.augment import check_recipe
from tasks.classify.annotations import LabelAnnotations
from tasks.classify.model import CROP, check_crop
from tasks.classify.transforms import Augmentation, CentreOnly, InceptionAugmentation
from tasks.data import TaskData, stack_images
from tasks.faults import OnFault


class Sample(NamedTuple):
    """One image of a data set: (3, H, W) uint8, its label, and its position."""

    image: Tensor
    label: int
    position: int


class Batch(NamedTuple):
    """A batch as the training module takes it.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        labels: (B,) int64 in 0..K-1.
        indices: (B,) int64 positions in the data set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class ImageDataset(Dataset[Sample]):
    """Images with labels, augmented."""

    def __init__(self, annotations: LabelAnnotations, augmentation: Augmentation, size: tuple[int, int]) -> None:
        self.annotations = annotations
        self.pipeline = augmentation.compose(size)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.annotations.read(index)
        pixels = self.pipeline(image=image)["image"]
        return Sample(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), label, index)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples."""
    return Batch(
        stack_images([sample.image for sample in samples]),
        torch.tensor([sample.label for sample in samples]),
        torch.tensor([sample.position for sample in samples]),
    )


class ImageData(TaskData):
    """A data set of images with a class each.

    Args:
        size: height and width of the network's input in pixels.
        crop: side of the part in the middle of an image that evaluation looks at, as a share of the largest that fits.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.

    Raises:
        ValueError: an argument is out of range.
    """

    linked, example = (*TaskData.linked, "crop"), "ImageFolder"
    collate = staticmethod(collate)

    def __init__(
        self,
        size: tuple[int, int] = (224, 224),
        crop: float = CROP,
        batch_size: int = 64,
        augmentation: Augmentation = InceptionAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, batch_size, num_workers, on_fault)
        self.crop, self.augmentation = check_crop(crop), check_recipe(augmentation)
        self._read: dict[str, LabelAnnotations] = {}

    @abstractmethod
    def read_annotations(self, split: str) -> LabelAnnotations:
        """Lists the images and labels of `train` or `val`."""

    def annotations(self, split: str) -> LabelAnnotations:
        """Lists the images and labels of `train` or `val`, once."""
        if split not in self._read:
            self.new_faults(split)
            self._read[split] = self.read_annotations(split)
        return self._read[split]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the validation split's classes."""
        self.prepare_data()
        return self.annotations("val").class_names

    def dataset(self, split: str) -> ImageDataset:
        """Builds the data set of `train`, augmented, or of `val`, of which the middle is looked at."""
        return ImageDataset(self.usable(split), self.augmentation if split == "train" else CentreOnly(self.crop), self.size)
