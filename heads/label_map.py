"""From scores of cells to the class of every pixel."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Interpolated scores that are held in memory at a time.
SCORES = 2_000_000


def label_map(
    scores: Tensor, input_size: Sequence[int], content_size: Sequence[int], image_size: Sequence[int], align_corners: bool
) -> Tensor:
    """Upsamples scores bilinearly and takes the best class of each pixel, in one step from cells to original pixels.

    Between four cells with the same best class that class is the best everywhere, since each pixel mixes the four scores of all classes
    alike. Only the other patches are interpolated, and of their classes only those that can win.

    Args:
        scores: (K, h, w) scores over the network's input.
        input_size: height and width of that input in pixels.
        content_size: height and width of its top left part that shows the image.
        image_size: height and width of the image in pixels.
        align_corners: whether the centres of corner cells lie on those of the input's corner pixels.

    Returns:
        (H, W) uint8 class indices.
    """
    if scores.shape[1:] == tuple(input_size):  # as many cells as pixels: patches would be single pixels
        shown = scores[None, :, : content_size[0], : content_size[1]].float()
        return F.interpolate(shown, tuple(image_size), mode="bilinear")[0].max(dim=0).indices.to(torch.uint8)
    with torch.inference_mode(False):  # the patches are kept for later calls
        rows, columns = (
            patches(scores.shape[axis + 1], input_size[axis], content_size[axis], image_size[axis], align_corners, scores.device)
            for axis in (0, 1)
        )
    cells = scores.float().permute(1, 2, 0).contiguous()
    best = cells.max(dim=2).indices
    found = best.to(torch.uint8)[:, columns.low][rows.low]
    right, below, across = best[:, columns.above], best[rows.above], best[rows.above][:, columns.above]
    mixed = (best != right) | (best != below) | (best != across)
    top, left = (mixed & rows.used[:, None] & columns.used).nonzero(as_tuple=True)
    count = max(SCORES // (rows.pixels.shape[1] * columns.pixels.shape[1] * len(scores)), 1)
    for start in range(0, len(top), count):
        i, j = top[start : start + count], left[start : start + count]
        corners = torch.stack([cells[i, j], cells[i, columns.above[j]], cells[rows.above[i], j], cells[rows.above[i], columns.above[j]]])
        place = rows.pixels[i][:, :, None] * found.shape[1] + columns.pixels[j][:, None]
        found.view(-1)[place] = _best(corners, rows.weights[i], columns.weights[j])
    return found


def _best(corners: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """The best classes of N patches.

    Args:
        corners: (4, N, K) scores of the cells at the top left, top right, bottom left and bottom right.
        down: (N, y) weights of the lower cells in each row of pixels.
        across: (N, x) weights of the right cells in each column of pixels.

    Returns:
        (N, y, x) uint8 class indices.
    """
    # A class that is at no corner as good as another is at all of them cannot win.
    highest = corners.amax(dim=0)
    possible = highest >= corners.amin(dim=0).amax(dim=1, keepdim=True)
    most = max(int(possible.sum(dim=1).max()), 1)
    classes = highest.masked_fill(~possible, -torch.inf).topk(most).indices.sort(dim=1).values
    corners = corners.gather(2, classes.expand(4, -1, -1)).permute(2, 0, 1)[..., None, None]  # (k, 4, N, 1, 1)
    down, across = down[:, :, None], across[:, None]
    left, right = (torch.lerp(corners[:, side], corners[:, side + 2], down) for side in (0, 1))
    winner = torch.lerp(left, right, across).max(dim=0).indices
    return classes.gather(1, winner.flatten(1)).view(winner.shape).to(torch.uint8)


class Patches(NamedTuple):
    """The pixels of one axis that lie between each cell and the next.

    Attributes:
        low: (n,) int64 cell before each pixel.
        above: (cells,) int64 next cell of each cell; the last has itself.
        used: (cells,) whether there are pixels behind a cell.
        pixels: (cells, most) int64 the pixels behind each cell; the last one is repeated where there are fewer.
        weights: (cells, most) share of the next cell in the scores of each of them.
    """

    low: Tensor
    above: Tensor
    used: Tensor
    pixels: Tensor
    weights: Tensor


@lru_cache(maxsize=64)  # the images of a data set have few sizes
def patches(cells: int, input_size: int, content_size: int, image_size: int, align_corners: bool, device: torch.device) -> Patches:
    """Returns how the pixels of one axis of an original image lie between cells, see `label_map`."""
    low, share = positions(cells, input_size, content_size, image_size, align_corners)
    number = torch.arange(cells)
    start, end = torch.searchsorted(low, number), torch.searchsorted(low, number, right=True)
    behind = start[:, None] + torch.arange(int((end - start).max()))
    pixels = torch.minimum(behind, end[:, None] - 1).clamp(0)
    made = Patches(low, (number + 1).clamp(max=cells - 1), end > start, pixels, share[pixels])
    return Patches(*(part.to(device) for part in made))


def positions(cells: int, input_size: int, content_size: int, image_size: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Returns, for the `image_size` pixels of one axis, the int64 cell before each, and the share of the next cell in its score."""
    pixels = torch.arange(image_size, dtype=torch.float64)
    # Pixel centres of the original in coordinates of the network's input, then of the cells.
    pixels = ((pixels + 0.5) * content_size / image_size - 0.5).clamp(0, content_size - 1)
    scale = (cells - 1) / max(input_size - 1, 1) if align_corners else cells / input_size
    shift = 0.0 if align_corners else 0.5
    places = ((pixels + shift) * scale - shift).clamp(0, cells - 1)
    low = places.floor().long().clamp(max=max(cells - 2, 0))
    return low, (places - low).float()
