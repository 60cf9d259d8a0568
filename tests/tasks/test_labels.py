"""Class names against the files that others publish them in."""

import json
from pathlib import Path

import pytest

from tasks.labels import COCO_IDS, COCO_NAMES_OF_VOC, VOC_CLASSES, VOC_MASK_CLASSES, coco_classes, imagenet_classes


def test_counts() -> None:
    assert (len(VOC_CLASSES), len(VOC_MASK_CLASSES), len(COCO_NAMES_OF_VOC), len(COCO_IDS), len(coco_classes())) == (20, 21, 20, 80, 80)
    assert set(COCO_NAMES_OF_VOC) < set(coco_classes())


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_classes_are_those_of_its_annotations(split: str, shared: Path) -> None:
    categories = json.loads((shared / f"data/coco/annotations/instances_{split}.json").read_text())["categories"]
    assert dict(zip(COCO_IDS, coco_classes(), strict=True)) == {category["id"]: category["name"] for category in categories}


def test_imagenet_classes_are_the_first_of_the_published_names(shared: Path) -> None:
    published = (shared / "weights/imagenet/labels_1001.txt").read_text().splitlines()
    names = imagenet_classes(1001)
    assert names is not None
    different = {theirs: ours for theirs, ours in zip(published, names, strict=True) if theirs.split(", ")[0] != ours}
    assert different == {"crane": "crane bird", "maillot, tank suit": "maillot tank suit"}  # there are two of these names each
    assert imagenet_classes(1000) == names[1:]


def test_other_counts_are_not_imagenets() -> None:
    assert imagenet_classes(21) is None
