"""What annotations keep in memory: arrays, which loader workers share, and no object for each image or box."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.classify.annotations import from_folders
from tasks.detect.annotations import from_coco as boxes_of
from tasks.segment.annotations import from_coco as masks_of
from tasks.segment.annotations import from_folders as masks_in

IMAGES = 1000


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A thousand images with two objects each, as far as lists of files go."""
    images = [{"id": number, "file_name": f"{number}.png", "height": 60, "width": 80} for number in range(IMAGES)]
    polygon = [[1.5, 1.5, 30.5, 1.5, 30.5, 30.5]]
    objects = [{"image_id": n // 2, "category_id": 1, "bbox": [1, 1, 30, 30], "segmentation": polygon} for n in range(2 * IMAGES)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(IMAGES):
            (tmp_path / folder / f"{number}.png").touch()
    return tmp_path


@pytest.mark.parametrize(
    "read",
    [
        lambda files: boxes_of(files / "coco.json", files),
        lambda files: masks_of(files / "coco.json", files, voc_labels=False),
        lambda files: masks_in(files / "a", files / "b", ["background", "a"]),
        from_folders,
    ],
    ids=["boxes", "polygons", "masks", "classes"],
)
def test_no_object_stays_for_each_image(read: Callable[[Path], Any], files: Path) -> None:
    gc.collect()
    before = len(gc.get_objects())
    annotations = read(files)
    gc.collect()
    assert len(annotations) >= IMAGES
    assert len(gc.get_objects()) - before < IMAGES // 10
    assert not any(isinstance(value, (list, dict)) and len(value) >= IMAGES // 10 for value in vars(annotations).values())
