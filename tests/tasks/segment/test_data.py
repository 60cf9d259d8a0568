"""What all segmentation data shares: crops, whole images, workers, and checks before training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from tasks.pictures import write_mask
from tasks.segment.data import Batch, Folders, MaskData
from tasks.segment.transforms import DeepLabAugmentation, Unchanged

NAMES = ("background", "cat", "dog")
SHAPES = [(20, 30), (25, 25), (40, 20), (20, 30)]


def write_pair(folder: Path, name: str, shape: tuple[int, int], values: Sequence[int] = (0, 1, 2, 255)) -> None:
    """Writes an image whose red is ten times its mask."""
    mask = np.resize(np.array(values, dtype=np.uint8).repeat(5), shape)
    image = np.stack([10 * np.where(mask == 255, 20, mask), mask * 0, mask * 0], axis=-1).astype(np.uint8)
    write_mask(mask, folder / "masks" / f"{name}.png")
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "images" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of the sizes `SHAPES` in each split."""
    for split in ("train", "val"):
        for number, shape in enumerate(SHAPES):
            write_pair(tmp_path / split, str(number), shape)
    return tmp_path


def small(root: Path, **options: Any) -> Folders:
    paths = {f"{split}_{kind}": str(root / split / kind) for split in ("train", "val") for kind in ("images", "masks")}
    return Folders(**({"class_names": NAMES, "size": (32, 48), "batch_size": 2, "num_workers": 0} | paths | options))


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


def test_training_gives_crops_and_evaluation_whole_images(root: Path) -> None:
    data = ready(small(root))
    for batch in data.train_dataloader():
        check_batch(batch, [(32, 48)] * 2, 3)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        first, second = loader
        check_batch(first, SHAPES[:2], 3)
        check_batch(second, SHAPES[2:], 3)
        assert first.indices.tolist() + second.indices.tolist() == [0, 1, 2, 3]
    assert data.class_names == NAMES


def test_evaluation_changes_no_pixel(root: Path) -> None:
    sample = ready(small(root, size=(8, 8)), "validate").val_set[1]
    mask = np.resize(np.array([0, 1, 2, 255]).repeat(5), SHAPES[1])
    assert sample.position == 1
    assert np.array_equal(sample.mask.numpy(), mask)
    assert np.array_equal(sample.image[0].numpy(), 10 * np.where(mask == 255, 20, mask))


def test_crop_size_is_the_size_unless_given(root: Path) -> None:
    assert small(root).crop_size == (32, 48)
    data = ready(small(root, crop_size=(16, 24)))
    assert (data.size, data.crop_size) == ((32, 48), (16, 24))
    check_batch(next(iter(data.train_dataloader())), [(16, 24)] * 2, 3)


def test_crops_show_image_and_mask_of_the_same_pixels(root: Path) -> None:
    data = ready(small(root, augmentation=DeepLabAugmentation([1.0], fill=(9, 9, 9))))
    for batch in data.train_dataloader():
        for image, mask in zip(batch.images, batch.masks, strict=True):
            outside = image[1] == 9
            assert (mask[outside] == 255).all()
            assert torch.equal(image[0][~outside], torch.where(mask == 255, 20, mask)[~outside] * 10)


def test_training_leaves_out_the_smaller_last_batch_only_where_there_is_a_full_one(root: Path) -> None:
    counts = {size: [len(b.images) for b in ready(small(root, batch_size=size)).train_dataloader()] for size in (1, 3, 4, 5)}
    assert counts == {1: [1, 1, 1, 1], 3: [3], 4: [4], 5: [4]}
    assert [len(b.images) for b in ready(small(root, batch_size=3)).val_dataloader()] == [3, 1]


def test_training_is_shuffled_and_evaluation_is_not(root: Path) -> None:
    data = ready(small(root, batch_size=1))
    loader = data.train_dataloader()
    orders = {tuple(int(batch.indices) for batch in loader) for _ in range(8)}
    assert len(orders) > 1
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert [int(batch.indices) for batch in data.val_dataloader()] == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_keep_their_workers(root: Path, workers: int) -> None:
    data = ready(small(root, num_workers=workers))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert (loader.num_workers, loader.persistent_workers, loader.batch_size) == (workers, workers > 0, 2)


def test_validation_needs_no_training_data(root: Path) -> None:
    for path in (root / "train" / "images").iterdir():
        path.unlink()
    assert len(ready(small(root), "validate").val_set) == 4
    with pytest.raises(ValueError, match=r"train/images: holds no images"):
        ready(small(root))


def test_masks_of_0_and_255_stop_before_training(root: Path) -> None:
    for number, shape in enumerate(SHAPES):
        write_pair(root / "train", str(number), shape, (0, 255))
    ready(small(root), "validate")
    with pytest.raises(ValueError, match=r"train/images: its masks have no values but 0 and 255"):
        ready(small(root))


def test_wrong_values_stop_before_training(root: Path) -> None:
    write_pair(root / "val", "2", SHAPES[2], (0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"val/masks/2\.png: has the values 0, 1, 2, 3; accepted: 0 to 2"):
        ready(small(root), "validate")


def test_mask_of_another_size_stops_before_training(root: Path) -> None:
    write_mask(np.zeros((20, 31), dtype=np.uint8), root / "val" / "masks" / "0.png")
    with pytest.raises(ValueError, match=r"images/0\.png: is 20 pixels high and 30 wide, but 20 and 31 in .*masks/0\.png"):
        ready(small(root))


def test_image_without_a_mask_stops_before_training(root: Path) -> None:
    (root / "train" / "masks" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"images/3\.png: has no mask of the same name in .*train/masks \(1 of 4 images"):
        ready(small(root))


@pytest.mark.parametrize("crop_size", [(0, 10), (10, -1), (0, 0)])
def test_crop_size_out_of_range_is_refused(crop_size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"crop_size \(.*\) is not possible; accepted: heights and widths of at least 1"):
        Folders(NAMES, crop_size=crop_size)


def first_images(root: Path, workers: int) -> list[torch.Tensor]:
    L.seed_everything(7, verbose=False)
    data = ready(small(root, batch_size=1, num_workers=workers, augmentation=DeepLabAugmentation(colour=0.5)))
    return [torch.cat([*batch.images[0], batch.masks[0]]) for batch in data.train_dataloader()]


@pytest.fixture
def same(tmp_path: Path) -> Path:
    """Four equal images in each split."""
    for split in ("train", "val"):
        for number in range(4):
            write_pair(tmp_path / split, str(number), (60, 70))
    return tmp_path


def test_workers_draw_different_augmentations_and_the_seed_repeats_them(same: Path) -> None:
    first, second = (first_images(same, workers=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])  # the first of either worker


def test_seed_repeats_augmentations_without_workers(same: Path) -> None:
    first, second = (first_images(same, workers=0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_draw_different_augmentations(same: Path, workers: int) -> None:
    loader = ready(small(same, batch_size=4, num_workers=workers)).train_dataloader()
    (first,), (second,) = list(loader), list(loader)
    assert not all(torch.equal(a, b) for a, b in zip(first.images, second.images, strict=True))


def test_unchanged_may_be_trained_on(root: Path) -> None:
    data = ready(small(root, augmentation=Unchanged(), batch_size=4))
    (batch,) = data.train_dataloader()
    check_batch(batch, [SHAPES[index] for index in batch.indices.tolist()], 3)
