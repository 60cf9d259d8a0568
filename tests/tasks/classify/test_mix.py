"""Mixup and CutMix: images and labels are mixed by the same share."""

import pytest
import torch

from tasks.classify.mix import BatchMix

IMAGES = torch.stack([torch.full((3, 8, 10), value, dtype=torch.uint8) for value in (0, 255, 102)])
LABELS = torch.tensor([0, 2, 1])


def test_nothing_is_mixed_at_zero() -> None:
    images, shares = BatchMix(3)(IMAGES, LABELS)
    assert images is IMAGES
    assert shares.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)], ids=["mixup", "cutmix", "both"])
def test_labels_follow_the_pixels(alphas: tuple[float, float]) -> None:
    mix, kinds = BatchMix(3, *alphas), set()
    for _ in range(20):
        images, shares = mix(IMAGES, LABELS)
        assert (images.shape, images.dtype, shares.shape) == (IMAGES.shape, torch.float32, (3, 3))
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
        # White is class 2 and grey, at .4, is class 1: brightness tells how much of them is in an image.
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), shares[:, 2] + 0.4 * shares[:, 1])
        kinds.add("mixup" if all(image.unique().numel() == 1 for image in images) else "cutmix")
    assert kinds >= {name for name, alpha in zip(("mixup", "cutmix"), alphas, strict=True) if alpha}


def test_images_given_are_left_alone() -> None:
    before = IMAGES.clone()
    BatchMix(3, 0.2, 1.0)(IMAGES, LABELS)
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize("alphas", [(-0.1, 0.0), (0.0, -1.0)])
def test_negative_parameters_are_refused(alphas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"mixup .* and cutmix .* are not possible; accepted: 0 or more"):
        BatchMix(3, *alphas)
