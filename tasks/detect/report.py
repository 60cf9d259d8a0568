"""What an evaluation leaves behind: the table on screen, metrics.json, detections and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heads import Detections
from tasks.detect.metrics import RECALLS, Evaluation
from tasks.pictures import colour_of, draw_boxes, draw_curves, grid, new_figure, plot_bars, save_figure, write_png
from tasks.report import print_table, write_metrics

# Detections under this score are left out of pictures.
SHOWN_SCORE = 0.3

# Smaller images are enlarged to about this many pixels.
SHOWN_SIZE = 320

Shown = tuple[Tensor, Detections, Tensor, Tensor]


def write_report(folder: Path, evaluation: Evaluation, shown: Sequence[Shown], facts: dict[str, Any]) -> None:
    """Writes `metrics.json`, `detections.json` and `pictures/`, and prints the table.

    Args:
        folder: where to write.
        evaluation: the results.
        shown: images (3, H, W) uint8 with detections, true boxes and labels, all in pixels of the image.
        facts: what else metrics.json should say: checkpoint, epoch, step, ...
    """
    write_metrics(folder, evaluation.figures, facts | {"per_class": evaluation.per_class})
    (folder / "detections.json").write_text(json.dumps(evaluation.detections))
    names = list(evaluation.per_class)
    pictures = folder / "pictures"
    if shown:
        write_png(grid([_compare(image, names) for image in shown], columns=3), pictures / "predictions.png")
    _draw_precision_recall(evaluation, pictures / "precision_recall.png")
    curves = {
        "loss": ["train/loss", "train/classification_loss", "train/localization_loss", "val/loss"],
        "average precision": ["val/AP", "val/AP50", "val/AP75"],
    }
    draw_curves(folder / "metrics.csv", curves, pictures / "curves.png")
    print_table("Classes", ("class", "AP", "AP50"), [(name, *row.values()) for name, row in evaluation.per_class.items()])
    left_out = facts.get("classes_left_out", ())
    title = f"COCO evaluation, {len(names)} of {len(names) + len(left_out)} classes" if left_out else "COCO evaluation"
    print_table(title, ("figure", "value"), list(evaluation.figures.items()))
    print(f"results are in {folder}")


def _compare(shown: Shown, names: Sequence[str]) -> Tensor:
    """The ground truth on the left and the detections on the right."""
    image, found, boxes, labels = shown
    # Captions on small inputs could not be read.
    scale = max(1, round(SHOWN_SIZE / max(image.shape[-2:])))
    image = image.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    found, boxes = found._replace(boxes=found.boxes * scale), boxes * scale
    real = labels > 0
    truth = draw_boxes(
        image, boxes[real], [names[label - 1] for label in labels[real].tolist()], [colour_of(n) for n in labels[real].tolist()]
    )
    return torch.cat([truth, draw_detections(image, found, names, SHOWN_SCORE)], dim=2)


def draw_detections(image: Tensor, found: Detections, names: Sequence[str], threshold: float) -> Tensor:
    """Draws detections from a score on, the best on top.

    Args:
        image: (3, H, W) uint8 RGB, in whose pixels the detections are.
        found: the detections, best first.
        names: class names; label k is `names[k - 1]`.
        threshold: least score.
    """
    keep = (found.scores >= threshold).nonzero().squeeze(1).flip(0)
    labels, scores = found.labels[keep].tolist(), found.scores[keep].tolist()
    captions = [f"{names[label - 1]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_boxes(image, found.boxes[keep], captions, [colour_of(label) for label in labels])


def _draw_precision_recall(evaluation: Evaluation, path: Path) -> None:
    figure, (curves, bars) = new_figure(2)
    precision = evaluation.precision
    present = precision[0, 0] > -1
    for threshold, index in (("IoU .50", 0), ("IoU .75", 5), ("IoU .90", 8)):
        if present.any():
            curves.plot(RECALLS, precision[index][:, present].mean(axis=1), label=threshold)
    curves.set(title="precision and recall, mean over classes", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    curves.legend()
    plot_bars(bars, {name: row["AP"] for name, row in evaluation.per_class.items() if row["AP"] >= 0}, "AP of each class")
    save_figure(figure, path)
