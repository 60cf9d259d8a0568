"""Augmentation of images with boxes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.augment import Pipeline, check_shares
from tasks.colours import Colours


class Augmentation(ABC):
    """A recipe that turns a training image into an input of the network."""

    @abstractmethod
    def compose(self, size: tuple[int, int]) -> Any:
        """Returns what makes an input of `size` (height, width) of an image with boxes in pixels and their labels.

        It is a `tasks.augment.Pipeline`, or a pipeline of albumentations with boxes as `pascal_voc` and the label field `labels`.
        """


class ResizeOnly(Augmentation):
    """Resizes, as evaluation does."""

    def compose(self, size: tuple[int, int]) -> Any:
        """One resize."""
        import albumentations as A

        from tasks.detect.window import SmoothResize

        boxes = A.BboxParams(
            format="pascal_voc",
            label_fields=["labels"],
            min_width=1,
            min_height=1,
            clip=True,
            filter_invalid_bboxes=True,
        )
        return A.Compose([SmoothResize(size)], bbox_params=boxes)


class LightAugmentation(Augmentation):
    """A crop that keeps every object in view, mirroring, and mild changes of colour.

    Args:
        crop: probability of the crop.
        colour: strength of the changes of brightness, contrast and saturation, as a share.
    """

    def __init__(self, crop: float = 0.5, colour: float = 0.2) -> None:
        check_shares(crop=crop, colour=colour)
        self.crop, self.colour = crop, colour

    def compose(self, size: tuple[int, int]) -> Pipeline:
        """Safe crop and resize in one, flip, colour."""
        from tasks.detect.window import SafeWindow

        return Pipeline(size, SafeWindow(self.crop), 0.5, Colours(self.colour, self.colour), sampling="triangle")


class SSDAugmentation(Augmentation):
    """SSD's recipe (Liu et al. 2016, section 2.2 and 3.6): zoom out, crop by overlap, mirror, change colours.

    The window is chosen first, so that one resize serves zooming, cropping and resizing, and colours change at the final size.

    Args:
        expand: largest side of the zoomed-out canvas in image sides; 4 in SSD, 1 never zooms out.
        expand_probability: how often to zoom out; one half in SSD.
        min_overlaps: a crop overlaps some object by at least one of these, drawn at random; 1 means no crop. As in TensorFlow's
            ssd_random_crop, the overlap is the share of the object that is in the crop.
        min_scale: least side of a crop in image sides; .3 in SSD.
        min_visibility: share of an object that must be in the crop for its box to be kept; TensorFlow's recipe keeps boxes from .15 on.
        colour: strength of the changes of contrast and saturation, as a share (.5 in SSD's code); brightness changes by a quarter of it.
    """

    def __init__(
        self,
        expand: float = 4.0,
        expand_probability: float = 0.5,
        min_overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        min_scale: float = 0.3,
        min_visibility: float = 0.15,
        colour: float = 0.5,
    ) -> None:
        check_shares(expand_probability=expand_probability, min_scale=min_scale, min_visibility=min_visibility, colour=colour)
        if not 1 <= expand <= 100 or not min_overlaps or not 0 <= min(min_overlaps) <= max(min_overlaps) <= 1:
            raise ValueError(f"expand {expand}, min_overlaps {list(min_overlaps)}: accepted: 1 to 100, and one or more of 0 to 1")
        self.expand, self.expand_probability = expand, expand_probability
        self.min_overlaps, self.min_scale = tuple(min_overlaps), min_scale
        self.min_visibility, self.colour = min_visibility, colour

    def compose(self, size: tuple[int, int]) -> Pipeline:
        """Window and resize in one, flip, colour."""
        from tasks.detect.window import OverlapWindow

        window = OverlapWindow(self.expand, self.expand_probability, self.min_overlaps, self.min_scale, self.min_visibility)
        colours = Colours(self.colour / 4, self.colour)
        return Pipeline(size, window, 0.5, colours, min_visibility=self.min_visibility, sampling="triangle")


def apply(
    pipeline: Any, image: NDArray[np.uint8], boxes: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Runs a composed pipeline on an (H, W, 3) image with (N, 4) boxes in pixels and (N,) labels."""
    out = pipeline(image=image, bboxes=boxes, labels=labels)
    return (
        out["image"],
        np.asarray(out["bboxes"], dtype=np.float32).reshape(-1, 4),
        np.asarray(out["labels"], dtype=np.int64).reshape(-1),
    )
