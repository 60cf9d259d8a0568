"""From scores of cells to the class of every pixel."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of the image that are scored at a time.
ROWS = 64


def label_map(
    scores: Tensor, input_size: Sequence[int], content_size: Sequence[int], image_size: Sequence[int], align_corners: bool
) -> Tensor:
    """Upsamples scores bilinearly and takes the best class of each pixel, in one step from cells to original pixels.

    Bilinear interpolation is separable, so that it is two small matrix products, with classes last in memory for the maximum. That takes
    about half the time of upsampling (K, h, w) scores as they are, and a few rows at a time need little memory however large the image.

    Args:
        scores: (K, h, w) scores over the network's input.
        input_size: height and width of that input in pixels.
        content_size: height and width of its top left part that shows the image.
        image_size: height and width of the image in pixels.
        align_corners: whether the centres of corner cells lie on those of the input's corner pixels.

    Returns:
        (H, W) uint8 class indices.
    """
    if scores.shape[1:] == tuple(input_size):  # as many cells as pixels: matrices would be large
        shown = scores[None, :, : content_size[0], : content_size[1]].float()
        return F.interpolate(shown, tuple(image_size), mode="bilinear")[0].max(dim=0).indices.to(torch.uint8)
    with torch.inference_mode(False):  # the matrices are kept for later calls
        rows, columns = (
            interpolation(scores.shape[axis + 1], input_size[axis], content_size[axis], image_size[axis], align_corners) for axis in (0, 1)
        )
    cells = scores.float().permute(1, 2, 0)
    with torch.autocast(scores.device.type, enabled=False):  # bfloat16 would move borders
        columns = columns.to(scores.device)
        found = []
        for part in torch.split(rows.to(scores.device), ROWS):
            stretched = (part @ cells.flatten(1)).view(len(part), *cells.shape[1:])  # (H, w, K)
            found.append((columns @ stretched).max(dim=2).indices.to(torch.uint8))
        return torch.cat(found)


@lru_cache(maxsize=64)  # the images of a data set have few sizes
def interpolation(cells: int, input_size: int, content_size: int, image_size: int, align_corners: bool) -> Tensor:
    """Returns (image_size, cells) weights: row y mixes the cells for the original pixel y of one axis, see `label_map`."""
    pixels = torch.arange(image_size, dtype=torch.float64)
    # Pixel centres of the original in coordinates of the network's input, then of the cells.
    pixels = ((pixels + 0.5) * content_size / image_size - 0.5).clamp(0, content_size - 1)
    scale = (cells - 1) / max(input_size - 1, 1) if align_corners else cells / input_size
    shift = 0.0 if align_corners else 0.5
    places = ((pixels + shift) * scale - shift).clamp(0, cells - 1)
    low = places.floor().long().clamp(max=max(cells - 2, 0))
    weights = torch.zeros(image_size, cells, dtype=torch.float64)
    high = (places - low)[:, None]
    weights.scatter_(1, low[:, None], 1 - high)
    if cells > 1:
        weights.scatter_(1, low[:, None] + 1, high)
    return weights.float()
