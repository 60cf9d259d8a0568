"""Masks in image files: their values, sizes and folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.labels import VOC_MASK_CLASSES
from tasks.pictures import write_mask
from tasks.segment.annotations import CHECKED_MASKS, MaskFiles, from_folders, from_voc, read_mask

NAMES = ("background", "cat", "dog")
INDICES = np.array([[0, 1, 2, 255], [2, 2, 1, 0], [0, 0, 0, 1]], dtype=np.uint8)


def write_image(path: Path, height: int = 3, width: int = 4, **options: Any) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def one_pair(folder: Path, mask: np.ndarray = INDICES, names: Sequence[str] = NAMES) -> MaskFiles:
    """An image of 3 x 4 pixels with a mask in VOC's colours."""
    write_image(folder / "a.png")
    write_mask(mask, folder / "mask.png")
    return MaskFiles([str(folder / "a.png")], [str(folder / "mask.png")], names, folder)


@pytest.mark.parametrize("colours", ["voc", "another"])
def test_palette_masks_are_read_as_indices(tmp_path: Path, colours: str) -> None:
    write_mask(INDICES, tmp_path / "a.png")
    if colours == "another":
        picture = Image.fromarray(INDICES)
        picture.putpalette(np.random.default_rng(0).integers(0, 256, size=768).tolist())
        picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
    mask = read_mask(tmp_path / "a.png")
    assert np.array_equal(mask, INDICES)
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_grey_masks_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(INDICES).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_mask(tmp_path / f"a.{suffix}"), INDICES)


def test_palette_of_two_and_four_bits_and_one_bit_masks(tmp_path: Path) -> None:
    few = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    for bits in (1, 2, 4):
        picture = Image.fromarray(few)
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture.save(tmp_path / f"{bits}.png", bits=bits)
        assert np.array_equal(read_mask(tmp_path / f"{bits}.png"), few)
    Image.fromarray(few.astype(bool)).save(tmp_path / "binary.png")
    assert np.array_equal(read_mask(tmp_path / "binary.png"), few)
    assert read_mask(tmp_path / "binary.png").dtype == np.uint8


def test_transparency_of_a_palette_changes_no_index(tmp_path: Path) -> None:
    picture = Image.fromarray(INDICES)
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "a.png", transparency=1)
    assert np.array_equal(read_mask(tmp_path / "a.png"), INDICES)


def test_sixteen_bits_are_read_where_the_values_fit(tmp_path: Path) -> None:
    Image.fromarray(INDICES.astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), INDICES)


def test_values_over_255_are_refused(tmp_path: Path) -> None:
    Image.fromarray(INDICES.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: has values from 0 to 65280; accepted: whole numbers from 0 to 255$"):
        read_mask(tmp_path / "deep.png")


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -1.0])
def test_values_that_are_no_indices_are_refused(value: float, tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, value]], dtype=np.float32)).save(tmp_path / "mask.tif")
    with pytest.raises(ValueError, match=r"mask\.tif: has values from .*; accepted: whole numbers from 0 to 255$"):
        read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_colours_are_refused_with_the_reason(tmp_path: Path, mode: str) -> None:
    write_mask(np.array([[0, 1]], dtype=np.uint8), tmp_path / "indices.png")
    with Image.open(tmp_path / "indices.png") as picture:
        picture.convert(mode).save(tmp_path / "lost.png")
    with pytest.raises(ValueError, match=r"lost\.png: is a picture of colours \(\w+, such as \[") as refused:
        read_mask(tmp_path / "lost.png")
    assert "accepted: class indices, in a grey or palette image (converting a palette image to RGB loses them)" in str(refused.value)
    if mode == "RGB":
        assert "(RGB, such as [0, 0, 0], [128, 0, 0])" in str(refused.value)


def test_missing_empty_truncated_and_other_files_are_named(tmp_path: Path) -> None:
    write_mask(np.random.default_rng(0).integers(0, 3, size=(40, 40), dtype=np.uint8), tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    assert read_mask(tmp_path / "whole.png").shape == (40, 40)
    for content in (b"", b"no mask", whole[:20], whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.png: cannot be read as a mask: \S"):
            read_mask(tmp_path / "broken.png")
    with pytest.raises(ValueError, match=r"absent\.png: cannot be read as a mask: no such file$"):
        read_mask(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="cannot be read as a mask"):
        read_mask(tmp_path)


def test_image_and_mask_are_read_together(tmp_path: Path) -> None:
    pair = one_pair(tmp_path)
    image, mask = pair.read(0)
    assert np.array_equal(mask, INDICES)
    assert np.array_equal(image, write_image(tmp_path / "a.png"))
    assert (len(pair), pair.origin(0), pair.class_names) == (1, str(tmp_path / "mask.png"), NAMES)
    pair.check()


def test_values_beyond_the_classes_are_refused_with_all_values(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"mask\.png: has the values 0, 1, 2, 255; accepted: 0 to 1, one for each of the 2 classes, and 255"
    ):
        one_pair(tmp_path, names=NAMES[:2]).mask(0)


def test_many_wrong_values_are_cut_short(tmp_path: Path) -> None:
    many = np.arange(100, dtype=np.uint8).reshape(10, 10)
    with pytest.raises(ValueError, match=r"has the values 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, \.\.\.; accepted: 0 to 2"):
        one_pair(tmp_path, many).mask(0)


def test_all_values_up_to_254_may_be_classes(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(one_pair(tmp_path, every, [str(value) for value in range(255)]).mask(0), every)


@pytest.mark.parametrize("count", [256, 300])
def test_more_classes_than_a_mask_can_hold_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="255"):
        one_pair(tmp_path, names=[str(value) for value in range(count)])


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (6, 8)])
def test_mask_of_another_size_than_its_image_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    pair = one_pair(tmp_path, np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match=rf"a\.png: is 3 pixels high and 4 wide, but {shape[0]} and {shape[1]} in .*mask\.png$"):
        pair.read(0)


@pytest.fixture
def turned(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A picture of 20 x 30 stored pixels that EXIF turns upright, and its upright pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = write_image(tmp_path / "turned.png", 20, 30, exif=exif)
    return tmp_path / "turned.png", np.rot90(stored, -1)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)], ids=["turned", "stored"])
def test_image_is_turned_where_its_mask_is(turned: tuple[Path, np.ndarray], shape: tuple[int, int]) -> None:
    path, upright = turned
    write_mask(np.ones(shape, dtype=np.uint8), path.with_name("mask.png"))
    image, mask = MaskFiles([str(path)], [str(path.with_name("mask.png"))], NAMES, path.parent).read(0)
    assert image.shape[:2] == mask.shape == shape
    assert np.array_equal(image, upright if shape == (30, 20) else np.rot90(upright))


def test_turned_image_with_a_mask_of_neither_size_is_refused(turned: tuple[Path, np.ndarray]) -> None:
    path, _ = turned
    write_mask(np.ones((30, 21), dtype=np.uint8), path.with_name("mask.png"))
    with pytest.raises(ValueError, match=r"turned\.png: is 30 pixels high and 20 wide, but 30 and 21 in .*mask\.png"):
        MaskFiles([str(path)], [str(path.with_name("mask.png"))], NAMES, path.parent).read(0)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    pair = one_pair(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        pair.read(0)


def many_pairs(folder: Path, masks: Sequence[np.ndarray]) -> MaskFiles:
    write_image(folder / "a.png", 4, 4)
    paths = [folder / "masks" / f"{number:03d}.png" for number in range(len(masks))]
    for mask, path in zip(masks, paths, strict=True):
        write_mask(mask, path)
    return MaskFiles([str(folder / "a.png")] * len(masks), [str(path) for path in paths], NAMES, folder / "masks")


def flat(*values: int) -> np.ndarray:
    return np.resize(np.array(values, dtype=np.uint8), (4, 4))


def test_masks_of_0_and_255_are_refused_for_the_set(tmp_path: Path) -> None:
    binary = many_pairs(tmp_path, [flat(0, 255), flat(0), flat(255)])
    with pytest.raises(ValueError, match=r"masks: its masks have no values but 0 and 255, and 255 is void; .* the values 1 to 2$"):
        binary.check()


def test_one_object_among_masks_of_0_and_255_is_enough(tmp_path: Path) -> None:
    many_pairs(tmp_path, [flat(0, 255), flat(0, 255), flat(0, 2)]).check()


def test_masks_of_void_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="255"):
        many_pairs(tmp_path, [flat(255), flat(255)]).check()


def test_no_masks_are_not_refused(tmp_path: Path) -> None:
    many_pairs(tmp_path, []).check()


@pytest.mark.parametrize(("count", "looked_at"), [(1, 1), (5, 5), (CHECKED_MASKS, CHECKED_MASKS), (100, CHECKED_MASKS)])
def test_looked_at_masks_are_spread_from_the_first_to_the_last(tmp_path: Path, count: int, looked_at: int) -> None:
    pairs = many_pairs(tmp_path, [flat(0, 1)])
    pairs.files = np.repeat(pairs.files, count)
    pairs.masks = np.repeat(pairs.masks, count)
    seen: list[int] = []
    read = pairs.read
    pairs.read = lambda index: (seen.append(index), read(index))[1]  # type: ignore[method-assign]
    pairs.check()
    assert (len(seen), seen[0], seen[-1]) == (looked_at, 0, count - 1)
    assert np.diff(seen).max(initial=1) <= -(-count // looked_at)


def test_wrong_mask_and_wrong_size_show_in_the_check(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"002\.png: has the values 0, 7; accepted: 0 to 2"):
        many_pairs(tmp_path, [flat(0, 1), flat(0, 1), flat(0, 7)]).check()
    with pytest.raises(ValueError, match=r"a\.png: is 4 pixels high and 4 wide, but 3 and 4 in .*000\.png"):
        many_pairs(tmp_path, [INDICES]).check()


def write_devkit(root: Path, year: str, split: str, names: Sequence[str], masks: str = "SegmentationClass") -> None:
    lists = root / f"VOC{year}" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (root / f"VOC{year}" / masks).mkdir(exist_ok=True)


def test_voc_splits_are_joined_and_aug_has_masks_of_its_own(tmp_path: Path) -> None:
    write_devkit(tmp_path, "2012", "train_aug", ["b", "a"], "SegmentationClassAug")
    write_devkit(tmp_path, "2012", "val", ["c"])
    write_devkit(tmp_path, "2007", "val", ["000001", "", "000002"])
    found = from_voc(tmp_path, [("2012", "train_aug"), ("2012", "val"), ("2007", "val")], VOC_MASK_CLASSES)
    relative = [tuple(str(Path(path).relative_to(tmp_path)) for path in pair) for pair in zip(found.files, found.masks, strict=True)]
    assert relative == [
        ("VOC2012/JPEGImages/b.jpg", "VOC2012/SegmentationClassAug/b.png"),
        ("VOC2012/JPEGImages/a.jpg", "VOC2012/SegmentationClassAug/a.png"),
        ("VOC2012/JPEGImages/c.jpg", "VOC2012/SegmentationClass/c.png"),
        ("VOC2007/JPEGImages/000001.jpg", "VOC2007/SegmentationClass/000001.png"),
        ("VOC2007/JPEGImages/000002.jpg", "VOC2007/SegmentationClass/000002.png"),
    ]
    assert (found.class_names, found.source) == (VOC_MASK_CLASSES, tmp_path)


def test_missing_voc_list_and_mask_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"VOC2012/ImageSets/Segmentation/train\.txt: no such file; root must be a VOCdevkit"):
        from_voc(tmp_path, [("2012", "train")], VOC_MASK_CLASSES)
    write_devkit(tmp_path, "2012", "train", ["a"])
    write_devkit(tmp_path, "2012", "train_aug", ["a"])
    assert len(from_voc(str(tmp_path), [("2012", "train")], VOC_MASK_CLASSES)) == 1
    with pytest.raises(ValueError, match=r"VOC2012/SegmentationClassAug: no such folder, which holds the masks of train_aug"):
        from_voc(tmp_path, [("2012", "train"), ("2012", "train_aug")], VOC_MASK_CLASSES)


def test_missing_voc_mask_is_named(tmp_path: Path) -> None:
    write_devkit(tmp_path, "2012", "train", ["a"])
    with pytest.raises(ValueError, match=r"SegmentationClass/a\.png: cannot be read as a mask: no such file"):
        from_voc(tmp_path, [("2012", "train")], VOC_MASK_CLASSES).check()


def test_real_voc_masks(shared: Path) -> None:
    for split, count in (("train_aug", 1437), ("val", 223), ("train", 437)):
        found = from_voc(shared / "data" / "VOCdevkit", [("2012", split)], VOC_MASK_CLASSES)
        assert len(found) == count
        every = set()
        for index in range(0, count, 16):
            mask = found.mask(index)
            assert (mask != 255).any()
            every |= set(np.unique(mask).tolist())
        assert every <= {*range(21), 255}
        assert {0, 255} < every
        found.read(0)


def folders(root: Path, images: Sequence[str], masks: Sequence[str]) -> tuple[Path, Path]:
    for kind, names in (("images", images), ("masks", masks)):
        (root / kind).mkdir()
        for name in names:
            (root / kind / name).touch()
    return root / "images", root / "masks"


def test_folders_are_paired_by_name_without_ending(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ["b.JPG", "a.jpeg", "c.1.webp", "notes.txt"], ["c.1.png", "a.png", "b.tif", "spare.png", "readme.md"])
    found = from_folders(str(images), masks, NAMES)
    pairs = [(Path(f).name, Path(m).name) for f, m in zip(found.files, found.masks, strict=True)]
    assert pairs == [("a.jpeg", "a.png"), ("b.JPG", "b.tif"), ("c.1.webp", "c.1.png")]
    assert found.class_names == NAMES


def test_images_without_a_mask_are_named_and_counted(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["a.png"])
    with pytest.raises(ValueError, match=r"b\.jpg: has no mask of the same name in .*masks \(2 of 3 images have none\)"):
        from_folders(images, masks, NAMES)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ["a.jpg"], ["a.png"])
    with pytest.raises(ValueError, match=r"absent: no such folder"):
        from_folders(tmp_path / "absent", masks, NAMES)
    with pytest.raises(ValueError, match=r"a\.png: no such folder"):
        from_folders(images, masks / "a.png", NAMES)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images"):
        from_folders(*folders(tmp_path, [], []), NAMES)
