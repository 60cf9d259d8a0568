"""From scores of cells to a map of classes at the size of the image: the usual way, and ours."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.bench.race import Race
from tasks.images import find_images, rgb_pixels
from tasks.segment.model import Segmenter

# Share of the pixels in which the best two classes may be so close that rounding decides.
TIES = 1e-4


def races(segmenter: str, images: str, limit: int = 16) -> Iterator[Race]:
    """Yields the races.

    Args:
        segmenter: checkpoint of a trained segmenter; scores of an untrained one are noise, and classes meet everywhere.
        images: folder of images to run it on, brought to its input size.
        limit: most images.

    Raises:
        ValueError: two ways find different classes.
    """
    model, files = Segmenter.from_checkpoint(segmenter), find_images([images])[:limit]
    found = [_scores(model, image) for image in files]
    yield _race(model, found, [model.size] * len(found), "the input's size")
    yield _race(model, found, [(rgb_pixels(image).shape[0], rgb_pixels(image).shape[1]) for image in files], "the images' sizes")


@torch.no_grad()
def _scores(model: Segmenter, image: Path) -> Tensor:
    """(1, K, h, w) scores of an image that fills the input."""
    pixels = torch.from_numpy(rgb_pixels(image)).permute(2, 0, 1)[None]
    filling = F.interpolate(pixels.float(), model.size, mode="bilinear", antialias=True)
    scores: Tensor = model.head(model.backbone(model.normalise(filling.round().to(torch.uint8))), model.size)
    return scores


def _race(model: Segmenter, scores: Sequence[Tensor], sizes: Sequence[tuple[int, int]], title: str) -> Race:
    align, head = model.head.align_corners, model.head
    content = torch.tensor([model.size])
    wanted = [torch.tensor([size]) for size in sizes]

    def theirs() -> list[Tensor]:
        maps = []
        for cells, size in zip(scores, sizes, strict=True):
            upsampled = F.interpolate(cells, model.size, mode="bilinear", align_corners=align)
            if size != model.size:
                upsampled = F.interpolate(upsampled, size, mode="bilinear")
            maps.append(upsampled.argmax(dim=1)[0])
        return maps

    def directly() -> list[Tensor]:
        return [F.interpolate(cells, size, mode="bilinear").argmax(dim=1)[0] for cells, size in zip(scores, sizes, strict=True)]

    def ours() -> list[Tensor]:
        return [head.postprocess(cells, model.size, content, size)[0] for cells, size in zip(scores, wanted, strict=True)]

    same = sizes[0] == model.size
    expected = theirs() if same else _exact(model, scores, sizes)
    apart = float(np.mean([float((one != two).float().mean()) for one, two in zip(expected, ours(), strict=True)]))
    if apart > TIES:
        raise ValueError(f"{title}: {apart:.3%} of the pixels have another class")
    cells = "x".join(map(str, scores[0].shape[2:]))
    text = f"all but {apart:.1e} of the pixels" + ("" if same else ", to one interpolation of each pixel's scores (grid_sample)")
    return Race(
        f"classes of {title}, from {cells} cells",
        "images",
        len(scores),
        "interpolate + argmax",
        {"interpolate + argmax": theirs} | ({} if same else {"interpolate once + argmax": directly}) | {"heads.postprocess": ours},
        text,
    )


def _exact(model: Segmenter, scores: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Classes of original pixels by torch's sampling at their places among the cells."""
    maps = []
    for cells, size in zip(scores, sizes, strict=True):
        places = [((torch.arange(n) + 0.5) * c / n - 0.5).clamp(0, c - 1) for n, c in zip(size, model.size, strict=True)]
        y, x = (2 * p / (c - 1) - 1 if model.head.align_corners else (2 * p + 1) / c - 1 for p, c in zip(places, model.size, strict=True))
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)[None]
        sampled = F.grid_sample(cells, grid, padding_mode="border", align_corners=model.head.align_corners)
        maps.append(sampled.argmax(dim=1)[0])
    return maps
