"""COCO's figures against pycocotools, confusion matrices against torchmetrics."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import torch

from tasks.bench.race import Race
from tasks.detect.annotations import BoxAnnotations
from tasks.detect.coco_eval import coco_results, judge, to_coco
from tasks.segment.metrics import ConfusionMatrix, evaluate

# A set as large as COCO's val2017 with a hundred detections an image.
IMAGES, CLASSES, OBJECTS, DETECTIONS = 5000, 80, 7, 100
# PASCAL VOC's masks in the input of DeepLab.
MASKS, MASK_CLASSES, MASK_SIZE = 8, 21, (513, 513)


def races(scale: float = 1.0) -> Iterator[Race]:
    """Yields the races.

    Args:
        scale: share of the images of the full size.

    Raises:
        ValueError: two ways have different results.
    """
    yield _coco(max(round(IMAGES * scale), 20))
    yield _confusion()


def _coco(images: int) -> Race:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, rows = random_detections(images)
    results, ids = coco_results(truth, rows), truth.image_ids
    found: dict[str, list[float]] = {}

    def original() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            known = COCO()
            known.dataset = to_coco(truth)
            known.createIndex()
            run = COCOeval(known, known.loadRes(results), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        found["pycocotools"] = [float(value) for value in run.stats]

    def ours() -> None:
        found["tasks.detect"] = list(judge(truth, results, ids)[0].values())

    original()
    ours()
    if not np.allclose(found["pycocotools"], found["tasks.detect"], rtol=1e-12, atol=0):
        raise ValueError(f"the figures differ: {found}")
    return Race(
        f"COCO's figures, {images:,} images",
        "detections",
        len(rows),
        "pycocotools",
        {"pycocotools": original, "tasks.detect": ours},
        f"all twelve figures, AP {found['tasks.detect'][0]:.6f}",
        warm_up=0,
    )


def random_detections(images: int) -> tuple[BoxAnnotations, np.ndarray]:
    """Returns random boxes, and (M, 7) detections near them: image index, label, score, x1 y1 x2 y2."""
    draw = np.random.default_rng(0)
    count = images * OBJECTS
    corners, sides = draw.uniform(0, 500, (count, 2)), draw.lognormal(4, 1, (count, 2)).clip(2, 400)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    labels = draw.integers(1, CLASSES + 1, count)
    truth = BoxAnnotations(
        files=np.array([f"{number}.jpg" for number in range(images)]),
        image_ids=np.arange(1, images + 1),
        sizes=np.full((images, 2), 1000),
        offsets=np.arange(images + 1) * OBJECTS,
        boxes=boxes,
        labels=labels,
        ignored=draw.random(count) < 0.02,
        class_names=tuple(f"class {number}" for number in range(CLASSES)),
        category_ids=tuple(range(1, CLASSES + 1)),
    )
    near = (np.arange(images)[:, None] * OBJECTS + draw.integers(0, OBJECTS, (images, DETECTIONS))).ravel()
    found = boxes[near] + draw.normal(0, 8, (len(near), 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    guessed = np.where(draw.random(len(near)) < 0.7, labels[near], draw.integers(1, CLASSES + 1, len(near)))
    return truth, np.column_stack([near // OBJECTS, guessed, draw.random(len(near)), found])


def _confusion() -> Race:
    from torchmetrics import JaccardIndex

    draw = torch.Generator().manual_seed(0)
    masks = torch.randint(0, MASK_CLASSES, (MASKS, *MASK_SIZE), generator=draw, dtype=torch.uint8)
    maps = torch.where(torch.rand(masks.shape, generator=draw) < 0.8, masks, masks.roll(1, dims=2))
    masks[:, :20] = 255
    theirs = JaccardIndex("multiclass", num_classes=MASK_CLASSES, ignore_index=255)
    longs = maps.long(), masks.long()
    names = [str(number) for number in range(MASK_CLASSES)]

    def original() -> float:
        theirs.reset()
        for found, mask in zip(*longs, strict=True):
            theirs.update(found[None], mask[None])
        return float(theirs.compute())

    def ours() -> float:
        counts = ConfusionMatrix(MASK_CLASSES, MASKS)
        counts.update(list(maps), list(masks))
        return evaluate(counts.compute().numpy(), names).figures["mIoU"]

    figures = original(), ours()
    if abs(figures[0] - figures[1]) > 1e-6:
        raise ValueError(f"the mIoU of torchmetrics is {figures[0]}, ours {figures[1]}")
    return Race(
        f"mIoU, {MASK_SIZE[0]} x {MASK_SIZE[1]}, {MASK_CLASSES} classes",
        "masks",
        MASKS,
        "torchmetrics JaccardIndex",
        {"torchmetrics JaccardIndex": original, "tasks.segment": ours},
        f"mIoU {figures[1]:.6f}",
    )
