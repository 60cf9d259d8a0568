"""The picture of the worst faults of a data set."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tasks.faults import KINDS, NOTES, Fault, Faults
from tasks.images import read_image
from tasks.pictures import PALETTE, caption_font, captioned, draw_boxes, grid, voc_palette, write_png

# Tiles in the picture, and their side in pixels.
TILES, SIDE = 16, 320
# Letters in a line of text.
LETTERS = 29
# Width of a box's lines, which have white borders.
LINE = 3
# Grey of what is beyond an image or cannot be shown.
GREY = 160
# A tile shows at most this much around an image, in its sides.
AROUND = 0.5
RED = PALETTE[5]


def draw_faults(collected: Mapping[str, Faults], path: Path) -> bool:
    """Draws faults of all kinds, the worst kinds first: the image with the faulty box or mask, or why it cannot be read.

    Args:
        collected: faults by split.
        path: the PNG file to write.

    Returns:
        Whether there was something to draw.
    """
    tiles = [_tile(fault) for fault in islice(_in_turn(collected), TILES)]
    if tiles:
        write_png(grid(tiles), path)
    else:
        path.unlink(missing_ok=True)  # of an earlier check
    return bool(tiles)


def _in_turn(collected: Mapping[str, Faults]) -> Iterator[Fault]:
    """The first of each kind, then the second of each, and so on."""
    kinds = []
    for kind in KINDS:
        found = [fault for faults in collected.values() for fault in faults.examples.get(kind, ()) if fault.file]
        kinds += [found] if found and kind not in NOTES else []
    for place in range(max(map(len, kinds), default=0)):
        yield from (found[place] for found in kinds if place < len(found))


def _tile(fault: Fault) -> Tensor:
    name = Path(fault.file or "").name
    owner = name if fault.annotation is None else f"{name}, object {fault.annotation}"
    try:
        image = torch.from_numpy(read_image(fault.file or "", apply_exif=False)).permute(2, 0, 1)
        drawn, said = _drawn(image, fault), str(fault.value or _reason(fault))
    except ValueError:
        drawn, said = _refused(_reason(fault)), ""
    lines = [*wrap(said, LETTERS), "", ""][:2]
    return captioned(drawn, [fault.kind.replace("_", " "), owner, *lines], RED)


def _reason(fault: Fault) -> str:
    """The message without the file that it begins with."""
    return fault.message.partition(": ")[2]


def _refused(reason: str) -> Tensor:
    """A grey tile with the reason."""
    from PIL import ImageDraw

    tile = Image.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY))
    ImageDraw.Draw(tile).multiline_text((16, SIDE // 3), "\n".join(wrap(reason, LETTERS)), fill="black", font=caption_font(18))
    return torch.from_numpy(np.array(tile)).permute(2, 0, 1)


def _drawn(image: Tensor, fault: Fault) -> Tensor:
    if fault.mask:
        image = _with_mask(image, fault.mask)
    height, width = image.shape[1:]
    box = np.array(fault.box or (0, 0, width, height), dtype=np.float64)
    box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
    reach = np.array([width, height, width, height])
    box = box.clip(-AROUND * reach, (1 + AROUND) * reach)
    # What is seen: the image, and around it as much as the box needs.
    left, top = np.floor(np.minimum(box[:2], 0)).astype(int).tolist()
    right, bottom = np.ceil(np.maximum(box[2:], [width, height])).astype(int).tolist()
    canvas = torch.full((3, bottom - top, right - left), GREY, dtype=torch.uint8)
    canvas[:, -top : height - top, -left : width - left] = image
    share = (SIDE - 8) / max(canvas.shape[1:])
    size = [max(round(side * share), 1) for side in canvas.shape[1:]]
    mode = "bilinear" if share < 1 else "nearest"
    fitted = F.interpolate(canvas[None].float(), size, mode=mode, antialias=share < 1)[0].round().to(torch.uint8)
    tile = torch.full((3, SIDE, SIDE), 255, dtype=torch.uint8)
    y, x = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    tile[:, y : y + size[0], x : x + size[1]] = fitted
    if fault.box is None:
        return tile
    corners = torch.from_numpy((box - [left, top, left, top]) * share + [x, y, x, y]).float()
    corners[2:] = corners[2:].maximum(corners[:2] + 3 * LINE)  # what has no width is drawn as a line
    return draw_boxes(draw_boxes(tile, corners[None], [""], ["#FFFFFF"], LINE + 4), corners[None], [""], [RED], LINE)


def _with_mask(image: Tensor, path: str) -> Tensor:
    """Lays the values of a mask file over an image, fitted to it; those of colours are shown as they are."""
    try:
        with Image.open(path) as mask:
            fitted = mask.resize((image.shape[2], image.shape[1]), Image.Resampling.NEAREST)
            pixels: NDArray[np.uint8] = np.array(fitted if fitted.mode in ("P", "L") else fitted.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return image
    colours = torch.from_numpy(voc_palette()[pixels] if pixels.ndim == 2 else pixels).permute(2, 0, 1)
    return (image * 0.3 + colours * 0.7).round().to(torch.uint8)
