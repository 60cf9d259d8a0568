"""Augmentations move masks with their pixels."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.augment import FILL
from tasks.segment.transforms import DEEPLAB_SCALES, Augmentation, DeepLabAugmentation, Unchanged

SIZE = (48, 64)
VOID = 255

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def run(recipe: Augmentation, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int = 0, size: tuple[int, int] = SIZE) -> Pair:
    pipeline = recipe.compose(size)
    pipeline.set_random_seed(seed)
    out = pipeline(image=image, mask=mask)
    return out["image"], out["mask"]


def plain(scales: Sequence[float], flip: float = 0.0) -> DeepLabAugmentation:
    return DeepLabAugmentation(scales, flip, fill=(1, 2, 3))


def coded(height: int, width: int, seed: int = 0, side: int = 16) -> Pair:
    """A mask of square blocks of 0..4, and an image whose red is 50 times the mask."""
    blocks = np.random.default_rng(seed).integers(0, 5, size=(-(-height // side), -(-width // side)), dtype=np.uint8)
    mask = blocks.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    image = np.stack([50 * mask, np.full_like(mask, 90), np.full_like(mask, 200)], axis=-1)
    return image, mask


@pytest.mark.parametrize("size", [(48, 64), (513, 513), (1, 1), (7, 200)])
@pytest.mark.parametrize("shape", [(100, 80), (1, 1), (1, 300), (300, 2), (48, 64)])
def test_crops_have_the_wanted_size_and_known_values(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image, mask = coded(*shape)
    for seed in range(6):
        pixels, values = run(DeepLabAugmentation(), image, mask, seed, size)
        assert (pixels.shape, pixels.dtype) == ((*size, 3), np.uint8)
        assert (values.shape, values.dtype) == (size, np.uint8)
        assert set(np.unique(values)) <= {*np.unique(mask), VOID}


@pytest.mark.parametrize("scale", DEEPLAB_SCALES)
def test_image_smaller_than_the_crop_is_padded_right_and_below(scale: float) -> None:
    height, width = 20, 24
    image, mask = np.full((height, width, 3), 200, dtype=np.uint8), np.full((height, width), 4, dtype=np.uint8)
    pixels, values = run(plain([scale]), image, mask)
    inside = np.zeros(SIZE, dtype=bool)
    inside[: round(scale * height), : round(scale * width)] = True
    assert np.array_equal(values, np.where(inside, 4, VOID))
    assert np.array_equal(pixels, np.where(inside[..., None], 200, [1, 2, 3]))


def test_image_narrower_than_the_crop_is_padded_on_the_right_alone() -> None:
    image, mask = coded(200, 32)
    pixels, values = run(plain([1.0]), image, mask)
    assert (values[:, :32] != VOID).all()
    assert (values[:, 32:] == VOID).all()
    assert (pixels[:, 32:] == [1, 2, 3]).all()
    assert (pixels[:, :32, 2] == 200).all()


def test_padding_is_imagenets_mean_by_default() -> None:
    image, mask = coded(10, 10)
    pixels, _ = run(DeepLabAugmentation([1.0], flip=0.0), image, mask)
    assert pixels[-1, -1].tolist() == list(FILL)


def test_crops_at_scale_1_are_parts_of_the_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, size=(60, 90, 3), dtype=np.uint8)
    place = np.arange(60 * 90).reshape(60, 90)
    corners = set()
    for seed in range(25):
        pixels, values = run(plain([1.0]), image, (place % 251).astype(np.uint8), seed)
        rows, columns = np.nonzero((image == pixels[0, 0]).all(axis=-1))
        top, left = int(rows[0]), int(columns[0])
        assert np.array_equal(pixels, image[top : top + 48, left : left + 64])
        assert np.array_equal(values, (place % 251)[top : top + 48, left : left + 64])
        corners.add((top, left))
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops)) == pytest.approx((0, 12), abs=2)
    assert (min(lefts), max(lefts)) == pytest.approx((0, 26), abs=4)


@pytest.mark.parametrize("scale", [*DEEPLAB_SCALES, 0.1, 0.3, 3.3])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_mask_stays_on_its_pixels(scale: float, flip: float) -> None:
    # Where blocks meet, the image mixes two of them over a pixel of the source or of the crop, whichever is larger.
    reach = np.ones((2 * math.ceil(max(scale, 1)) + 1,) * 2, dtype=np.uint8)
    for seed in range(6):
        image, mask = coded(370, 410, seed, side=40)
        pixels, values = run(plain([scale], flip), image, mask, seed)
        uniform = cv2.erode(values, reach) == cv2.dilate(values, reach)
        painted = uniform & (values != VOID)
        assert np.array_equal(pixels[..., 0][painted], 50 * values[painted])
        assert (pixels[values == VOID] == [1, 2, 3]).all()
        assert (pixels[values != VOID][:, 2] == 200).all()
        assert painted.sum() > 0.15 * (values != VOID).sum()


def test_scales_are_drawn_from_the_list_alone_and_all_of_them() -> None:
    image, mask = np.full((20, 20, 3), 200, dtype=np.uint8), np.ones((20, 20), dtype=np.uint8)
    recipe, sides = DeepLabAugmentation(flip=0.0), set()
    for seed in range(80):
        _, values = run(recipe, image, mask, seed)
        sides.add(((values == 1).any(axis=1).sum(), (values == 1).any(axis=0).sum()))
    assert sides == {(side, side) for side in (10, 15, 20, 25, 30, 35, 40)}


def test_flip_mirrors_image_and_mask_together() -> None:
    image, mask = coded(*SIZE)
    pixels, values = run(plain([1.0], flip=1.0), image, mask)
    assert np.array_equal(pixels, image[:, ::-1])
    assert np.array_equal(values, mask[:, ::-1])


def test_flip_is_drawn_with_its_probability() -> None:
    image, mask = coded(*SIZE)
    mirrored = [np.array_equal(run(plain([1.0], flip=0.5), image, mask, seed)[1], mask[:, ::-1]) for seed in range(100)]
    assert 30 < sum(mirrored) < 70


def test_colours_change_the_image_alone_and_not_at_0() -> None:
    image, mask = coded(*SIZE)
    unchanged, _ = run(DeepLabAugmentation([1.0], flip=0.0, colour=0.0), image, mask)
    assert np.array_equal(unchanged, image)
    results = [run(DeepLabAugmentation([1.0], flip=0.0, colour=0.5), image, mask, seed) for seed in range(8)]
    assert sum(not np.array_equal(pixels, image) for pixels, _ in results) >= 4
    assert all(np.array_equal(values, mask) for _, values in results)


@pytest.mark.parametrize("recipe", [DeepLabAugmentation(), DeepLabAugmentation(colour=0.5)], ids=["plain", "colour"])
def test_seed_decides_everything(recipe: Augmentation) -> None:
    image, mask = coded(100, 120)
    first, second, other = (run(recipe, image, mask, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_input_is_not_changed() -> None:
    image, mask = coded(100, 120)
    before = image.copy(), mask.copy()
    run(DeepLabAugmentation([1.5], flip=1.0, colour=0.5), image, mask)
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


@pytest.mark.parametrize("shape", [(10, 10), (500, 300)])
def test_unchanged_leaves_size_and_pixels(shape: tuple[int, int]) -> None:
    image, mask = coded(*shape)
    pixels, values = run(Unchanged(), image, mask)
    assert np.array_equal(pixels, image)
    assert np.array_equal(values, mask)


@pytest.mark.parametrize("scales", [(), (0.5, 0.0), (-1.0,)])
def test_impossible_scales_are_refused(scales: Sequence[float]) -> None:
    with pytest.raises(ValueError, match=r"scales \[.*\] are not possible; accepted: one or more positive numbers"):
        DeepLabAugmentation(scales)
