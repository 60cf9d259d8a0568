"""MobileNetV1 against its paper, timm and TensorFlow's padding rule."""

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from backbones import MobileNetV1, Tap
from backbones.layers import Conv2d
from tests.backbones.contract import BackboneContract
from tests.backbones.test_mobilenet_v2 import randomise

# Table 1 of the paper: channels of the input of every layer behind the first, and of the last layer's output.
CHANNELS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
STRIDES = [2, 2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32]


class TestMobileNetV1(BackboneContract):
    def build(self, **arguments: Any) -> MobileNetV1:
        return MobileNetV1(width_mult=0.25, **arguments)


def test_table_1() -> None:
    expected = {f"layer{k}": Tap(c, s) for k, (c, s) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=1)}
    assert MobileNetV1().taps == expected


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@torch.no_grad()
def test_equals_timm(padding: Any, output_stride: int) -> None:
    theirs = timm.create_model("mobilenetv1_100", output_stride=output_stride, pad_type="same" if padding == "same" else "").eval()
    randomise(theirs)
    ours = MobileNetV1(output_stride=output_stride, padding=padding).eval()
    tensors = [tensor for name, tensor in theirs.state_dict().items() if not name.startswith("classifier")]
    ours.load_state_dict(dict(zip(ours.state_dict(), tensors, strict=True)))
    for size in ((64, 64), (97, 65), (50, 71)):
        images = torch.randn(1, 3, *size)
        assert_close(ours(images)["layer14"], theirs.forward_features(images))


@pytest.mark.parametrize(
    ("output_stride", "dilations"), [(32, [1] * 13), (16, [1] * 12 + [2]), (8, [1] * 6 + [2] * 6 + [4])], ids=["32", "16", "8"]
)
def test_dilation_starts_after_the_block_that_lost_its_stride(output_stride: int, dilations: list[int]) -> None:
    backbone = MobileNetV1(output_stride=output_stride)
    depthwise = [m for m in backbone.modules() if isinstance(m, Conv2d) and m.groups > 1]
    assert [conv.dilation[0] for conv in depthwise] == dilations


@pytest.mark.parametrize(("width", "stem", "last"), [(0.25, 8, 256), (0.5, 16, 512), (0.75, 24, 768), (1.4, 48, 1432)])
def test_widths(width: float, stem: int, last: int) -> None:
    taps = MobileNetV1(width_mult=width).taps
    assert (taps["layer1"].channels, taps["layer14"].channels) == (stem, last)


def test_layers_past_the_last_tap_are_not_there() -> None:
    backbone = MobileNetV1()
    backbone.keep(["layer12"])
    assert len(backbone.features) == 12


def test_frozen_layers_do_not_train() -> None:
    backbone = MobileNetV1(["layer5"], frozen_layers=3).train()
    assert [layer.training for layer in backbone.features] == [False] * 3 + [True] * 2
    assert [p.requires_grad for p in backbone.features[:3].parameters()] == [False] * len(list(backbone.features[:3].parameters()))
    assert all(p.requires_grad for p in backbone.features[3:].parameters())


def test_batch_norm_settings_reach_every_batch_norm() -> None:
    norms = [m for m in MobileNetV1(bn_eps=1e-3, bn_momentum=0.03).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 27
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"taps": ["layer15"]}, r"taps \['layer15'\] cannot be had; accepted: .*layer1, .*layer14"),
        ({"width_mult": 0.0}, "width_mult 0.0 is not possible; accepted: over 0 to 10"),
        ({"padding": "valid"}, "padding 'valid' is unknown; accepted: 'symmetric', 'same'"),
        ({"frozen_layers": 15}, "frozen_layers 15 is not possible; accepted: 0 to 14, the layers built"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MobileNetV1(**arguments)
