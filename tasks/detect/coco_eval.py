"""COCO's evaluation of boxes by faster-coco-eval, or by pycocotools, whose figures it must equal."""

import contextlib
import importlib.util
import io
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.coco import box_array, no_collection, read_coco
from tasks.detect.annotations import BoxAnnotations
from tasks.faults import Faults

# The order of pycocotools' stats.
COCO_FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
# Places in COCOeval's precision, (IoU, recall, class, area, most detections).
ALL_AREAS, MAX_DETECTIONS = 0, -1

Engine = Literal["auto", "faster", "pycocotools"]
Array = NDArray[np.float64]


def coco_results(annotations: BoxAnnotations, rows: Array) -> Array:
    """Puts detections in the columns that `COCO.loadRes` takes.

    Args:
        annotations: the ground truth.
        rows: (M, 7) image index, label in 1..K, score, x1 y1 x2 y2 in pixels.

    Returns:
        (M, 7) image id, x, y, width, height, score, category id.
    """
    images = annotations.image_ids[rows[:, 0].astype(np.int64)]
    categories = np.array(annotations.category_ids)[rows[:, 1].astype(np.int64) - 1]
    return np.column_stack([images, rows[:, 3:5], rows[:, 5:7] - rows[:, 3:5], rows[:, 2], categories])


def judge(
    annotations: BoxAnnotations, results: Array, image_ids: NDArray[np.int64], engine: Engine = "auto"
) -> tuple[dict[str, float], Array]:
    """Scores detections as COCO does.

    Args:
        annotations: the ground truth.
        results: (M, 7), see `coco_results`.
        image_ids: (I,) ids of the images that count.
        engine: `faster` for faster-coco-eval, `pycocotools` for the original, `auto` for the first that is installed.

    Returns:
        The twelve figures, in 0..1, -1 where the data has no such object, and (10, 101, K) precision by IoU threshold .5 to .95, recall 0
        to 1 and class, -1 where a class has no object.
    """
    coco_class, eval_class = _engine(engine)
    with contextlib.redirect_stdout(io.StringIO()), no_collection():
        truth = _official(coco_class, annotations.source) if annotations.source else _index(coco_class, to_coco(annotations))
        found = truth.loadRes(results) if len(results) else _index(coco_class, {**truth.dataset, "annotations": []})
        run = eval_class(truth, found, "bbox")
        run.params.imgIds = sorted(image_ids.tolist())
        run.params.catIds = sorted(annotations.category_ids)
        run.evaluate()
        run.accumulate()
        run.summarize()
    places = np.searchsorted(sorted(annotations.category_ids), annotations.category_ids)  # from the order of ids to that of labels
    figures = dict(zip(COCO_FIGURES, (float(value) for value in run.stats[: len(COCO_FIGURES)]), strict=True))
    return figures, np.asarray(run.eval["precision"])[:, :, places, ALL_AREAS, MAX_DETECTIONS]


def _engine(engine: Engine) -> tuple[Any, Any]:
    """The classes COCO and COCOeval of a package; both packages call their parts the same."""
    if engine == "faster" or (engine == "auto" and importlib.util.find_spec("faster_coco_eval")):
        import faster_coco_eval  # type: ignore[import-untyped]

        return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
    from pycocotools import coco, cocoeval

    return coco.COCO, cocoeval.COCOeval


@lru_cache(maxsize=1)  # the file is large, and the same at every validation
def _official(coco_class: Any, path: Path) -> Any:
    data = read_coco(path, Faults("report"))  # what cannot be used has been said, or has raised
    finite = np.flatnonzero(np.isfinite(box_array(data["annotations"])).all(axis=1))
    return _index(coco_class, {**data, "annotations": [data["annotations"][row] for row in finite]})


def _index(coco_class: Any, data: dict[str, Any]) -> Any:
    made = coco_class()
    made.dataset = data
    made.createIndex()
    return made


def to_coco(annotations: BoxAnnotations) -> dict[str, Any]:
    """Writes annotations that came from elsewhere as a COCO data set; ignored objects become crowds."""
    owner = annotations.image_ids[annotations.image_of_boxes()].tolist()
    corners = annotations.boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    categories = [annotations.category_ids[label - 1] for label in annotations.labels.tolist()]
    ignored = annotations.ignored.astype(int).tolist()
    return {
        "info": {},
        "images": [{"id": image} for image in annotations.image_ids.tolist()],
        "categories": [
            {"id": number, "name": name} for number, name in zip(annotations.category_ids, annotations.class_names, strict=True)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (image, c, box, crowd) in enumerate(zip(owner, categories, boxes, ignored, strict=True), start=1)
        ],
    }
