"""The fast evaluation against the original, to the last digit."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.detect.annotations import BoxAnnotations, from_coco
from tasks.detect.coco_eval import COCO_FIGURES
from tasks.detect.metrics import evaluate


def random_set(folder: Path, seed: int) -> tuple[BoxAnnotations, np.ndarray]:
    """Ids with gaps, crowds, areas that are not the boxes', images without objects, classes without objects, equal scores."""
    draw = np.random.default_rng(seed)
    image_ids, category_ids = draw.permutation(1000)[:40].tolist(), sorted(draw.permutation(90)[:12].tolist())
    objects = []
    for image in image_ids[:35]:
        for _ in range(draw.integers(0, 9)):
            width, height = draw.lognormal(3.8, 1.0, 2).clip(1, 300)
            box = [*draw.uniform(0, 200, 2).tolist(), float(width), float(height)]
            crowd = int(draw.random() < 0.1)
            number, category = len(objects) + 1, int(draw.choice(category_ids[:10]))
            area = float(width * height * draw.uniform(0.3, 1))
            objects.append({"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd})
    folder.mkdir()
    file = folder / "instances.json"
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 600, "width": 600} for number in image_ids]
    categories = [{"id": number, "name": f"class {number}"} for number in category_ids]
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    truth = from_coco(file, folder)
    picked = draw.integers(0, len(truth.boxes), 3000)
    owners = np.where(draw.random(3000) < 0.9, truth.image_of_boxes()[picked], draw.integers(0, 40, 3000))
    labels = np.where(draw.random(3000) < 0.7, truth.labels[picked], draw.integers(1, 13, 3000))
    boxes = truth.boxes[picked] + draw.normal(0, 12, (3000, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return truth, np.column_stack([owners, labels, draw.random(3000).round(2), boxes])


@pytest.mark.parametrize("seed", range(5))
def test_random_sets_equal_the_original(seed: int, tmp_path: Path) -> None:
    truth, rows = random_set(tmp_path / "set", seed)
    for seen in (np.arange(len(truth)), np.arange(3, 27)):
        rows_seen = rows[np.isin(rows[:, 0], seen)]
        fast, original = (evaluate(truth, rows_seen, seen, engine) for engine in ("faster", "pycocotools"))
        assert list(fast.figures.values()) == pytest.approx(list(original.figures.values()), rel=1e-12, abs=0)
        assert 0 < fast.figures["AP"] < 1
        assert np.allclose(fast.precision, original.precision, rtol=1e-12, atol=0)
        assert fast.detections == original.detections


@pytest.mark.parametrize("count", [0, 1])
def test_few_detections_equal_the_original(count: int, tmp_path: Path) -> None:
    truth, rows = random_set(tmp_path / "set", 9)
    seen = np.arange(len(truth))
    fast, original = (evaluate(truth, rows[:count], seen, engine) for engine in ("faster", "pycocotools"))
    assert fast.figures == pytest.approx(original.figures, rel=1e-12, abs=0)
    assert list(fast.figures)[:12] == list(COCO_FIGURES)


def test_real_set_equals_the_original(shared: Path) -> None:
    truth = from_coco(shared / "data/coco/annotations/instances_val.json", shared / "data/coco/val")
    draw = np.random.default_rng(0)
    boxes = np.repeat(truth.boxes, 8, axis=0) + draw.normal(0, 10, (8 * len(truth.boxes), 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    owners, labels = np.repeat(truth.image_of_boxes(), 8), np.repeat(truth.labels, 8)
    rows = np.column_stack([owners, labels, draw.random(len(labels)), boxes])
    fast, original = (evaluate(truth, rows, np.arange(len(truth)), engine) for engine in ("faster", "pycocotools"))
    assert fast.figures == original.figures
    assert 0.1 < fast.figures["AP"] < 1
