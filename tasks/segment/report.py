"""What an evaluation leaves behind: the table on screen, metrics.json and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.pictures import (
    add_legend,
    draw_curves,
    grid,
    new_figure,
    overlay,
    plot_bars,
    plot_confusion,
    save_figure,
    voc_palette,
    write_png,
)
from tasks.report import print_table, write_confusion, write_metrics
from tasks.segment.metrics import Evaluation

# Images in the picture of predictions have this many pixels a side.
SHOWN_SIZE = 320

Shown = tuple[Tensor, Tensor, Tensor]


def write_report(folder: Path, evaluation: Evaluation, shown: Sequence[Shown], facts: dict[str, Any]) -> None:
    """Writes `metrics.json`, `confusion.csv` and `pictures/`, and prints the table.

    Args:
        folder: where to write.
        evaluation: the results.
        shown: images (3, H, W) uint8 with true and predicted (H, W) masks.
        facts: what else metrics.json should say: checkpoint, epoch, step, ...
    """
    names = list(evaluation.per_class)
    absent = [name for name, row in evaluation.per_class.items() if not row["pixels"]]
    write_metrics(folder, evaluation.figures, facts | {"absent_classes": absent, "per_class": evaluation.per_class})
    write_confusion(folder, evaluation.confusion, names)
    pictures = folder / "pictures"
    if shown:
        draw_predictions(shown, names, pictures / "predictions.png")
    if evaluation.confusion.any():
        _draw_classes(evaluation, pictures / "classes.png")
    curves = {"loss": ["train/loss"], "intersection over union": ["val/mIoU", "val/mIoU_present"], "accuracy": ["val/pixel_accuracy"]}
    draw_curves(folder / "metrics.csv", curves, pictures / "curves.png")
    print_table(
        "Classes", ("class", "IoU", "accuracy"), [(name, row["IoU"], row["accuracy"]) for name, row in evaluation.per_class.items()]
    )
    print_table("Segmentation", ("figure", "value"), list(evaluation.figures.items()))
    if absent:
        print(f"mIoU_present leaves out {len(absent)} classes that no mask has: {', '.join(absent)}")
    print(f"results are in {folder}")


def draw_predictions(shown: Sequence[Shown], names: Sequence[str], path: Path) -> None:
    """Draws each image with its true classes on the left and the predicted ones on the right, and a legend.

    Args:
        shown: images (3, H, W) uint8 with true and predicted (H, W) masks.
        names: class names; mask value v is `names[v]`.
        path: the PNG file to write.
    """
    tiles = [torch.cat([_tile(overlay(image, mask)) for mask in masks], dim=2) for image, *masks in shown]
    seen = sorted({int(v) for _, *masks in shown for mask in masks for v in np.unique(mask.cpu()) if 0 < v < len(names)})
    write_png(add_legend(grid(tiles, columns=3), [names[v] for v in seen], voc_palette()[seen]), path)


def _tile(image: Tensor) -> Tensor:
    """Fits a picture into a square on white."""
    share = SHOWN_SIZE / max(image.shape[1:])
    size = [max(round(side * share), 1) for side in image.shape[1:]]
    fitted = F.interpolate(image[None].float(), size, mode="bilinear", antialias=share < 1)[0].round().to(torch.uint8)
    tile = torch.full((3, SHOWN_SIZE, SHOWN_SIZE), 255, dtype=torch.uint8)
    tile[:, : size[0], : size[1]] = fitted
    return tile


def _draw_classes(evaluation: Evaluation, path: Path) -> None:
    present = np.flatnonzero(evaluation.confusion.sum(axis=0) + evaluation.confusion.sum(axis=1))
    names = [list(evaluation.per_class)[k] for k in present]
    counts = evaluation.confusion[np.ix_(present, present)]
    figure, (axis, bars) = new_figure(2, height=max(4.5, 0.3 * len(names)))
    plot_confusion(figure, axis, counts, names)
    plot_bars(bars, {name: row["IoU"] for name, row in evaluation.per_class.items() if row["pixels"]}, "IoU of each class")
    save_figure(figure, path)
