"""What an evaluation writes for many classes, and the picture of predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from tasks.classify.metrics import Evaluation
from tasks.classify.report import MAX_LISTED, RIGHT, SHOWN_SIZE, WRONG, Shown, draw_predictions, write_report

NAMES = ("cat", "dog", "owl")


def evaluation_of(classes: int) -> Evaluation:
    """Class k is right k times of `classes`; the last has no images."""
    confusion = np.zeros((classes, classes), dtype=np.int64)
    for k in range(classes - 1):
        confusion[k, k], confusion[k, (k + 1) % classes] = k, classes - k
    accuracies = [k / classes for k in range(classes - 1)]
    rows = [{"accuracy": a, "images": classes} for a in accuracies] + [{"accuracy": -1.0, "images": 0}]
    figures = {"top1": float(np.mean(accuracies)), "top5": 1.0, "mean_accuracy": float(np.mean(accuracies)), "loss": 0.5}
    return Evaluation(figures, {f"class {k}": row for k, row in enumerate(rows)}, confusion)


@pytest.mark.parametrize(("classes", "written", "wide"), [(5, True, True), (20, True, True), (21, True, False), (101, False, False)])
def test_files_of_few_and_many_classes(classes: int, written: bool, wide: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path, evaluation_of(classes), [], [], {"images": 7})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["val/loss"], content["images"], len(content["per_class"])) == (0.5, 7, classes)
    assert content["absent_classes"] == [f"class {classes - 1}"]
    assert (tmp_path / "confusion.csv").exists() is written
    with Image.open(tmp_path / "pictures" / "classes.png") as drawn:
        assert (drawn.width > 1.5 * drawn.height) is wide  # with the matrix beside the bars
    assert not (tmp_path / "pictures" / "predictions.png").exists()
    printed = capsys.readouterr().out
    listed = [line for line in printed.splitlines() if "class " in line and "│" in line]
    assert len(listed) == min(classes - 1, MAX_LISTED)
    assert "class 0 " in listed[0]
    assert (f"The 20 worst of {classes - 1}" in printed) is (classes > 21)


def test_frames_tell_right_from_wrong(tmp_path: Path) -> None:
    image = torch.full((3, 40, 30), 128, dtype=torch.uint8)
    right, wrong = Shown(image, 1, torch.tensor([0.1, 0.8, 0.1])), Shown(image, 0, torch.tensor([0.1, 0.2, 0.7]))
    assert (right.is_wrong, wrong.is_wrong) == (False, True)
    draw_predictions([right], [wrong], NAMES, tmp_path / "out.png")
    pixels = np.array(Image.open(tmp_path / "out.png"))
    first, second = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    for half, own, other in ((first, RIGHT, WRONG), (second, WRONG, RIGHT)):
        assert (half == ImageColor.getrgb(own)).all(axis=-1).sum() > SHOWN_SIZE
        assert not (half == ImageColor.getrgb(other)).all(axis=-1).any()
    assert pixels.shape[0] > SHOWN_SIZE
