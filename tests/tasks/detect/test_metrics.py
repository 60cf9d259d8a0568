"""Average precision against hand computation, pycocotools and torchmetrics."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.detect.annotations import BoxAnnotations, from_coco
from tasks.detect.coco_eval import COCO_FIGURES, to_coco
from tasks.detect.metrics import evaluate, voc_ap
from tests.tasks.detect.truth import object_, truth_of


def rows_of(*detections: tuple[float, ...]) -> np.ndarray:
    return np.array(detections, dtype=np.float64).reshape(-1, 7)


def perfect(truth: BoxAnnotations) -> np.ndarray:
    kept = ~truth.ignored
    scores = np.linspace(0.9, 0.1, kept.sum())
    return np.column_stack([truth.image_of_boxes()[kept], truth.labels[kept], scores, truth.boxes[kept]]).astype(np.float64)


def everything(truth: BoxAnnotations) -> np.ndarray:
    return np.arange(len(truth))


OBJECTS = (
    object_(10, 3, (0, 0, 20, 20)),
    object_(10, 7, (50, 50, 150, 150)),
    object_(20, 3, (10, 10, 60, 60)),
    object_(20, 3, (100, 100, 200, 200)),
)


@pytest.mark.parametrize("from_file", [True, False])
def test_perfect_detections(tmp_path: Path, from_file: bool) -> None:
    truth = truth_of(tmp_path, *OBJECTS)
    truth = truth if from_file else replace(truth, source=None)
    result = evaluate(truth, perfect(truth), everything(truth))
    assert list(result.figures) == [*COCO_FIGURES, "AP50_voc07", "AP50_voc12"]
    assert result.figures["AR1"] == pytest.approx(5 / 6)  # one detection an image and class: two of three cats
    assert all(value == pytest.approx(1.0) for name, value in result.figures.items() if name != "AR1")
    assert result.per_class == {name: {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)} for name in ("cat", "dog")}
    assert result.precision.shape == (10, 101, 2)


def test_no_detections_score_nothing(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, *OBJECTS)
    result = evaluate(truth, rows_of(), everything(truth))
    assert all(value == 0 for value in result.figures.values())
    assert result.per_class["cat"] == {"AP": 0.0, "AP50": 0.0}
    assert result.detections == []


@pytest.mark.parametrize("rows", [rows_of(), rows_of((0, 1, 0.9, 0, 0, 10, 10))])
def test_no_objects_give_minus_one(tmp_path: Path, rows: np.ndarray) -> None:
    truth = truth_of(tmp_path)
    result = evaluate(truth, rows, everything(truth))
    assert set(result.figures.values()) == {-1.0}
    assert result.per_class == {name: {"AP": -1.0, "AP50": -1.0} for name in ("cat", "dog")}


def test_class_without_objects_does_not_count(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, OBJECTS[0])
    result = evaluate(truth, np.concatenate([perfect(truth), rows_of((1, 2, 0.99, 0, 0, 9, 9))]), everything(truth))
    assert result.figures["AP"] == pytest.approx(1.0)
    assert result.figures["AP50_voc12"] == pytest.approx(1.0)
    assert result.figures["AP_large"] == -1.0
    assert result.per_class["dog"] == {"AP": -1.0, "AP50": -1.0}


def test_detections_are_written_in_coco_format(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, *OBJECTS)
    result = evaluate(truth, rows_of((1, 2, 0.123456, 1, 2, 4.006, 8)), everything(truth))
    (found,) = result.detections
    assert found == {"image_id": 20, "category_id": 7, "category_name": "dog", "bbox": [1, 2, 3.01, 6], "score": 0.12346}
    assert json.loads(json.dumps(found)) == found


def test_detections_in_crowds_do_not_count(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, OBJECTS[0], object_(10, 3, (100, 100, 200, 200), ignored=True))
    rows = rows_of((0, 1, 0.9, 110, 110, 150, 150), (0, 1, 0.8, 150, 150, 190, 190), (0, 1, 0.5, 0, 0, 20, 20))
    for source in (truth.source, None):
        assert evaluate(replace(truth, source=source), rows, everything(truth)).figures["AP"] == pytest.approx(1.0)


def test_only_images_that_were_seen_count(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, *OBJECTS)
    rows = perfect(truth)
    result = evaluate(truth, rows[rows[:, 0] == 0], np.array([0]))
    assert result.figures["AP"] == pytest.approx(1.0)
    assert result.figures["AP50_voc07"] == pytest.approx(1.0)
    assert evaluate(truth, rows[rows[:, 0] == 0], everything(truth)).figures["AP"] < 0.8


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [1, 1, 1, 1], [5, None, None, 2]])
def test_ids_of_hand_made_annotations_do_not_matter(tmp_path: Path, ids: list[int | None]) -> None:
    objects = [value | ({} if number is None else {"id": number}) for value, number in zip(OBJECTS, ids, strict=True)]
    truth = truth_of(tmp_path, *objects)
    assert evaluate(truth, perfect(truth), everything(truth)).figures["AP"] == pytest.approx(1.0)


def test_ignored_objects_become_crowds(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, OBJECTS[0], object_(20, 7, (5, 6, 9, 12), ignored=True))
    data = to_coco(truth)
    assert [image["id"] for image in data["images"]] == [10, 20, 30]
    assert data["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert data["annotations"] == [
        {"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 20, "category_id": 7, "bbox": [5, 6, 4, 6], "area": 24, "iscrowd": 1},
    ]


def test_voc_ap_by_hand(tmp_path: Path) -> None:
    truth = truth_of(
        tmp_path,
        object_(10, 3, (0, 0, 10, 10)),
        object_(10, 3, (20, 20, 30, 30)),
        object_(20, 3, (0, 0, 10, 10)),
        object_(20, 3, (50, 50, 60, 60), ignored=True),
    )
    rows = rows_of(
        (0, 1, 0.40, 20, 20, 30, 30),  # right: recall 3/3, precision 3/5
        (0, 1, 0.90, 0, 0, 10, 10),  # right: recall 1/3, precision 1
        (0, 1, 0.80, 0, 0, 10, 9),  # the same object again: wrong
        (1, 1, 0.70, 50, 50, 60, 60),  # difficult: does not count
        (1, 1, 0.65, 50, 50, 60, 60),  # and again
        (2, 1, 0.60, 0, 0, 10, 10),  # nothing there: wrong
        (1, 1, 0.50, 0, 0, 10, 5),  # overlap of exactly one half, right: recall 2/3, precision 2/4
    )
    area, eleven = (voc_ap(truth, rows, everything(truth), eleven_points)[0] for eleven_points in (False, True))
    assert area == pytest.approx(1 / 3 + 2 / 3 * 0.6)
    assert eleven == pytest.approx((4 + 7 * 0.6) / 11)  # recall 0 to .3 at precision 1, .4 to 1 at .6
    assert np.isnan(voc_ap(truth, rows, everything(truth), False)[1])


def test_voc_ap_ends_where_objects_are_missed(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, object_(10, 3, (0, 0, 10, 10)), object_(10, 3, (20, 20, 30, 30)))
    rows = rows_of((0, 1, 0.9, 0, 0, 10, 10))
    assert voc_ap(truth, rows, everything(truth), False)[0] == pytest.approx(0.5)
    assert voc_ap(truth, rows, everything(truth), True)[0] == pytest.approx(6 / 11)
    assert voc_ap(truth, rows_of(), everything(truth), True)[0] == 0


def devkit_hits(truth: BoxAnnotations, rows: np.ndarray, label: int) -> tuple[list[int], int]:
    """VOCevaldet.m as loops, with continuous boxes."""
    taken: set[int] = set()
    hits = []
    for image, _, _, *box in rows[rows[:, 1] == label][np.argsort(-rows[rows[:, 1] == label][:, 2], kind="stable")]:
        best, place = -np.inf, -1
        for number in range(truth.offsets[int(image)], truth.offsets[int(image) + 1]):
            other = truth.boxes[number].astype(float)
            width, height = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
            if truth.labels[number] == label and width > 0 and height > 0:
                both = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
                overlap = width * height / (both - width * height)
                best, place = max((best, place), (overlap, number))
        if best >= 0.5 and truth.ignored[place]:
            continue
        hits.append(int(best >= 0.5 and place not in taken))
        taken |= {place} if hits[-1] else set()
    return hits, int((~truth.ignored & (truth.labels == label)).sum())


def test_voc_ap_equals_the_devkit(shared: Path) -> None:
    truth = real_truth(shared)
    rows = random_detections(truth, 3)
    aps = {eleven: voc_ap(truth, rows, everything(truth), eleven) for eleven in (False, True)}
    for label in (1, 3, 57):
        hits, total = devkit_hits(truth, rows, label)
        recall, precision = np.cumsum(hits) / total, np.cumsum(hits) / np.arange(1, len(hits) + 1)
        eleven = np.mean([max(precision[recall >= t], default=0) for t in np.arange(0, 1.1, 0.1)])
        bounds = np.concatenate([[0], recall])
        area = sum((bounds[i + 1] - bounds[i]) * precision[i:].max() for i in range(len(recall)))
        assert total > 0
        assert (aps[True][label - 1], aps[False][label - 1]) == pytest.approx((eleven, area))


def real_truth(shared: Path) -> BoxAnnotations:
    return from_coco(shared / "data" / "coco" / "annotations" / "instances_val.json", shared / "data" / "coco" / "val")


def random_detections(truth: BoxAnnotations, seed: int) -> np.ndarray:
    """True boxes that are moved, some twice, some of another class, and boxes from nowhere."""
    rng = np.random.default_rng(seed)
    picked = rng.permutation(np.repeat(np.arange(len(truth.boxes)), 2))[:2500]
    sides = np.tile(truth.boxes[picked, 2:] - truth.boxes[picked, :2], 2)
    boxes = truth.boxes[picked] + rng.normal(0, 0.08, size=(2500, 4)) * sides
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.where(rng.random(2500) < 0.1, rng.integers(1, 81, size=2500), truth.labels[picked])
    return np.column_stack([truth.image_of_boxes()[picked], labels, rng.random(2500), boxes]).astype(np.float64)


def test_twelve_figures_are_those_of_pycocotools(shared: Path) -> None:
    truth = real_truth(shared)
    rows = random_detections(truth, 0)
    result = evaluate(truth, rows, everything(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth.source))
        found = coco.loadRes(
            [
                {
                    "image_id": int(truth.image_ids[int(image)]),
                    "category_id": truth.category_ids[int(label) - 1],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
                for image, label, score, x1, y1, x2, y2 in rows.tolist()
            ]
        )
        judge = COCOeval(coco, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert [result.figures[name] for name in COCO_FIGURES] == pytest.approx(judge.stats.tolist(), abs=1e-12)
    assert 0.05 < result.figures["AP"] < 0.9
    assert len(result.detections) == 2500


def test_figures_are_those_of_torchmetrics(shared: Path) -> None:
    from torchmetrics.detection import MeanAveragePrecision

    truth = real_truth(shared)
    rows = random_detections(truth, 1)
    seen = np.arange(40)
    rows = rows[rows[:, 0] < 40]
    data = to_coco(truth)["annotations"]
    metric = MeanAveragePrecision(rec_thresholds=np.linspace(0, 1, 101).tolist())  # its own are rounded to float32
    for image in seen:
        mine, found = truth.of_image(image), torch.from_numpy(rows[rows[:, 0] == image])
        target = {
            "boxes": torch.from_numpy(truth.boxes[mine]),
            "labels": torch.from_numpy(truth.labels[mine]),
            "iscrowd": torch.from_numpy(truth.ignored[mine]).int(),
            "area": torch.tensor([a["area"] for a in data[mine]], dtype=torch.float64),
        }
        metric.update([{"boxes": found[:, 3:].float(), "scores": found[:, 2], "labels": found[:, 1].long()}], [target])
    theirs = metric.compute()
    ours = evaluate(replace(truth, source=None), rows, seen).figures
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")
    assert [ours[name] for name in COCO_FIGURES[:9]] == pytest.approx([float(theirs[name]) for name in names], abs=1e-6)
