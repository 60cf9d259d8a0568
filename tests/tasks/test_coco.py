"""What detection and segmentation share of COCO's format (reading it: see `detect/test_annotations.py`)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.coco import coco_sources, positions, read_coco


def test_positions_of_ids_in_any_order() -> None:
    known = np.array([20, 3, 7])
    assert positions(known, [7, 20, 7, 3], "x").tolist() == [2, 0, 2, 1]
    assert positions(known, [], "x").tolist() == []
    assert positions(np.array([], dtype=np.int64), [], "x").tolist() == []


@pytest.mark.parametrize(("wanted", "unknown"), [([5], 5), ([3, 5, 7], 5), ([0], 0), ([20, 99, 98], 99)])
def test_unknown_id_is_named(wanted: list[int], unknown: int) -> None:
    with pytest.raises(ValueError, match=f"an annotation has image_id {unknown}, which is not in the file's list"):
        positions(np.array([20, 3, 7]), wanted, "an annotation has image_id")
    with pytest.raises(ValueError, match=f"x {wanted[0]}, which is not in the file's list"):
        positions(np.array([], dtype=np.int64), wanted, "x")


def test_sources_are_those_of_coco_2017_unless_named() -> None:
    root = Path("data")
    assert coco_sources(root, None, None, None, None) == {
        "train": (root / "train2017", root / "annotations" / "instances_train2017.json"),
        "val": (root / "val2017", root / "annotations" / "instances_val2017.json"),
    }
    named = coco_sources(root, "a", "b.json", "c", "d.json")
    assert named == {"train": (Path("a"), Path("b.json")), "val": (Path("c"), Path("d.json"))}


def test_segmentations_are_kept_as_they_are(tmp_path: Path) -> None:
    parts: list[Any] = [[[0, 0, 5, 0, 5, 5]], {"size": [4, 4], "counts": [3, 13]}, {"size": [4, 4], "counts": "04"}]
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": part} for part in parts]
    content = {"images": [{"id": 1, "file_name": "a"}], "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert [annotation["segmentation"] for annotation in read_coco(str(tmp_path / "a.json"))["annotations"]] == parts
