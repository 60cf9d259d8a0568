"""Default boxes (anchors) of SSD, from the shapes of the feature maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from backbones.spec import Described

# Of scales in sides of the input, and of ratios: whatever is beyond is a slip.
LARGEST = 100.0


@dataclass(frozen=True)
class AnchorRule(Described):
    """Says which boxes stand at every cell of every feature map.

    A box of scale s and ratio r is s sqrt(r) wide and s / sqrt(r) high, in units of the input's shorter side; boxes are centred
    on cells. Defaults are the MobileNet SSDLite ones of the TensorFlow Object Detection API (`ssd_anchor_generator`: min_scale .2,
    max_scale .95, its aspect ratios and reduced lowest layer), which the MobileNetV2 paper uses.

    Attributes:
        min_scale: scale of the finest level.
        max_scale: scale of the coarsest level; levels between are spaced evenly.
        scales: the scales of all levels, instead of `min_scale` and `max_scale`.
        last_scale: what follows the coarsest level's scale, for its interpolated box.
        ratios: width by height of a level's boxes.
        interpolated: where the extra square of scale sqrt(s_k s_k+1) stands among a level's boxes: `last` (TensorFlow), `second`
            (torchvision, mmdetection) or `none`.
        reduce_first: three boxes only on the finest level: scale .1 ratio 1, and ratios 2 and 1/2 of its scale.
        clip_sides: let no box be larger than the input, as torchvision does.

    Raises:
        ValueError: a scale or ratio is not positive, or absurd.
    """

    min_scale: float = 0.2
    max_scale: float = 0.95
    scales: tuple[float, ...] | None = None
    last_scale: float = 1.0
    ratios: tuple[float, ...] = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
    interpolated: Literal["last", "second", "none"] = "last"
    reduce_first: bool = True
    clip_sides: bool = False

    def __post_init__(self) -> None:
        for name in ("scales", "ratios", "min_scale", "max_scale", "last_scale"):
            given = getattr(self, name)
            values = given if isinstance(given, Sequence) else [1.0 if given is None else given]
            if not all(0 < value <= LARGEST for value in values):
                raise ValueError(f"{name} {given} of anchors is not possible; accepted: over 0 to {LARGEST:g}")

    def levels(self, count: int) -> list[list[tuple[float, float]]]:
        """Returns the (scale, ratio) pairs of each of `count` levels, finest first.

        Raises:
            ValueError: `scales` has another length than `count`.
        """
        if self.scales is not None and len(self.scales) != count:
            raise ValueError(f"{len(self.scales)} anchor scales were given for {count} feature maps; accepted: one scale a map")
        spread = [self.min_scale + (self.max_scale - self.min_scale) * k / max(count - 1, 1) for k in range(count)]
        scales = [*(self.scales or spread), self.last_scale]
        return [self._level(k, scale, following) for k, (scale, following) in enumerate(pairwise(scales))]

    def _level(self, number: int, scale: float, following: float) -> list[tuple[float, float]]:
        if number == 0 and self.reduce_first:
            return [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        boxes = [(scale, ratio) for ratio in self.ratios]
        if self.interpolated != "none":
            boxes.insert(1 if self.interpolated == "second" else len(boxes), (sqrt(scale * following), 1.0))
        return boxes


PRESETS: dict[str, AnchorRule] = {
    "paper": AnchorRule(),
    # torchvision ssdlite320_mobilenet_v3_large: DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95).
    "torchvision": AnchorRule(interpolated="second", reduce_first=False, clip_sides=True),
    # mmdetection ssdlite_mobilenetv2: min_sizes 48 100 150 202 253 304 of 320 pixels.
    "mmdet": AnchorRule(
        scales=(48 / 320, 100 / 320, 150 / 320, 202 / 320, 253 / 320, 304 / 320),
        interpolated="second",
        reduce_first=False,
    ),
}


def make_anchors(
    levels: Sequence[Sequence[tuple[float, float]]],
    shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
    clip_sides: bool = False,
) -> Tensor:
    """Lays the default boxes out: levels, then rows, then columns, then the boxes of a cell.

    Args:
        levels: (scale, ratio) pairs of each level, see `AnchorRule.levels`.
        shapes: height and width of each level's feature map.
        input_size: height and width of the network's input in pixels.
        clip_sides: let no box be larger than the input.

    Returns:
        (A, 4) x1 y1 x2 y2 in pixels; boxes may reach beyond the image.
    """
    extent = torch.tensor(input_size, dtype=torch.float64).flip(0)
    anchors = []
    for boxes, (rows, columns) in zip(levels, shapes, strict=True):
        sides = torch.tensor([(s * sqrt(r), s / sqrt(r)) for s, r in boxes], dtype=torch.float64) * extent.min()
        sides = sides.minimum(extent) if clip_sides else sides
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([(x + 0.5) / columns, (y + 0.5) / rows], dim=-1).double() * extent
        centres = cells.reshape(-1, 1, 2)
        anchors.append(torch.cat([centres - sides / 2, centres + sides / 2], dim=-1).reshape(-1, 4))
    return torch.cat(anchors).float()
