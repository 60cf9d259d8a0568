"""Training and evaluation on some of a data set's classes."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.detect.annotations import BoxAnnotations, from_coco
from tasks.detect.coco_eval import COCO_FIGURES
from tasks.detect.data import Coco
from tasks.detect.metrics import evaluate

CATEGORIES = [{"id": number, "name": name} for number, name in ((4, "dog"), (9, "bird"), (2, "cat"))]


def box(image: int, category: int, xywh: tuple[float, ...], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(xywh), **more}


# Two images with two cats, a bird and a dog, which is left out below.
BOXES = [box(1, 2, (0, 0, 50, 50)), box(1, 9, (60, 60, 30, 30)), box(2, 4, (10, 10, 80, 80)), box(2, 2, (50, 50, 40, 40))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    images = [{"id": number, "file_name": "a.png", "width": 100, "height": 100} for number in (1, 2)]
    for split in ("train", "val"):
        content = {"images": images, "annotations": BOXES, "categories": CATEGORIES}
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
        (tmp_path / f"{split}2017").mkdir()
        Image.new("RGB", (100, 100)).save(tmp_path / f"{split}2017/a.png")
    return tmp_path


def read(root: Path, *classes: str) -> BoxAnnotations:
    return from_coco(root / "annotations/instances_val2017.json", root / "val2017", classes or None)


def test_labels_follow_the_order_of_the_names(root: Path) -> None:
    found = read(root, "bird", "cat")
    assert (found.class_names, found.category_ids, found.left_out) == (("bird", "cat"), (9, 2), ("dog",))
    assert found.labels.tolist() == [2, 1, 2]
    assert found.boxes.tolist() == [[0, 0, 50, 50], [60, 60, 90, 90], [50, 50, 90, 90]]
    assert len(found) == 2
    assert [found.of_image(0), found.of_image(1)] == [slice(0, 2), slice(2, 3)]


def test_all_classes_come_by_their_ids(root: Path) -> None:
    found = read(root)
    assert (found.class_names, found.category_ids, found.left_out) == (("cat", "dog", "bird"), (2, 4, 9), ())
    assert found.labels.tolist() == [1, 3, 2, 1]


def test_left_out_names_stand_by_their_ids(root: Path) -> None:
    assert read(root, "dog").left_out == ("cat", "bird")
    assert read(root, "dog").labels.tolist() == [1]
    assert read(root, "bird", "dog", "cat").left_out == ()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cat", "wolf"), r"has no class 'wolf'; accepted: some of cat, dog, bird"),
        (("cat", "cat"), r"classes \['cat', 'cat'\] are none or not distinct"),
    ],
)
def test_wrong_classes_are_refused(root: Path, classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=rf"instances_val2017\.json: {said}"):
        read(root, *classes)


def test_no_classes_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"classes \[\] are none or not distinct"):
        from_coco(root / "annotations/instances_val2017.json", root / "val2017", [])


def test_unknown_category_is_still_an_error(root: Path) -> None:
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"].append(box(1, 5, (0, 0, 9, 9)))
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="category_id 5, which is not in the file's list"):
        read(root, "cat")


@pytest.mark.parametrize("from_file", [True, False])
def test_average_precision_by_hand(root: Path, from_file: bool) -> None:
    truth = read(root, "bird", "cat")
    truth = truth if from_file else replace(truth, source=None)
    rows = np.array(
        [
            (0, 1, 0.9, 60, 60, 90, 90),  # the bird
            (1, 1, 0.95, 10, 10, 90, 90),  # the dog, taken for a bird: wrong, and scored better than the right one
            (0, 2, 0.8, 0, 0, 50, 50),  # one of two cats
        ],
        dtype=np.float64,
    )
    result = evaluate(truth, rows, np.arange(2))
    bird, cat = 1 / 2, 51 / 101  # precision 1/2 at every recall; precision 1 at recall 0 to .5 of 101 places
    assert result.per_class == {
        "bird": {"AP": pytest.approx(bird), "AP50": pytest.approx(bird)},
        "cat": {"AP": pytest.approx(cat), "AP50": pytest.approx(cat)},
    }
    assert result.figures["AP"] == result.figures["AP50"] == pytest.approx((bird + cat) / 2)
    assert result.figures["AP50_voc12"] == pytest.approx(1 / 2)
    assert result.figures["AR100"] == pytest.approx((1 + 1 / 2) / 2)
    assert result.precision.shape == (10, 101, 2)
    assert result.precision[0, :, 0].tolist() == pytest.approx([bird] * 101)
    assert [(d["category_id"], d["category_name"]) for d in result.detections] == [(9, "bird"), (9, "bird"), (2, "cat")]


def test_figures_are_those_of_pycocotools_on_these_classes(shared: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    file = shared / "data/coco/annotations/instances_val.json"
    names = ("tv", "person", "dog", "airplane")
    truth = from_coco(file, shared / "data/coco/val", names)
    rng = np.random.default_rng(0)
    boxes = truth.boxes + rng.normal(0, 0.1, truth.boxes.shape) * np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
    labels = np.where(rng.random(len(boxes)) < 0.2, rng.integers(1, 5, len(boxes)), truth.labels)
    rows = np.column_stack([truth.image_of_boxes(), labels, rng.random(len(boxes)), boxes])
    result = evaluate(truth, rows, np.arange(len(truth)))
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
        ids = coco.getCatIds(names)
        by_label = [coco.getCatIds([name])[0] for name in names]
        found = [
            {"image_id": int(truth.image_ids[int(i)]), "category_id": by_label[int(k) - 1], "bbox": [a, b, c - a, d - b], "score": s}
            for i, k, s, a, b, c, d in rows.tolist()
        ]
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.catIds = ids
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert [result.figures[name] for name in COCO_FIGURES] == pytest.approx(judge.stats.tolist(), abs=1e-12)
    assert len(truth.left_out) == 76


def test_data_set_of_some_classes(root: Path) -> None:
    data = Coco(str(root), classes=["dog", "cat"], size=(50, 50), batch_size=2, num_workers=0)
    data.setup("fit")
    assert data.class_names == ("dog", "cat")
    (batch,) = data.val_dataloader()
    assert batch.targets.labels.tolist() == [[2, 0], [1, 2]]
    assert data.val_set.annotations.left_out == ("bird",)
    with pytest.raises(ValueError, match="has no class 'wolf'"):
        _ = Coco(str(root), classes=["wolf"]).class_names
