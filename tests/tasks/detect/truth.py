"""Small ground truths for the tests of metrics."""

import json
from pathlib import Path
from typing import Any

from tasks.detect.annotations import BoxAnnotations, from_coco


def object_(image: int, category: int, corners: tuple[float, ...], ignored: bool = False, **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(ignored), **more}


def truth_of(folder: Path, *objects: dict[str, Any], images: int = 3) -> BoxAnnotations:
    """Images 10, 20, 30 of 200 x 200 and the categories 3 cat and 7 dog."""
    content = {
        "images": [{"id": 10 * n, "file_name": f"{n}.jpg", "width": 200, "height": 200} for n in range(1, images + 1)],
        "annotations": list(objects),
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return from_coco(folder / "truth.json", folder)
