"""What all detection data sets share: samples and batches."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from heads import Targets
from tasks.augment import check_recipe
from tasks.cache import REACH, CacheFormat, ImageCache
from tasks.data import TaskData, stack_images
from tasks.detect.annotations import BoxAnnotations
from tasks.detect.transforms import Augmentation, LightAugmentation, ResizeOnly, apply
from tasks.faults import OnFault
from tasks.images import RGBImage, read_annotated


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

    def __init__(
        self, annotations: BoxAnnotations, augmentation: Augmentation, size: tuple[int, int], cache: ImageCache | None = None
    ) -> None:
        self.annotations, self.cache = annotations, cache
        self.pipeline = augmentation.compose(size)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        image, size = self._read(index)
        rows = self.annotations.of_image(index)
        used = ~self.annotations.ignored[rows]
        boxes, labels = self.annotations.boxes[rows][used], self.annotations.labels[rows][used]
        if image.shape[:2] != size:
            boxes = boxes * (np.array(image.shape[1::-1]) / size[::-1])[[0, 1, 0, 1]]
        pixels, boxes, labels = apply(self.pipeline, image, boxes, labels)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return Sample(tensor, torch.from_numpy(boxes), torch.from_numpy(labels), size, index)

    def _read(self, index: int) -> tuple[RGBImage, tuple[int, int]]:
        """The image, maybe a reduced one, and its original height and width."""
        height, width = self.annotations.sizes[index].tolist()
        file, origin = self.annotations.files[index], str(self.annotations.source or "its annotations")
        if self.cache is not None:
            return self.cache.read(file, (height, width), origin)
        image = read_annotated(file, (height, width), origin)
        return image, (image.shape[0], image.shape[1])


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples."""
    return Batch(
        stack_images([sample.image for sample in samples]),
        Targets.collate([sample.boxes for sample in samples], [sample.labels for sample in samples]),
        torch.tensor([sample.size for sample in samples]),
        torch.tensor([sample.position for sample in samples]),
    )


class BoxData(TaskData):
    """A data set with boxes.

    Args:
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
        cache: folder that keeps training images reduced to 1.4 times the longer side of `size`, which makes later epochs and runs faster:
            about 60 kB an image for 320 pixels. Evaluation reads the originals.
        cache_format: `jpeg`, or `raw` for bytes that need no decoding: faster still where some 450 kB an image can be kept in memory.

    Raises:
        ValueError: an argument is out of range.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
        cache: str | None = None,
        cache_format: CacheFormat = "jpeg",
    ) -> None:
        super().__init__(size, batch_size, num_workers, on_fault)
        self.augmentation = check_recipe(augmentation)
        self.cache, self.cache_format = cache, cache_format

    @abstractmethod
    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val`."""

    def dataset(self, split: str) -> BoxDataset:
        """Builds the data set of `train`, augmented, or of `val`, only resized."""
        if split != "train":
            return BoxDataset(self.usable(split), ResizeOnly(), self.size)
        cache = None if self.cache is None else ImageCache(self.cache, round(REACH * max(self.size)), self.cache_format)
        return BoxDataset(self.usable(split), self.augmentation, self.size, cache)
