"""LRASPP: shapes, and equality with torchvision's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models.segmentation.lraspp import LRASPPHead

from backbones import MobileNetV2, Tap
from backbones.spec import describe, rebuild
from heads import LRASPP, SegmentationHead

TAPS = {"fine": Tap(24, 8), "coarse": Tap(32, 16)}


def features(head: SegmentationHead, size: tuple[int, int] = (97, 33), batch: int = 2) -> dict[str, Tensor]:
    return {n: torch.randn(batch, t.channels, -(-size[0] // t.stride), -(-size[1] // t.stride)) for n, t in head.taps.items()}


@pytest.mark.parametrize("size", [(128, 64), (97, 33), (16, 16)])
@torch.no_grad()
def test_equals_torchvision(size: tuple[int, int]) -> None:
    theirs = LRASPPHead(24, 32, 5, 16).eval()
    nn.init.uniform_(theirs.cbr[1].running_mean, -0.5, 0.5)
    nn.init.uniform_(theirs.cbr[1].running_var, 0.5, 1.5)
    head = LRASPP(TAPS, 5, channels=16).eval()
    head.projection.load_state_dict(theirs.cbr.state_dict())
    head.gate.load_state_dict({"weight": theirs.scale[1].weight})
    head.low_logits.load_state_dict(theirs.low_classifier.state_dict())
    head.deep_logits.load_state_dict(theirs.high_classifier.state_dict())
    seen = features(head, size)
    assert_close(head(seen, size), theirs({"low": seen["fine"], "high": seen["coarse"]}))


def test_parameters_equal_torchvision() -> None:
    ours, theirs = (sum(p.numel() for p in head.parameters()) for head in (LRASPP(TAPS, 21), LRASPPHead(24, 32, 21, 128)))
    assert ours == theirs


@pytest.mark.parametrize("size", [(97, 33), (321, 481), (513, 513), (16, 16)])
@pytest.mark.parametrize("align_corners", [False, True])
@torch.no_grad()
def test_any_input_size(size: tuple[int, int], align_corners: bool) -> None:
    head = LRASPP(TAPS, 5, 16, align_corners).eval()
    logits = head(features(head, size), size)
    assert logits.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))
    assert head.upsample(logits, size).shape == (2, 5, *size)


def test_gradients_reach_every_parameter() -> None:
    backbone = MobileNetV2(["layer7", "layer18"], width_mult=0.35, output_stride=16)
    head = LRASPP(backbone.taps, 5, 32)
    head(backbone(torch.randn(2, 3, 97, 65)), (97, 65)).square().mean().backward()
    for module in (backbone, head):
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_image_of_one_cell_trains() -> None:
    head = LRASPP(TAPS, 5, 16)
    head(features(head, (16, 16), batch=1), (16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(buffer.isfinite().all() for buffer in head.buffers())


def test_rebuilt_from_its_description() -> None:
    head = LRASPP(TAPS, 5, 16, align_corners=True, padding="same", bn_eps=1e-3).eval()
    again = rebuild(describe(head, skip=["taps", "num_classes"]), SegmentationHead, head.taps, head.num_classes).eval()
    assert describe(again) == describe(head)
    again.load_state_dict(head.state_dict())
    seen = features(head)
    assert_close(again(seen, (97, 33)), head(seen, (97, 33)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes 0 is not possible; accepted: 2 to 255 classes"),
        ({"taps": {"layer18": Tap(8, 16)}}, "LRASPP needs a fine and a coarse tap, such as layer7 and layer18; given: layer18"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LRASPP(**{"taps": TAPS, "num_classes": 3, **arguments})
