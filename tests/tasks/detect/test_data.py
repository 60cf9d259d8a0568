"""The data sets: batches, workers, orientation, and what users get wrong."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from tasks.detect.data import Batch, BoxData, Coco, Shapes, Voc
from tasks.detect.transforms import Augmentation, LightAugmentation, ResizeOnly, SSDAugmentation
from tasks.download import COCO_ARCHIVES, VOC_ARCHIVES
from tasks.labels import VOC_CLASSES
from tasks.shapes import SHAPE_CLASSES

CATEGORIES = ({"id": 4, "name": "dog"}, {"id": 2, "name": "cat"})


def write_split(root: Path, split: str, images: list[dict[str, Any]], boxes: list[dict[str, Any]], categories: Any = CATEGORIES) -> None:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2017").mkdir(exist_ok=True)
    content = {"images": images, "annotations": boxes, "categories": list(categories)}
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def box(image: int, xywh: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 4, "bbox": xywh, **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of 40 x 60 in each split, all the same file; image 1 has two boxes and a crowd, image 2 one, the others none."""
    boxes = [box(1, [0, 0, 30, 20]), box(1, [30, 20, 30, 20], iscrowd=1), box(1, [15, 10, 30, 20]), box(2, [0, 0, 60, 40])]
    for split in ("train", "val"):
        images = [{"id": number, "file_name": "a.png", "width": 60, "height": 40} for number in range(1, 5)]
        write_split(tmp_path, split, images, boxes)
        pixels = np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{split}2017" / "a.png")
    return tmp_path


def ready(data: BoxData, stage: str = "fit") -> BoxData:
    data.prepare_data()
    data.setup(stage)
    return data


def small(root: Path, **options: Any) -> Coco:
    return Coco(str(root), **({"size": (20, 30), "batch_size": 4, "num_workers": 0, "augmentation": ResizeOnly()} | options))


def check_batch(batch: Batch, count: int, size: tuple[int, int]) -> None:
    assert batch.images.shape == (count, 3, *size)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.boxes.shape == (count, batch.targets.labels.shape[1], 4)
    assert (batch.targets.boxes.dtype, batch.targets.labels.dtype) == (torch.float32, torch.int64)
    assert (batch.sizes.shape, batch.sizes.dtype) == ((count, 2), torch.int64)
    assert (batch.indices.shape, batch.indices.dtype) == ((count,), torch.int64)


def test_coco_batch(root: Path) -> None:
    data = ready(small(root))
    (batch,) = data.val_dataloader()
    check_batch(batch, 4, (20, 30))
    assert batch.indices.tolist() == [0, 1, 2, 3]
    assert batch.sizes.tolist() == [[40, 60]] * 4
    assert data.class_names == ("cat", "dog")


def test_ignored_boxes_are_no_targets_and_padding_has_label_0(root: Path) -> None:
    (batch,) = ready(small(root)).val_dataloader()
    assert batch.targets.labels.tolist() == [[2, 2], [2, 0], [0, 0], [0, 0]]
    assert batch.targets.boxes[0].tolist() == [[0, 0, 15, 10], [7.5, 5, 22.5, 15]]
    assert batch.targets.boxes[1].tolist() == [[0, 0, 30, 20], [0, 0, 0, 0]]


def test_batch_without_any_box(root: Path) -> None:
    data = ready(small(root, batch_size=2))
    _, batch = data.val_dataloader()
    assert batch.targets.boxes.shape == (2, 0, 4)
    assert batch.targets.labels.shape == (2, 0)


def test_training_leaves_out_the_smaller_last_batch_only_where_there_is_a_full_one(root: Path) -> None:
    counts = {size: [len(b.images) for b in ready(small(root, batch_size=size)).train_dataloader()] for size in (1, 3, 4, 5)}
    assert counts == {1: [1, 1, 1, 1], 3: [3], 4: [4], 5: [4]}
    data = ready(small(root, batch_size=3))
    assert [len(b.images) for b in data.val_dataloader()] == [3, 1]
    assert [b.indices.tolist() for b in data.test_dataloader()] == [[0, 1, 2], [3]]


def test_shapes_batch(shapes_root: Path) -> None:
    data = Shapes(str(shapes_root), 8, 4, size=(64, 96), batch_size=4, num_workers=0)
    assert data.class_names == SHAPE_CLASSES
    ready(data)
    assert (len(data.train_set), len(data.val_set)) == (8, 4)
    check_batch(next(iter(data.train_dataloader())), 4, (64, 96))


def test_shapes_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ready(Shapes(train_images=1, val_images=1, num_workers=0))
    assert (tmp_path / "mobiletap" / "shapes").is_dir()


def test_voc_batch(shared: Path) -> None:
    splits = {"train_splits": ["2012/train"], "val_splits": ["2012/val"]}
    data = Voc(str(shared / "data" / "VOCdevkit"), **splits, size=(64, 64), batch_size=4, num_workers=0, augmentation=SSDAugmentation())
    assert data.class_names == VOC_CLASSES
    ready(data)
    assert (len(data.train_set), len(data.val_set)) == (1437, 223)
    check_batch(next(iter(data.train_dataloader())), 4, (64, 64))
    assert ready(Voc(str(data.root), **splits, train_difficult=True)).train_set.annotations.ignored.sum() == 0
    assert data.train_set.annotations.ignored.sum() > 0


def test_real_coco_batch(shared: Path) -> None:
    folder = shared / "data" / "coco"
    files = {f"{split}_images": str(folder / split) for split in ("train", "val")}
    files |= {f"{split}_annotations": str(folder / "annotations" / f"instances_{split}.json") for split in ("train", "val")}
    data = ready(Coco(**files, size=(96, 96), batch_size=8, num_workers=0, augmentation=SSDAugmentation()))
    assert len(data.class_names) == 80
    check_batch(next(iter(data.train_dataloader())), 8, (96, 96))
    check_batch(next(iter(data.val_dataloader())), 8, (96, 96))


def test_validation_needs_no_training_data(root: Path) -> None:
    (root / "annotations" / "instances_train2017.json").unlink()
    assert len(ready(small(root), "validate").val_set) == 4
    with pytest.raises(ValueError, match=r"instances_train2017\.json: no such annotation file"):
        ready(small(root))


def test_splits_with_other_classes_are_refused(root: Path) -> None:
    write_split(root, "train", [{"id": 1, "file_name": "a.png"}], [], [{"id": 2, "name": "cat"}, {"id": 4, "name": "cow"}])
    with pytest.raises(ValueError, match=r"train2017\.json and .*val2017\.json differ in the classes cow, dog"):
        ready(small(root))


def test_splits_with_another_order_of_classes_are_refused(root: Path) -> None:
    write_split(root, "train", [{"id": 1, "file_name": "a.png"}], [], [{"id": 2, "name": "dog"}, {"id": 4, "name": "cat"}])
    with pytest.raises(ValueError, match="differ in the order of the classes"):
        ready(small(root))


def test_training_set_without_images_is_refused(root: Path) -> None:
    write_split(root, "train", [], [])
    with pytest.raises(ValueError, match=r"instances_train2017\.json: holds no images to train on"):
        ready(small(root))


def write_turned(root: Path, width: int, height: int) -> np.ndarray:
    """Writes a picture of 30 x 20 stored pixels that EXIF turns upright, annotated with the given size; returns it upright."""
    stored = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    write_split(root, "val", [{"id": 1, "file_name": "b.png", "width": width, "height": height}], [box(1, [0, 0, 10, 20])])
    Image.fromarray(stored).save(root / "val2017" / "b.png", exif=exif)
    return np.rot90(stored, -1)


def test_picture_is_turned_where_the_annotations_have_the_turned_size(root: Path) -> None:
    upright = write_turned(root, width=20, height=30)
    sample = ready(small(root, size=(30, 20)), "validate").val_set[0]
    assert sample.size == (30, 20)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), upright)
    assert sample.boxes.tolist() == [[0, 0, 10, 20]]


def test_picture_is_left_as_stored_where_the_annotations_have_that_size(root: Path) -> None:
    upright = write_turned(root, width=30, height=20)
    sample = ready(small(root, size=(20, 30)), "validate").val_set[0]
    assert sample.size == (20, 30)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.rot90(upright, 1))


def test_picture_of_another_size_is_named(root: Path) -> None:
    write_turned(root, width=25, height=30)
    with pytest.raises(ValueError, match=r"b\.png: is 30 pixels high and 20 wide, but 30 and 25 in .*instances_val2017\.json"):
        ready(small(root), "validate").val_set[0]


def test_unreadable_picture_is_named(root: Path) -> None:
    (root / "val2017" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        ready(small(root), "validate").val_set[0]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"size": (0, 320)}, {"size": (320, -1)}])
@pytest.mark.parametrize("kind", [Coco, Voc, Shapes])
def test_arguments_out_of_range_are_refused(kind: type[BoxData], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1, workers at least 0"):
        kind(**options)


@pytest.mark.parametrize("split", ["trainval", "2007", "2007/a/b", ""])
def test_split_without_a_year_is_refused(split: str) -> None:
    with pytest.raises(ValueError, match="accepted: year/split"):
        Voc(train_splits=[split])
    with pytest.raises(ValueError, match="accepted: year/split"):
        Voc(val_splits=["2007/test", split])


def test_missing_voc_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="root must be a VOCdevkit folder that holds VOC2007"):
        ready(Voc(str(tmp_path)))


def first_images(root: Path, augmentation: Augmentation, workers: int) -> list[torch.Tensor]:
    L.seed_everything(7, verbose=False)
    data = ready(small(root, batch_size=1, num_workers=workers, augmentation=augmentation))
    return [batch.images for batch in data.train_dataloader()]


@pytest.mark.parametrize("augmentation", [LightAugmentation(), SSDAugmentation()], ids=["light", "ssd"])
def test_workers_draw_different_augmentations_and_the_seed_repeats_them(root: Path, augmentation: Augmentation) -> None:
    write_split(root, "train", [{"id": n, "file_name": "a.png"} for n in range(4)], [box(n, [5, 5, 30, 20]) for n in range(4)])
    first, second = (first_images(root, augmentation, workers=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])  # the first of either worker


def test_seed_repeats_augmentations_without_workers(root: Path) -> None:
    first, second = (first_images(root, SSDAugmentation(), workers=0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_epochs_draw_different_augmentations(root: Path) -> None:
    write_split(root, "train", [{"id": 1, "file_name": "a.png"}], [box(1, [5, 5, 30, 20])])
    for workers in (0, 1):
        loader = ready(small(root, batch_size=1, num_workers=workers, augmentation=SSDAugmentation())).train_dataloader()
        (first,), (second,) = list(loader), list(loader)
        assert not torch.equal(first.images, second.images)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path]]:
    calls: list[tuple[Any, Path]] = []
    for module in ("tasks.detect.data.sets", "tasks.voc"):
        monkeypatch.setattr(f"{module}.fetch", lambda archives, root: calls.append((archives, root)))
    return calls


def test_coco_is_downloaded_only_when_asked(root: Path, fetched: list[tuple[Any, Path]]) -> None:
    small(root).prepare_data()
    assert fetched == []
    small(root, download=True).prepare_data()
    assert fetched == [(COCO_ARCHIVES, root)]


def test_class_names_of_coco_wait_for_the_download(root: Path, fetched: list[tuple[Any, Path]]) -> None:
    assert small(root, download=True).class_names == ("cat", "dog")
    assert len(fetched) == 1


def test_voc_is_downloaded_beside_its_folder(tmp_path: Path, fetched: list[tuple[Any, Path]]) -> None:
    Voc(str(tmp_path / "VOCdevkit")).prepare_data()
    assert fetched == []
    Voc(str(tmp_path / "VOCdevkit"), download=True).prepare_data()
    assert fetched == [(VOC_ARCHIVES, tmp_path)]
    with pytest.raises(ValueError, match="accepted: a folder named VOCdevkit"):
        Voc(str(tmp_path / "voc"), download=True).prepare_data()


def cached_split(root: Path) -> None:
    """A training split of two smooth photos of 400 x 600, larger than what is kept of them for an input of 64 pixels."""
    rng = np.random.default_rng(0)
    corners = [[20, 30, 200, 150], [300, 100, 250, 280], [100, 200, 90, 120]]
    boxes = [box(number, corner) for number in (1, 2) for corner in corners]
    for split in ("train", "val"):
        write_split(root, split, [{"id": n, "file_name": f"{n}.png", "width": 600, "height": 400} for n in (1, 2)], boxes)
        for number in (1, 2):
            coarse = Image.fromarray(rng.integers(0, 256, size=(5, 7, 3), dtype=np.uint8))
            coarse.resize((600, 400), Image.Resampling.BICUBIC).save(root / f"{split}2017" / f"{number}.png")


@pytest.mark.parametrize("recipe", [ResizeOnly(), LightAugmentation(), SSDAugmentation()])
def test_cache_changes_pixels_a_little_and_nothing_else(recipe: Augmentation, tmp_path: Path) -> None:
    cached_split(tmp_path)
    options: dict[str, Any] = {"size": (64, 64), "augmentation": recipe, "batch_size": 2}
    samples = []
    for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):
        data = ready(small(tmp_path, cache=cache, **options))
        found = []
        for epoch in range(6):
            for position in range(2):
                torch.manual_seed(0)
                found.append(data.train_dataloader().dataset[epoch, position])
        samples.append(found)
        assert data.val_set.cache is None  # validation reads the originals
    for plain, written, read in zip(*samples, strict=True):
        assert torch.equal(written.image, read.image)
        assert np.abs(plain.image.numpy().astype(int) - written.image.numpy()).mean() < 6
        for cached in (written, read):
            assert torch.allclose(plain.boxes, cached.boxes, atol=1e-3)
            assert torch.equal(plain.labels, cached.labels)
            assert (plain.size, plain.position) == (cached.size, cached.position)
    assert sum(file.is_file() for file in (tmp_path / "cache").rglob("*")) == 2
