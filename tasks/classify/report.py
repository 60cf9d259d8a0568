"""What an evaluation leaves behind: the table on screen, metrics.json and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.classify.metrics import Evaluation
from tasks.pictures import PALETTE, captioned, draw_curves, grid, new_figure, plot_bars, plot_confusion, save_figure, write_png
from tasks.report import print_table, write_confusion, write_metrics

# Images in the picture of predictions have this many pixels on the longer side.
SHOWN_SIZE = 192

# More classes than these are left out of confusion.csv, of the drawn matrix, and of the table.
MAX_WRITTEN, MAX_DRAWN, MAX_LISTED = 100, 20, 20

# Frames of right and wrong predictions.
RIGHT, WRONG = PALETTE[4], PALETTE[5]


class Shown(NamedTuple):
    """An image for the picture of predictions.

    Attributes:
        image: (3, H, W) uint8 RGB.
        label: the true class.
        probabilities: (K,) float32.
    """

    image: Tensor
    label: int
    probabilities: Tensor

    @property
    def is_wrong(self) -> bool:
        """Whether another class is the likeliest."""
        return int(self.probabilities.argmax()) != self.label


def write_report(folder: Path, evaluation: Evaluation, shown: Sequence[Shown], mistakes: Sequence[Shown], facts: dict[str, Any]) -> None:
    """Writes `metrics.json`, `confusion.csv` and `pictures/`, and prints the tables.

    Args:
        folder: where to write.
        evaluation: the results.
        shown: images spread over the set.
        mistakes: images that are taken for another class, the surest first.
        facts: what else metrics.json should say: checkpoint, epoch, step, ...
    """
    names = list(evaluation.per_class)
    absent = [name for name, row in evaluation.per_class.items() if not row["images"]]
    write_metrics(folder, evaluation.figures, facts | {"absent_classes": absent, "per_class": evaluation.per_class})
    if len(names) <= MAX_WRITTEN:
        write_confusion(folder, evaluation.confusion, names)
    pictures = folder / "pictures"
    if shown or mistakes:
        draw_predictions(shown, mistakes, names, pictures / "predictions.png")
    if evaluation.confusion.any():
        _draw_classes(evaluation, pictures / "classes.png")
    curves = {"loss": ["train/loss", "val/loss"], "accuracy": ["val/top1", "val/top5"]}
    draw_curves(folder / "metrics.csv", curves, pictures / "curves.png")
    worst = sorted(((name, row["accuracy"]) for name, row in evaluation.per_class.items() if row["images"]), key=lambda row: row[1])
    title = "Classes" if len(worst) <= MAX_LISTED else f"The {MAX_LISTED} worst of {len(worst)} classes"
    print_table(title, ("class", "accuracy"), worst[:MAX_LISTED])
    print_table("Classification", ("figure", "value"), list(evaluation.figures.items()))
    print(f"results are in {folder}")


def draw_predictions(shown: Sequence[Shown], mistakes: Sequence[Shown], names: Sequence[str], path: Path) -> None:
    """Draws images with their classes, first those spread over the set and then the mistakes; frames tell right from wrong.

    Args:
        shown: images spread over the set.
        mistakes: images that are taken for another class.
        names: class names; label k is `names[k]`.
        path: the PNG file to write.
    """
    write_png(grid([_tile(one, names) for one in (*shown, *mistakes)], columns=6), path)


def _tile(shown: Shown, names: Sequence[str]) -> Tensor:
    image, label, probabilities = shown
    share = SHOWN_SIZE / max(image.shape[1:])
    size = [max(round(side * share), 1) for side in image.shape[1:]]
    fitted = F.interpolate(image[None].float(), size, mode="bilinear", antialias=share < 1)[0].round().to(torch.uint8)
    guess = int(probabilities.argmax())
    lines = [f"{names[guess]} {float(probabilities[guess]):.2f}", f"true: {names[label]}" if shown.is_wrong else ""]
    return captioned(fitted, lines, WRONG if shown.is_wrong else RIGHT)


def _draw_classes(evaluation: Evaluation, path: Path) -> None:
    present = np.flatnonzero(evaluation.confusion.sum(axis=0) + evaluation.confusion.sum(axis=1))
    names = [list(evaluation.per_class)[k] for k in present]
    with_matrix = len(names) <= MAX_DRAWN
    figure, axes = new_figure(1 + with_matrix, height=max(4.5, 0.3 * min(len(names), 40)))
    if with_matrix:
        plot_confusion(figure, axes[0], evaluation.confusion[np.ix_(present, present)], names)
    accuracies = {name: row["accuracy"] for name, row in evaluation.per_class.items() if row["images"]}
    plot_bars(axes[-1], accuracies, "accuracy of each class" if len(names) <= 40 else "accuracy of the worst and the best classes")
    save_figure(figure, path)
