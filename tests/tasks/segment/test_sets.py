"""VOC, COCO and the built-in shapes: labels, downloads, and what users get wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.detect.annotations import from_coco as boxes_of
from tasks.download import COCO_ARCHIVES, SBD_ARCHIVE, VOC_ARCHIVES
from tasks.labels import VOC_MASK_CLASSES
from tasks.segment.data import Batch, Coco, MaskData, Shapes, Voc
from tasks.shapes import SHAPE_CLASSES, ensure_shapes


def ready(data: MaskData, stage: str = "fit") -> Any:
    data.prepare_data()
    data.setup(stage)
    return data


def check_batch(batch: Batch, shapes: Sequence[tuple[int, int]], classes: int) -> None:
    assert [tuple(image.shape) for image in batch.images] == [(3, *shape) for shape in shapes]
    assert [tuple(mask.shape) for mask in batch.masks] == list(shapes)
    assert {tensor.dtype for tensor in (*batch.images, *batch.masks)} == {torch.uint8}
    assert (batch.indices.shape, batch.indices.dtype) == ((len(shapes),), torch.int64)
    assert set(torch.cat([mask.flatten() for mask in batch.masks]).tolist()) <= {*range(classes), 255}


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"size": (0, 320)}, {"size": (320, -1)}])
@pytest.mark.parametrize("kind", [Coco, Voc, Shapes])
def test_arguments_out_of_range_are_refused(kind: type[MaskData], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1, workers at least 0"):
        kind(**options)


def test_shapes_batches(shapes_root: Path) -> None:
    data = Shapes(str(shapes_root), 8, 4, size=(64, 96), batch_size=4, num_workers=0)
    assert data.class_names == ("background", *SHAPE_CLASSES)
    ready(data)
    assert (len(data.train_set), len(data.val_set)) == (8, 4)
    check_batch(next(iter(data.train_dataloader())), [(64, 96)] * 4, 6)
    (batch,) = data.val_dataloader()
    check_batch(batch, [tuple(size) for size in data.val_set.annotations.sizes], 6)


def test_masks_of_shapes_lie_in_the_boxes_of_detection(shapes_root: Path) -> None:
    data = ready(Shapes(str(shapes_root), 8, 4, num_workers=0))
    folder = ensure_shapes(shapes_root, 8, 4)
    boxes = boxes_of(folder / "annotations" / "instances_train.json", folder / "train")
    masks = data.train_set.annotations
    assert boxes.files.tolist() == masks.files.tolist()
    for index in range(len(masks)):
        mask, of_image = masks.mask(index), boxes.of_image(index)
        assert set(np.unique(mask)) == {0, *boxes.labels[of_image].tolist()}
        for label in set(boxes.labels[of_image].tolist()):
            rows, columns = np.nonzero(mask == label)
            corners = boxes.boxes[of_image][boxes.labels[of_image] == label]
            union = [*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)]
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == union


def test_shapes_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ready(Shapes(train_images=1, val_images=1, num_workers=0))
    assert (tmp_path / "mobiletap" / "shapes").is_dir()


def test_voc_batch(shared: Path) -> None:
    data = Voc(str(shared / "data" / "VOCdevkit"), size=(64, 64), batch_size=4, num_workers=0)
    assert data.class_names == VOC_MASK_CLASSES
    ready(data)
    assert (len(data.train_set), len(data.val_set)) == (1437, 223)
    check_batch(next(iter(data.train_dataloader())), [(64, 64)] * 4, 21)


def test_real_coco_batch(shared: Path) -> None:
    folder = shared / "data" / "coco"
    files = {"val_images": str(folder / "val"), "val_annotations": str(folder / "annotations" / "instances_val.json")}
    data = ready(Coco(**files, batch_size=8, num_workers=0), "validate")
    assert (data.class_names, len(data.val_set)) == (VOC_MASK_CLASSES, 206)
    check_batch(next(iter(data.val_dataloader())), [tuple(size) for size in data.val_set.annotations.sizes[:8]], 21)
    every = Coco(**files, voc_labels=False)
    assert (every.class_names[:2], len(every.class_names)) == (("background", "person"), 81)
    assert np.unique(every.annotations("val").mask(0)).max() <= 80 or 255 in every.annotations("val").mask(0)


CATEGORIES = ({"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}, {"id": 38, "name": "kite"})


def write_coco(root: Path, split: str, categories: Any = CATEGORIES) -> None:
    """Image 1 has a dog of 30 pixels and a kite of 16, image 2 only a kite, image 3 nothing."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2017").mkdir(exist_ok=True)
    images = [{"id": number, "file_name": "a.png", "width": 12, "height": 10} for number in (1, 2, 3)]
    objects = [
        {"image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 6], "segmentation": [[0, 0, 5, 0, 5, 6, 0, 6]]},
        {"image_id": 1, "category_id": 38, "bbox": [6, 0, 4, 4], "segmentation": [[6, 0, 10, 0, 10, 4, 6, 4]]},
        {"image_id": 2, "category_id": 38, "bbox": [6, 0, 4, 4], "segmentation": [[6, 0, 10, 0, 10, 4, 6, 4]]},
    ]
    content = {"images": images, "annotations": objects, "categories": list(categories)}
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    Image.new("RGB", (12, 10)).save(root / f"{split}2017" / "a.png")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_coco(tmp_path / "coco", split)
    return tmp_path / "coco"


def counts_of(data: MaskData, split: str, index: int = 0) -> dict[int, int]:
    values, counts = np.unique(data.annotations(split).mask(index), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_coco_has_vocs_labels(coco: Path) -> None:
    data = Coco(str(coco), min_pixels=0)
    assert data.class_names[12] == "dog"
    assert counts_of(data, "train") == {0: 90, 12: 30}
    assert counts_of(data, "train", 1) == {0: 120}


def test_coco_has_its_own_labels_when_asked(coco: Path) -> None:
    data = ready(Coco(str(coco), voc_labels=False, min_pixels=0, num_workers=0))
    assert data.class_names == data.train_set.annotations.class_names == ("background", "cat", "dog", "kite")
    assert counts_of(data, "val") == {0: 74, 2: 30, 3: 16}


def test_small_coco_images_are_left_out_of_training_alone(coco: Path) -> None:
    lengths = {least: [len(Coco(str(coco), min_pixels=least).annotations(split)) for split in ("train", "val")] for least in (0, 30, 31)}
    assert lengths == {0: [3, 3], 30: [1, 3], 31: [0, 3]}
    assert len(Coco(str(coco), voc_labels=False, min_pixels=16).annotations("train")) == 2
    with pytest.raises(ValueError, match=r"instances_train2017\.json: holds no images to train on"):
        ready(Coco(str(coco), num_workers=0))


def test_splits_with_other_classes_are_refused(coco: Path) -> None:
    write_coco(coco, "train", [*CATEGORIES[:2], {"id": 38, "name": "plane"}])
    with pytest.raises(ValueError, match=r"train2017\.json and .*val2017\.json differ in the classes kite, plane"):
        ready(Coco(str(coco), voc_labels=False, min_pixels=0, num_workers=0))


def test_splits_with_another_order_of_classes_are_refused(coco: Path) -> None:
    write_coco(coco, "train", [{"id": 17, "name": "dog"}, {"id": 18, "name": "cat"}, CATEGORIES[2]])
    with pytest.raises(ValueError, match="differ in the order of the classes"):
        ready(Coco(str(coco), voc_labels=False, min_pixels=0, num_workers=0))


def test_labels_go_by_names_and_not_by_ids(coco: Path) -> None:
    write_coco(coco, "val", [{"id": 38, "name": "dog"}, {"id": 18, "name": "scratch"}])
    assert counts_of(Coco(str(coco)), "val") == {0: 104, 12: 16}


def test_missing_voc_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="root must be a VOCdevkit folder that holds VOC2012"):
        ready(Voc(str(tmp_path)))


@pytest.mark.parametrize("split", ["trainval", "2012", "2012/a/b", ""])
def test_split_without_a_year_is_refused(split: str) -> None:
    with pytest.raises(ValueError, match="accepted: year/split"):
        Voc(train_splits=[split])
    with pytest.raises(ValueError, match="accepted: year/split"):
        Voc(val_splits=["2012/val", split])


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path]]:
    calls: list[tuple[Any, Path]] = []
    for module in ("tasks.segment.data.sets", "tasks.voc"):
        monkeypatch.setattr(f"{module}.fetch", lambda archives, root: calls.append((archives, root)))
    monkeypatch.setattr("tasks.segment.data.sets.write_train_aug", lambda voc, sbd: calls.append((voc, sbd)))
    return calls


def test_coco_is_downloaded_only_when_asked(coco: Path, fetched: list[tuple[Any, Path]]) -> None:
    Coco(str(coco)).prepare_data()
    assert fetched == []
    Coco(str(coco), download=True).prepare_data()
    assert fetched == [(COCO_ARCHIVES, coco)]


def test_class_names_of_coco_wait_for_the_download(coco: Path, fetched: list[tuple[Any, Path]]) -> None:
    assert Coco(str(coco), voc_labels=False, download=True).class_names == ("background", "cat", "dog", "kite")
    assert fetched == [(COCO_ARCHIVES, coco)]


def test_voc_2012_is_downloaded_beside_its_folder_and_sbd_where_a_split_needs_it(tmp_path: Path, fetched: list[tuple[Any, Path]]) -> None:
    devkit = tmp_path / "VOCdevkit"
    Voc(str(devkit)).prepare_data()
    assert fetched == []
    Voc(str(devkit), ["2012/train"], download=True).prepare_data()
    assert fetched == [(VOC_ARCHIVES[2:], tmp_path)]
    fetched.clear()
    Voc(str(devkit), ["2012/train_aug"], download=True).prepare_data()
    sbd = (devkit / "VOC2012", tmp_path / "benchmark_RELEASE" / "dataset")
    assert fetched == [(VOC_ARCHIVES[2:], tmp_path), ([SBD_ARCHIVE], tmp_path), sbd]
    assert "VOC2012" in VOC_ARCHIVES[2].unpacks
    with pytest.raises(ValueError, match="accepted: a folder named VOCdevkit"):
        Voc(str(tmp_path / "voc"), download=True).prepare_data()
