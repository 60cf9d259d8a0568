"""Upsampling by products is torch's own, with its gradients."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from backbones import Tap
from heads import DeepLabV3
from heads.upsampling import upsample_by_products


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("cells", "size"), [((5, 9), (65, 97)), ((1, 3), (4, 13)), ((33, 33), (513, 513))])
def test_equals_interpolation(cells: tuple[int, int], size: tuple[int, int], align_corners: bool) -> None:
    features = torch.randn(2, 3, *cells, dtype=torch.float64, requires_grad=True)
    found, expected = (
        upsample_by_products(features, size, align_corners),
        F.interpolate(features, size, mode="bilinear", align_corners=align_corners),
    )
    assert_close(found, expected)
    weights = torch.randn_like(found)
    assert_close(*(torch.autograd.grad((result * weights).sum(), features)[0] for result in (found, expected)))


def test_autocast_leaves_it_in_float32() -> None:
    features = torch.randn(1, 3, 5, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = upsample_by_products(features, (40, 40), False)
    assert found.dtype == torch.float32
    assert_close(found, F.interpolate(features.float(), (40, 40), mode="bilinear"))


def test_heads_train_and_evaluate_to_the_same() -> None:
    head, logits = DeepLabV3({"deep": Tap(8, 16)}, 4), torch.randn(1, 4, 5, 5)
    assert_close(head.train().upsample(logits, (65, 65)), head.eval().upsample(logits, (65, 65)))
