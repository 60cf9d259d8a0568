"""Pictures that all tasks draw: captioned boxes, grids of images, and curves of a run."""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Okabe & Ito 2008: colours that colour-blind people can tell apart.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")


def colour_of(label: int) -> str:
    """Returns the colour of a label, #RRGGBB."""
    return PALETTE[label % len(PALETTE)]


def draw_boxes(image: Tensor, boxes: Tensor, captions: Sequence[str], colours: Sequence[str], width: int | None = None) -> Tensor:
    """Draws captioned boxes.

    Args:
        image: (3, H, W) uint8 RGB.
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the image.
        captions: one a box; empty for none.
        colours: one a box, #RRGGBB.
        width: of the lines in pixels; by default as the image is large.

    Returns:
        (3, H, W) uint8, a new image.
    """
    from torchvision.utils import draw_bounding_boxes

    if len(boxes) == 0:
        return image.clone()
    longest = max(image.shape[-2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a box under a pixel is drawn as a point
        drawn: Tensor = draw_bounding_boxes(
            image.cpu().contiguous(),
            boxes.cpu().round(),
            labels=[caption or None for caption in captions],
            colors=list(colours),
            width=width or max(1, round(longest / 250)),
            font=_font(),
            label_colors="black",
            fill_labels=True,
            font_size=max(9, round(longest / 32)),
        )
    return drawn


def _font() -> str:
    """The font of captions, which matplotlib brings."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def caption_font(size: int):  # type: ignore[no-untyped-def]
    """Returns the font of captions, of a size in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(_font(), size)


def captioned(image: Tensor, lines: Sequence[str], colour: str) -> Tensor:
    """Puts a coloured frame around an image and lines of text below it; text that is too long is cut.

    Args:
        image: (3, H, W) uint8 RGB.
        lines: the text; empty lines keep their place.
        colour: of frame and text, #RRGGBB.

    Returns:
        (3, H', W') uint8.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[1:]
    border, text_size = max(2, width // 48), max(9, width // 14)
    line, font = round(text_size * 1.3), ImageFont.truetype(_font(), text_size)
    canvas = Image.new("RGB", (width + 2 * border, height + 2 * border + line * len(lines) + text_size // 3), "white")
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, width + 2 * border - 1, height + 2 * border - 1), fill=colour)
    canvas.paste(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), (border, border))
    for number, text in enumerate(lines):
        while text and font.getlength(text) > width:
            text = text.removesuffix("…")[:-1] + "…" if len(text) > 1 else ""
        draw.text((border, height + 2 * border + number * line), text, fill=colour, font=font)
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def write_png(image: Tensor, path: Path) -> None:
    """Writes a (3, H, W) uint8 image and makes its folder."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(path, compress_level=1)  # three times faster, a little larger


def grid(images: Sequence[Tensor], columns: int = 4) -> Tensor:
    """Joins (3, H, W) uint8 images of one size to one picture."""
    from torchvision.utils import make_grid

    joined: Tensor = make_grid(torch.stack(list(images)), nrow=min(columns, len(images)), padding=4, pad_value=255)
    return joined


def draw_curves(history: Path, groups: Mapping[str, Sequence[str]], path: Path) -> None:
    """Draws columns of a metrics.csv over the optimizer steps; does nothing where there is no such file.

    Args:
        history: the metrics.csv.
        groups: columns to draw together, by the title of their plot.
        path: the PNG file to write.
    """
    if not history.is_file():
        return
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = new_figure(len(groups))
    for axis, (title, columns) in zip(axes, groups.items(), strict=True):
        for column in columns:
            points = [(int(r["step"]), float(r[column])) for r in rows if r.get(column) and math.isfinite(float(r[column]))]
            if points:
                axis.plot(*zip(*points, strict=True), label=column, marker="." if len(points) < 40 else None)
        axis.set(title=title, xlabel="optimizer step")
        if axis.lines:
            axis.legend()
    save_figure(figure, path)


def plot_bars(axis, values: Mapping[str, float], title: str) -> None:  # type: ignore[no-untyped-def]
    """Draws a bar in 0..1 for each name, the worst first.

    Args:
        axis: matplotlib axes.
        values: the values by name; of more than forty the twenty worst and the twenty best are drawn, so that names stay readable.
        title: of the plot.
    """
    ordered = sorted(values.items(), key=lambda item: item[1])
    ordered = ordered if len(ordered) <= 40 else ordered[:20] + ordered[-20:]
    axis.barh([name for name, _ in ordered], [value for _, value in ordered], color=PALETTE[4])
    axis.set(title=title, xlim=(0, 1))
    axis.tick_params(axis="y", labelsize=8)


def plot_confusion(figure, axis, counts: NDArray[np.int64], names: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    """Draws a confusion matrix as shares of each true class, with numbers for ten classes or fewer.

    Args:
        figure: matplotlib figure.
        axis: one of its axes.
        counts: (K, K) counts by true and predicted class.
        names: the K names.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.grid(False)
    figure.colorbar(axis.imshow(shares, vmin=0, vmax=1, cmap="Blues"))
    axis.set(title="share of each true class", xlabel="predicted", ylabel="true")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= 10:
        for row, column in np.ndindex(shares.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour)


def new_figure(plots: int, height: float = 4.5):  # type: ignore[no-untyped-def]  # matplotlib is imported only where it is used
    """Returns a matplotlib figure of a height in inches with `plots` axes side by side, and the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, height) * plots, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, plots, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def save_figure(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    """Writes a figure as PNG and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def voc_palette() -> NDArray[np.uint8]:
    """VOC's colours of mask values: (256, 3) RGB, the bits of the value spread over the channels (the devkit's VOClabelcolormap)."""
    values = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((values >> (3 * (7 - bit) + channel) & 1) << bit).astype(np.uint8)
    return colours


def write_mask(mask: NDArray[np.uint8], path: Path) -> None:
    """Writes an (H, W) mask of class indices as a palette PNG in VOC's colours and makes its folder."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().flatten().tolist())  # the values stay, and get colours
    image.save(path)


def overlay(image: Tensor, mask: Tensor, opacity: float = 0.6) -> Tensor:
    """Lays a mask in VOC's colours over an image; background stays as it is, void becomes white.

    Args:
        image: (3, H, W) uint8 RGB.
        mask: (H, W) uint8 class indices, 0 for the background.
        opacity: of the colours, in 0..1.

    Returns:
        (3, H, W) uint8, a new image.
    """
    colours = torch.from_numpy(voc_palette())
    colours[255] = 255
    painted = colours[mask.cpu().int()].permute(2, 0, 1)
    mixed = image.cpu() * (1 - opacity) + painted * opacity
    return torch.where(mask.cpu() == 0, image.cpu(), mixed.round().to(torch.uint8))


def add_legend(image: Tensor, names: Sequence[str], colours: NDArray[np.uint8]) -> Tensor:
    """Adds a strip with coloured squares and names below an image; nothing where there are no names.

    Args:
        image: (3, H, W) uint8 RGB.
        names: what the colours stand for.
        colours: (N, 3) RGB, one a name.

    Returns:
        (3, H', W) uint8.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not names:
        return image
    width, text_size = image.shape[2], max(12, min(image.shape[1:]) // 28)
    font = ImageFont.truetype(_font(), text_size)
    line, places, x, y = round(text_size * 1.6), [], text_size // 2, 0
    for name in names:
        needed = round(font.getlength(name)) + 2 * text_size
        if x + needed > width and x > text_size:
            x, y = text_size // 2, y + line
        places.append((x, y))
        x += needed + text_size // 2
    strip = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(strip)
    for name, (x, y), colour in zip(names, places, colours.tolist(), strict=True):
        draw.rectangle((x, y + text_size // 4, x + text_size, y + text_size * 5 // 4), fill=tuple(colour), outline="black")
        draw.text((x + text_size * 3 // 2, y + text_size // 8), name, fill="black", font=font)
    return torch.cat([image.cpu(), torch.from_numpy(np.array(strip)).permute(2, 0, 1)], dim=1)
