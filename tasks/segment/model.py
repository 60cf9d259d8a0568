"""The segmenter as a plain module: backbone, head and normalisation, without Lightning."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from backbones import Backbone, Tap
from heads import SegmentationHead
from tasks.export.engines import Engine
from tasks.images import RGBImage, rgb_pixels
from tasks.model import IMAGENET_MEAN, IMAGENET_STD, TaskModel

HeadBuilder = Callable[[dict[str, Tap], int], SegmentationHead]

# Step of the sliding window in window sides, as in mmsegmentation's UPerNet settings for ConvNeXt (341 of 512).
WINDOW_STEP = 2 / 3


class Segmenter(TaskModel):
    """A backbone with a segmentation head that takes images as they are.

    Args:
        backbone: makes the features.
        head: builds the head from the backbone's taps and the number of classes; a head class, or a partial of one.
        class_names: names of the K classes, background first; mask value v is `class_names[v]`.
        size: height and width of the network's input in `segment` and `predict`.
        mean: per channel, of RGB in 0..1, subtracted from images.
        std: per channel, of RGB in 0..1, that images are then divided by.
        scales: sizes at which `segment` looks at an image, in sizes of the input; probabilities are averaged.
        flip: whether `segment` looks at the mirror image too.
        sliding: whether `segment` moves a window of `size` over larger images, instead of reducing them to it.

    Raises:
        ValueError: there is no scale, or one is not positive.
    """

    kind = "segmenter"
    head_class = SegmentationHead

    def __init__(
        self,
        backbone: Backbone,
        head: HeadBuilder,
        class_names: Sequence[str],
        size: tuple[int, int] = (513, 513),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        sliding: bool = False,
    ) -> None:
        super().__init__(backbone, head(backbone.taps, len(class_names)), class_names, size, mean, std)
        self.set_looks(scales, flip, sliding)

    def set_looks(self, scales: Sequence[float] = (1.0,), flip: bool = False, sliding: bool = False) -> None:
        """Sets how `segment` looks at images; arguments and errors as of the class."""
        if not scales or not all(0 < scale <= 100 for scale in scales):
            raise ValueError(f"scales {list(scales)} are not possible; accepted: one or more positive numbers up to 100")
        self.scales, self.flip, self.sliding = tuple(float(scale) for scale in scales), flip, sliding
        if self.engine is not None:
            self._check_single_look()

    def forward(self, images: Tensor) -> Tensor:
        """Scores every pixel.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, of any size.

        Returns:
            (B, K, H, W) logits.
        """
        logits: Tensor = self.head.upsample(self.cells(images), images.shape[2:])
        return logits

    def cells(self, images: Tensor) -> Tensor:
        """Scores the same images at the head's own resolution: (B, K, h, w) logits."""
        if self.engine is not None:
            (found,) = self._run_engine(images, torch.tensor([images.shape[2:]] * len(images)))
            return found
        return self._cells(self.normalise(images))

    def _cells(self, pixels: Tensor) -> Tensor:
        """Logits of normalised images at the head's own resolution."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        cells: Tensor = self.predictions(pixels)
        return cells

    @torch.no_grad()
    def segment(self, images: Sequence[Tensor], enlarge: bool = False) -> list[Tensor]:
        """Finds the class of every pixel.

        Args:
            images: (3, H, W) uint8 RGB, one an image, of any size.
            enlarge: whether smaller images are enlarged to the network's input, instead of padded.

        Returns:
            One (H, W) uint8 map of class indices an image.

        Raises:
            ValueError: an image is of another kind.
        """
        for image in images:
            if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
                raise ValueError(f"an image is {tuple(image.shape)} of {image.dtype}; accepted: (3, H, W) uint8 RGB")
        if self.sliding:
            return [self._slide(image) if self._share(image) < 1 else self._whole([image], enlarge)[0] for image in images]
        with self._threads():
            return self._whole(images, enlarge)

    def predict(self, image: str | Path | RGBImage) -> Tensor:
        """Finds the class of every pixel of one image, whose longer side is brought to the network's input as in research/deeplab's demo.

        Args:
            image: a file, turned as its EXIF orientation says, or (H, W, 3) uint8 RGB pixels.

        Returns:
            (H, W) uint8 class indices. The module is in evaluation mode afterwards.

        Raises:
            ValueError: the file cannot be read as an image, or the pixels are of another kind.
        """
        pixels = rgb_pixels(image)
        return self.judging().segment([torch.from_numpy(pixels).permute(2, 0, 1).to(self.mean.device)], enlarge=True)[0]

    def run_by(self, engine: Engine) -> Self:
        """Lets an exported file compute, see `TaskModel.run_by`.

        Raises:
            ValueError: it is of another model, or `segment` is to look at images more than once.
        """
        self._check_single_look()
        return super().run_by(engine)

    def _check_single_look(self) -> None:
        if self.scales != (1.0,) or self.flip or self.sliding:
            raise ValueError("an exported file looks at whole images once; accepted: scales 1.0, no flip, no sliding")

    def describe(self) -> dict[str, Any]:
        """Returns plain values from which `from_checkpoint` builds the same architecture, see `TaskModel.describe`."""
        return super().describe() | {"scales": list(self.scales), "flip": self.flip, "sliding": self.sliding}

    def _padded(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """(1, 3, height, width) normalised image, padded with the mean colour on the right and at the bottom."""
        height, width = image.shape[1:]
        pixels = self.normalise(image[None])
        canvas = pixels.new_zeros(1, *size, 3).permute(0, 3, 1, 2)
        canvas[:, :, :height, :width] = pixels
        return canvas

    def _whole(self, images: Sequence[Tensor], enlarge: bool) -> list[Tensor]:
        """Looks at whole images, each at the top left of the input."""
        shown = [self.fit(image, enlarge) for image in images]
        contents, sizes = (torch.tensor([image.shape[1:] for image in group]) for group in (shown, images))
        if self.engine is not None:
            (scores,) = self._run_engine(torch.cat([cornered(image, self.size) for image in shown]), contents)
        else:
            pixels = torch.cat([self._padded(image, self.size) for image in shown])
            scores = self._cells(pixels) if self.scales == (1.0,) and not self.flip else self._probabilities(pixels)
        maps: list[Tensor] = self.head.postprocess(scores, self.size, contents, sizes)
        return maps

    def _share(self, image: Tensor) -> float:
        """Size at which an image fills the input, in sizes of its own."""
        return min(self.size[0] / image.shape[1], self.size[1] / image.shape[2])

    def fit(self, image: Tensor, enlarge: bool) -> Tensor:
        """Makes a larger (3, H, W) uint8 image fit into the input, keeping its sides' ratio; a smaller one too if wanted."""
        share = self._share(image)
        if share == 1 or (share > 1 and not enlarge):
            return image
        size = [max(round(side * share), 1) for side in image.shape[1:]]
        pixels = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # keeps the order in memory: the result of `image[None]` has another one
        pixels = pixels if image.device.type == "cpu" else pixels.float()  # only CPUs interpolate integers, and round at once
        fitted = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
        return fitted if fitted.dtype == torch.uint8 else fitted.round().clamp(0, 255).to(torch.uint8)

    def _probabilities(self, pixels: Tensor) -> Tensor:
        """(B, K, H, W) probabilities of normalised images, averaged over scales and mirror images."""
        size = pixels.shape[2:]
        total: Tensor | float = 0.0
        for scale in self.scales:
            # research/deeplab's scale_dimension: sizes of the form 16 n + 1 stay so.
            scaled_size = [max(round((side - 1) * scale) + 1, 1) for side in size]
            scaled = F.interpolate(pixels, scaled_size, mode="bilinear", align_corners=self.head.align_corners)
            looks = [scaled, scaled.flip(3)] if self.flip else [scaled]
            for number, look in enumerate(looks):
                cells = self._cells(look).float()
                found = self.head.upsample(cells.flip(3) if number else cells, size).softmax(dim=1)
                total = total + found
        return total / (len(self.scales) * (2 if self.flip else 1))  # type: ignore[return-value]

    def _slide(self, image: Tensor) -> Tensor:
        """Averages the probabilities of overlapping windows."""
        height, width = image.shape[1:]
        size = (max(height, self.size[0]), max(width, self.size[1]))
        pixels = self._padded(image, size)
        total = pixels.new_zeros(len(self.class_names), *size)
        counts = pixels.new_zeros(size)
        for rows, columns in windows(size, self.size):
            total[:, rows, columns] += self._probabilities(pixels[:, :, rows, columns])[0]
            counts[rows, columns] += 1
        return (total / counts)[:, :height, :width].max(dim=0).indices.to(torch.uint8)


def cornered(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a (1, 3, height, width) image with a (3, H, W) one at the top left, with memory in the order of channels_last."""
    canvas = image.new_zeros(1, *size, 3)
    canvas[0, : image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
    return canvas.permute(0, 3, 1, 2)


def windows(size: tuple[int, int], window: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yields the rows and columns of windows that cover an area, evenly spread and overlapping by at least a third."""
    starts = []
    for whole, side in zip(size, window, strict=True):
        count = -(-(whole - side) // max(int(side * WINDOW_STEP), 1)) + 1
        starts.append([round(number * (whole - side) / max(count - 1, 1)) for number in range(count)])
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, top + window[0]), slice(left, left + window[1])
