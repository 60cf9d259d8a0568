"""Pictures that all tasks draw: captioned boxes, grids of images, and curves of a run."""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

# Okabe & Ito 2008: colours that colour-blind people can tell apart.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")


def colour_of(label: int) -> str:
    """Returns the colour of a label, #RRGGBB."""
    return PALETTE[label % len(PALETTE)]


def draw_boxes(image: Tensor, boxes: Tensor, captions: Sequence[str], colours: Sequence[str]) -> Tensor:
    """Draws captioned boxes.

    Args:
        image: (3, H, W) uint8 RGB.
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the image.
        captions: one a box; empty for none.
        colours: one a box, #RRGGBB.

    Returns:
        (3, H, W) uint8, a new image.
    """
    import matplotlib
    from torchvision.utils import draw_bounding_boxes

    if len(boxes) == 0:
        return image.clone()
    longest = max(image.shape[-2:])
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a box under a pixel is drawn as a point
        drawn: Tensor = draw_bounding_boxes(
            image.cpu().contiguous(),
            boxes.cpu().round(),
            labels=[caption or None for caption in captions],
            colors=list(colours),
            width=max(1, round(longest / 250)),
            font=str(font),
            label_colors="black",
            fill_labels=True,
            font_size=max(9, round(longest / 32)),
        )
    return drawn


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


def new_figure(plots: int):  # type: ignore[no-untyped-def]  # matplotlib is imported only where it is used
    """Returns a matplotlib figure with `plots` axes side by side, and the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * plots, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, plots, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def save_figure(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    """Writes a figure as PNG and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
