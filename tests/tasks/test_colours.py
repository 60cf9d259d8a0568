"""Changes of colours against those of albumentations."""

import numpy as np
import pytest
from albumentations.augmentations.pixel import functional

from tasks.colours import CHANGES, Colours

THEIRS = (
    functional.adjust_brightness_torchvision,
    functional.adjust_contrast_torchvision,
    functional.adjust_saturation_torchvision,
    functional.adjust_hue_torchvision,
)
IMAGE = np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("number", "amount"), [(0, 0.6), (0, 1.3), (1, 0.5), (1, 1.5), (2, 0.5), (2, 1.5), (3, -0.05), (3, 0.04), (3, 0.0)]
)
def test_each_change_is_that_of_albumentations(number: int, amount: float) -> None:
    theirs = THEIRS[number](IMAGE, amount).astype(int)
    difference = np.abs(CHANGES[number](IMAGE, amount) - theirs)
    assert difference.max() <= (1 if number < 3 else 6)  # a hue of 0 to 179 is up to 4 of 255


def test_amounts_fill_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []

    def note(number: int) -> object:
        return lambda image, amount: (seen.append((number, amount)), image)[1]

    monkeypatch.setattr("tasks.colours.CHANGES", [note(number) for number in range(4)])
    draw = np.random.default_rng(0)
    for _ in range(2000):
        Colours(0.125, 0.5)(IMAGE, draw)
    assert len(seen) / 4 / 2000 == pytest.approx(0.8, abs=0.03)
    for number, (low, high) in enumerate([(0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)]):
        amounts = [amount for which, amount in seen if which == number]
        assert min(amounts) == pytest.approx(low, abs=0.01)
        assert max(amounts) == pytest.approx(high, abs=0.01)
        assert low <= min(amounts) <= max(amounts) <= high
    assert {number for number, _ in seen[::4]} == {0, 1, 2, 3}  # in any order


def test_no_colours_at_0() -> None:
    assert Colours(0.5, 0.0)(IMAGE, np.random.default_rng(0)) is IMAGE
