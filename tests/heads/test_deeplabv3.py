"""DeepLabV3: shapes, settings, and equality with the Mobile DeepLabv3 of transformers and the ASPP of smp."""

from typing import Any

import pytest
import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

from backbones import MobileNetV2, Tap
from backbones.layers import Conv2d
from backbones.spec import describe, rebuild
from heads import DeepLabV3, SegmentationHead

TAPS = {"fine": Tap(24, 4), "coarse": Tap(32, 16)}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"atrous_rates": (6, 12)},
    {"atrous_rates": (6,), "separable": True},
    {"decoder": True},
    {"atrous_rates": (2,), "separable": True, "decoder": True, "padding": "same"},
]


def small_head(**kwargs: Any) -> DeepLabV3:
    return DeepLabV3(TAPS, 5, **{"channels": 16, **kwargs})


def features(head: SegmentationHead, size: tuple[int, int] = (97, 33), batch: int = 2) -> dict[str, Tensor]:
    return {n: torch.randn(batch, t.channels, -(-size[0] // t.stride), -(-size[1] // t.stride)) for n, t in head.taps.items()}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomise(module: nn.Module) -> None:
    """Weights and statistics of batch norms as after training, all different."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -0.5, 0.5)


def load_in_order(target: nn.Module, *sources: nn.Module) -> None:
    """Loads weights of networks whose layers stand in the same order under other names."""
    values = [value for source in sources for value in source.state_dict().values()]
    names = list(target.state_dict())
    assert len(values) == len(names)
    target.load_state_dict(dict(zip(names, values, strict=True)))


def rates(head: DeepLabV3) -> list[tuple[int, int]]:
    return [m.dilation for branch in head.branches for m in branch.modules() if isinstance(m, Conv2d) and m.kernel_size == (3, 3)]


def test_parameters_by_hand() -> None:
    # A weight matrix and two numbers of batch norm a channel for each of pooling, 1x1 branch and projection; the last layer has a bias.
    assert parameters(small_head()) == 2 * (32 * 16 + 32) + (32 * 16 + 32) + (16 * 5 + 5)
    full = small_head(atrous_rates=(6,))
    assert parameters(full) - parameters(small_head()) == (9 * 32 * 16 + 32) + 16 * 16
    separable = small_head(atrous_rates=(6,), separable=True)
    assert parameters(separable) - parameters(small_head()) == (9 * 32 + 64) + (32 * 16 + 32) + 16 * 16
    decoder = small_head(decoder=True)
    assert parameters(decoder) - parameters(small_head()) == (24 * 48 + 96) + (9 * 64 * 16 + 32) + (9 * 16 * 16 + 32)


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("size", [(97, 33), (321, 481), (513, 513), (16, 16)])
@pytest.mark.parametrize("align_corners", [False, True])
@torch.no_grad()
def test_any_input_size(settings: dict[str, Any], size: tuple[int, int], align_corners: bool) -> None:
    head = small_head(**settings, align_corners=align_corners).eval()
    logits = head(features(head, size), size)
    stride = 4 if head.decoder is not None else 16
    assert logits.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    assert logits.isfinite().all()
    upsampled = head.upsample(logits, size)
    assert_close(upsampled, F.interpolate(logits, size, mode="bilinear", align_corners=align_corners))
    assert head.upsample(upsampled, size) is upsampled


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("size", [(65, 65), (97, 33)])
@torch.no_grad()
def test_equals_transformers(output_stride: int, size: tuple[int, int]) -> None:
    config = MobileNetV2Config(tf_padding=True, finegrained_output=True, output_stride=output_stride, num_labels=21)
    theirs = MobileNetV2ForSemanticSegmentation(config).eval()
    backbone = MobileNetV2(["layer18"], output_stride=output_stride, padding="same", bn_eps=1e-3).eval()
    head = DeepLabV3(backbone.taps, 21, padding="same", bn_eps=1e-5).eval()
    randomise(theirs)
    load_in_order(backbone, theirs.mobilenet_v2.conv_stem, theirs.mobilenet_v2.layer)
    load_in_order(head, theirs.segmentation_head)
    images = torch.randn(2, 3, *size)
    expected = theirs(images).logits
    assert expected.std() > 0.1
    assert_close(head(backbone(images), size), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stride", "theirs_rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
@torch.no_grad()
def test_branches_equal_those_of_smp(stride: int, theirs_rates: tuple[int, int, int]) -> None:
    # smp refines the result by a further 3x3 convolution, hence the comparison before it.
    head = DeepLabV3({"coarse": Tap(32, stride)}, 5, (6, 12, 18), channels=16).eval()
    theirs = ASPP(32, 16, theirs_rates, separable=False, dropout=0.5).eval()
    randomise(theirs)
    *branches, pooling = theirs.convs
    load_in_order(head.pooling, pooling)
    load_in_order(head.branches, *branches)
    load_in_order(head.projection, theirs.project)
    # Pooled features come first here and last there.
    weight = theirs.project[0].weight
    head.projection[0].weight.copy_(torch.cat([weight[:, -16:], weight[:, :-16]], dim=1))
    head.logits = nn.Identity()
    seen = torch.randn(2, 32, 13, 21)
    assert_close(head({"coarse": seen}, (13 * stride, 21 * stride)), theirs(seen))


@torch.no_grad()
def test_decoder_by_hand() -> None:
    head = small_head(decoder=True, align_corners=True).eval()
    randomise(head)
    seen = features(head)
    without = small_head().eval()
    without.load_state_dict({n: v for n, v in head.state_dict().items() if not n.startswith("decoder")})
    without.logits = nn.Identity()
    upsampled = F.interpolate(without(seen, (97, 33)), (25, 9), mode="bilinear", align_corners=True)
    reduction, refinement = head.decoder.reduction, head.decoder.refinement
    expected = head.logits(refinement(torch.cat([upsampled, reduction(seen["fine"])], dim=1)))
    assert_close(head(seen, (97, 33)), expected)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("stride", "expected"), [(8, [12, 24]), (16, [6, 12]), (32, [3, 6])])
def test_rates_follow_the_output_stride(separable: bool, stride: int, expected: list[int]) -> None:
    head = DeepLabV3({"coarse": Tap(8, stride)}, 2, (6, 12), separable=separable, channels=8)
    assert rates(head) == [(rate, rate) for rate in expected]


def test_rates_never_reach_zero() -> None:
    assert rates(DeepLabV3({"coarse": Tap(8, 32)}, 2, (1,), channels=8)) == [(1, 1)]


@pytest.mark.parametrize("settings", VARIANTS)
def test_separable_convolutions_are_depthwise(settings: dict[str, Any]) -> None:
    wide = [m for m in small_head(**settings).modules() if isinstance(m, Conv2d) and m.kernel_size == (3, 3)]
    assert {m.groups == m.in_channels for m in wide} <= {settings.get("separable", False)}


@pytest.mark.parametrize("settings", VARIANTS)
def test_gradients_reach_every_parameter(settings: dict[str, Any]) -> None:
    backbone = MobileNetV2(["layer4", "layer18"], width_mult=0.35, output_stride=16)
    head = DeepLabV3(backbone.taps, 5, **{"channels": 32, **settings})
    head(backbone(torch.randn(2, 3, 97, 65)), (97, 65)).square().mean().backward()
    for module in (backbone, head):
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("settings", VARIANTS)
def test_one_image_of_one_cell_trains(settings: dict[str, Any]) -> None:
    backbone = MobileNetV2(["layer4", "layer18"], width_mult=0.35, output_stride=16)
    head = DeepLabV3(backbone.taps, 5, **{"channels": 16, **settings})
    head(backbone(torch.randn(1, 3, 16, 16)), (16, 16)).square().mean().backward()
    for module in (backbone, head):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert all(buffer.isfinite().all() for buffer in module.buffers())


def test_dropout_only_in_training() -> None:
    head = small_head(dropout=0.5)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    seen = features(head)
    assert not torch.equal(head(seen, (97, 33)), head(seen, (97, 33)))
    head.eval()
    assert torch.equal(head(seen, (97, 33)), head(seen, (97, 33)))


def test_training_starts_from_even_scores() -> None:
    head = DeepLabV3(TAPS, 21)
    assert head.logits.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (head.logits.bias == 0).all()
    assert head(features(head), (97, 33)).softmax(dim=1).max() < 0.2


def test_batch_norm_settings_reach_every_batch_norm() -> None:
    head = small_head(atrous_rates=(6,), separable=True, decoder=True, bn_eps=1e-4, bn_momentum=0.0003)
    assert {(m.eps, m.momentum) for m in head.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-4, 0.0003)}


@pytest.mark.parametrize("settings", VARIANTS)
def test_rebuilt_from_its_description(settings: dict[str, Any]) -> None:
    head = small_head(**settings, align_corners=True).eval()
    again = rebuild(describe(head, skip=["taps", "num_classes"]), SegmentationHead, head.taps, head.num_classes).eval()
    assert describe(again) == describe(head)
    again.load_state_dict(head.state_dict())
    seen = features(head)
    assert_close(again(seen, (97, 33)), head(seen, (97, 33)))


@torch.no_grad()
def test_bfloat16() -> None:
    head = small_head(atrous_rates=(6,), separable=True, decoder=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head({name: tensor.bfloat16() for name, tensor in features(head).items()}, (97, 33))
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes 1 is not possible; accepted: 2 to 255 classes"),
        ({"num_classes": 256}, "num_classes 256 is not possible; accepted: 2 to 255 classes"),
        ({"atrous_rates": (6, 0)}, r"atrous_rates \[6, 0\] are not possible; accepted: whole numbers of at least 1"),
        ({"taps": {"a": Tap(8, 8), "b": Tap(8, 16)}, "decoder": True}, "first tap of stride 4, such as layer4; given: a of stride 8, b of"),
        ({"padding": "valid"}, "padding 'valid' is unknown; accepted: 'symmetric', 'same'"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepLabV3(**{"taps": TAPS, "num_classes": 3, **arguments})
