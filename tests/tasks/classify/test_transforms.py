"""Augmentations: sizes, areas, ratios, and the middle."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.augment import cut_window
from tasks.classify.model import central_window
from tasks.classify.transforms import Augmentation, CentreOnly, InceptionAugmentation
from tasks.classify.window import RandomWindow

RECIPES = [InceptionAugmentation(), InceptionAugmentation(0.9, ratio=1.0, colour=0.0), CentreOnly(0.875), CentreOnly(1.0)]


def run(recipe: Augmentation, image: NDArray[np.uint8], seed: int = 0, size: tuple[int, int] = (24, 36)) -> NDArray[np.uint8]:
    pipeline = recipe.compose(size)
    pipeline.set_random_seed(seed)
    out: NDArray[np.uint8] = pipeline(image=image)["image"]
    return out


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Red tells the column and green the row, in 256ths of the image."""
    x, y = np.meshgrid(np.arange(width) * 256 // width, np.arange(height) * 256 // height)
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("recipe", RECIPES, ids=["inception", "almost whole", "centre", "whole centre"])
@pytest.mark.parametrize("shape", [(20, 30), (200, 90), (1, 1), (300, 5)])
def test_result_has_the_size(recipe: Augmentation, shape: tuple[int, int]) -> None:
    for seed in range(5):
        out = run(recipe, ramp(*shape), seed)
        assert (out.shape, out.dtype) == ((24, 36, 3), np.uint8)


@pytest.mark.parametrize("shape", [(100, 150), (150, 100), (90, 90)])
def test_windows_have_the_areas_and_ratios_asked_for(shape: tuple[int, int]) -> None:
    window, draw = RandomWindow((24, 24), 0.08, 4 / 3), np.random.default_rng(0)
    drawn = np.array([window(draw, shape, np.zeros((0, 4))) for _ in range(500)])
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()
    spans = drawn[:, 2:] - drawn[:, :2]
    areas, ratios = spans.prod(axis=1), spans[:, 0] * shape[1] / (spans[:, 1] * shape[0])
    assert areas.min() == pytest.approx(0.08, abs=0.02)
    assert areas.max() > 0.8
    assert ratios.min() == pytest.approx(3 / 4, abs=0.02)
    assert ratios.max() == pytest.approx(4 / 3, abs=0.02)
    assert np.ptp(drawn[:, 0]) > 0.5


def test_windows_follow_the_ratio_of_the_input() -> None:
    window = RandomWindow((10, 40), 0.05, 1.0)
    draw = np.random.default_rng(0)
    drawn = [window(draw, (100, 100), np.zeros((0, 4))) for _ in range(50)]
    assert all((x2 - x1) / (y2 - y1) == pytest.approx(4) for x1, y1, x2, y2 in drawn)


def test_middle_is_taken_where_no_window_fits() -> None:
    window = RandomWindow((24, 24), 1.0, 1.0)
    assert window(np.random.default_rng(0), (100, 200), np.zeros((0, 4))) == (0.25, 0.0, 0.75, 1.0)


def test_flip_mirrors_and_colour_stays_where_it_should() -> None:
    plain, mirrored = (run(InceptionAugmentation(1.0, 1.0, flip, colour=0.0), ramp(24, 36)) for flip in (0.0, 1.0))
    assert np.array_equal(mirrored, plain[:, ::-1])
    assert np.array_equal(plain, ramp(24, 36))


def test_seed_decides_and_another_draws_another() -> None:
    image = ramp(80, 80)
    first, again, other = (run(InceptionAugmentation(), image, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("crop", [0.5, 0.875, 1.0])
def test_centre_is_that_of_prediction(crop: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(90, 130, 3), dtype=np.uint8)
    expected = cut_window(image, central_window((90, 130), (24, 36), crop), (24, 36))
    assert np.array_equal(run(CentreOnly(crop), image), expected)


@pytest.mark.parametrize("options", [{"min_scale": 0.0}, {"min_scale": 1.1}, {"ratio": 0.9}])
def test_numbers_that_are_not_possible_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"min_scale .* and ratio .* are not possible; accepted: over 0 to 1, and 1 or more"):
        InceptionAugmentation(**options)
