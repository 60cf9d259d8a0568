"""Windows cut out of images, and colours."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.augment import FILL, Window, check_recipe, cut_window

WHOLE = (0.0, 0.0, 1.0, 1.0)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("shape", [(30, 40, 3), (30, 40)])
def test_whole_window_at_its_size_is_the_image(shape: tuple[int, ...], sampling: str) -> None:
    image = noise(*shape)
    assert np.array_equal(cut_window(image, WHOLE, (30, 40), sampling=sampling), image)


def test_whole_window_is_the_resize_of_prediction() -> None:
    from tasks.images import resize_image

    image = noise(30, 40, 3)
    difference = cut_window(image, WHOLE, (50, 64)).astype(int) - resize_image(image, (50, 64))
    assert np.abs(difference).max() <= 1  # two libraries round differently


def test_window_inside_is_that_part() -> None:
    image = noise(30, 40, 3)
    assert np.array_equal(cut_window(image, (0.25, 0.5, 0.75, 0.9), (12, 20)), image[15:27, 10:30])


def test_beyond_the_image_lies_the_fill() -> None:
    image = np.full((10, 20, 3), 7, dtype=np.uint8)
    out = cut_window(image, (-0.5, -1.0, 1.5, 2.0), (30, 40))
    assert (out[10:20, 10:30] == 7).all()
    out[10:20, 10:30] = FILL
    assert (out == FILL).all()


def test_fill_of_a_mask_is_one_value() -> None:
    out = cut_window(np.ones((10, 20), dtype=np.uint8), (0, 0, 2, 2), (20, 40), fill=255, sampling="nearest")
    assert (out[:10, :20] == 1).all()
    assert (out[10:] == 255).all()
    assert (out[:, 20:] == 255).all()


def random_window(rng: np.random.Generator) -> Window:
    """A window that shows some of the image and may reach beyond it."""
    x, y = rng.uniform(-1, 0.9, size=2)
    return x, y, rng.uniform(max(x, 0) + 0.1, 3), rng.uniform(max(y, 0) + 0.1, 3)


def test_nearest_sampling_invents_no_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 80, size=2)
        mask = rng.choice(np.array([0, 3, 17], dtype=np.uint8), size=(height, width))
        size = tuple(int(side) for side in rng.integers(1, 80, size=2))
        out = cut_window(mask, random_window(rng), size, 255, "nearest")
        assert out.shape == size
        assert out.dtype == np.uint8
        assert set(np.unique(out)) <= {0, 3, 17, 255}


def test_image_and_mask_lie_on_the_same_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(40, 120, size=2)
        window = random_window(rng)
        image, mask = np.full((height, width, 3), 200, dtype=np.uint8), np.zeros((height, width), dtype=np.uint8)
        picture, drawn = cut_window(image, window, (33, 47), (0, 0, 0)), cut_window(mask, window, (33, 47), 255, "nearest")
        assert np.array_equal(picture[..., 0] == 200, drawn == 0)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_reduced_pictures_average_and_masks_do_not(factor: int) -> None:
    stripes = np.zeros((24, 24), dtype=np.uint8)
    stripes[:, ::2] = 200
    size = (24 // factor, 24 // factor)
    assert set(np.unique(cut_window(stripes, WHOLE, size, sampling="nearest"))) <= {0, 200}
    if factor % 2 == 0:
        assert (cut_window(stripes, WHOLE, size) == 100).all()


def test_recipe_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="augmentation None is not possible; accepted: a class of the task's transforms"):
        check_recipe(None)


def test_cropping_mirroring_and_colours_are_independent() -> None:
    from tasks.detect.transforms import LightAugmentation

    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[:, 40:] = 200
    boxes, labels = np.array([[30, 20, 50, 40]], dtype=np.float32), np.array([1])
    pipeline, seen = LightAugmentation(crop=0.5, colour=0.5).compose((60, 80)), []
    for seed in range(800):
        pipeline.set_random_seed(seed)
        out = pipeline(image=image, bboxes=boxes, labels=labels)
        mirrored = out["image"][:, 0].mean() > 100
        left, _, right, _ = out["bboxes"][0]
        seen.append((mirrored, right - left > 20.01, bool((out["image"][:, [0, -1]] % 200).any())))
    table = np.array(seen)
    for one, two in ((0, 1), (0, 2), (1, 2)):
        both = (table[:, one] & table[:, two]).mean()
        assert both == pytest.approx(table[:, one].mean() * table[:, two].mean(), abs=0.04)
    assert table.mean(axis=0) == pytest.approx([0.5, 0.5, 0.8], abs=0.06)


@pytest.mark.parametrize("size", [(33, 47), (120, 90), (20, 200)])
def test_triangle_is_the_resize_of_prediction_where_it_reduces(size: tuple[int, int]) -> None:
    from tasks.images import resize_image

    image = noise(240, 300, 3)
    assert np.abs(cut_window(image, WHOLE, size, sampling="triangle").astype(int) - resize_image(image, size)).max() <= 1
    part = cut_window(image, (0.1, 0.25, 0.9, 0.75), (60, 80), sampling="triangle").astype(int)
    assert np.abs(part - resize_image(image[60:180, 30:270], (60, 80))).max() <= 1
