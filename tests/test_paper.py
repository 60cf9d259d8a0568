"""Numbers of the MobileNetV2 paper and of the networks that it was published with."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backbones import MobileNetV1, MobileNetV2, NASNetA, ShuffleNetV1, Tap
from backbones.layers import Conv2d, Layers
from heads import SSD, ClassifierHead, DeepLabV3, SSDLite

# Channels and stride of the output of every layer, by the paper's table 2.
CHANNELS = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320, 1280]
STRIDES = [2, 2, 4, 4, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def multiply_adds(module: Callable[..., Any], *args: Any) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        module(*args)
    return counter.get_total_flops() / 2


def images(size: int) -> Tensor:
    return torch.empty(1, 3, size, size, device="meta")


@pytest.fixture(scope="module")
def backbone() -> MobileNetV2:
    return MobileNetV2().to("meta").eval()


@pytest.fixture(scope="module")
def ssdlite(backbone: MobileNetV2) -> SSDLite:
    return SSDLite(backbone.taps, 80).to("meta").eval()


@pytest.fixture(scope="module")
def ssd(backbone: MobileNetV2) -> SSD:
    return SSD(backbone.taps, 80).to("meta").eval()


def test_table_2_layers() -> None:
    taps = MobileNetV2([f"layer{number}" for number in range(1, 20)]).taps
    expected = {f"layer{k}": Tap(c, s, block=k < 19) for k, (c, s) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=1)}
    assert taps == expected


def test_feature_parameters(backbone: MobileNetV2) -> None:
    assert parameters(backbone) == 2_223_872
    assert parameters(backbone) + 1280 * 1000 + 1000 == 3_504_872


def test_feature_multiply_adds(backbone: MobileNetV2) -> None:
    assert multiply_adds(backbone, images(224)) == pytest.approx(299.5e6, rel=1e-3)


# The paper's text rounds 3.50 down to 3.4 and prints 6.9 for width 1.4, where TensorFlow's own table has 6.06 and timm 6.11.
@pytest.mark.parametrize(("width", "millions"), [(0.35, 1.7), (1.0, 3.5), (1.4, 6.1)])
def test_width_multiplier_parameters(width: float, millions: float) -> None:
    backbone = MobileNetV2(width_mult=width)
    with_classifier = parameters(backbone) + (backbone.taps["layer19"].channels + 1) * 1000
    assert round(with_classifier / 1e6, 1) == millions


def test_wide_network_multiply_adds() -> None:
    backbone = MobileNetV2(width_mult=1.4).to("meta")
    with_classifier = multiply_adds(backbone, images(224)) + backbone.taps["layer19"].channels * 1000
    assert with_classifier == pytest.approx(585e6, rel=5e-3)


# "Up to 585 M": every other width and resolution of the paper costs less; 1.7 M parameters are those of the narrowest network.
@pytest.mark.parametrize("size", [96, 128, 160, 192, 224])
def test_range_of_multiply_adds(backbone: MobileNetV2, size: int) -> None:
    narrow = MobileNetV2(width_mult=0.35).to("meta")
    assert 7e6 < multiply_adds(narrow, images(size)) < multiply_adds(backbone, images(size)) <= 299.5e6


def test_classifier_multiply_adds(backbone: MobileNetV2) -> None:
    head = ClassifierHead(backbone.taps, 1000).to("meta").eval()
    assert parameters(head) == 1_281_000
    assert parameters(backbone) + parameters(head) == 3_504_872
    assert multiply_adds(lambda x: head(backbone(x)), images(224)) == pytest.approx(300.8e6, rel=1e-3)


def test_keras_total(backbone: MobileNetV2) -> None:
    running = sum(buffer.numel() for name, buffer in backbone.named_buffers() if "running" in name)
    assert parameters(backbone) + 1_281_000 + running == 3_538_984


@pytest.mark.parametrize("size", [224, 112, 56, 14])
def test_keras_padding_is_tensorflows_same_on_even_sizes(size: int) -> None:
    conv = Conv2d(3, 8, 3, stride=2, padding_rule="same")
    assert [conv._padding(size, axis) for axis in (0, 1)] == [(0, 1), (0, 1)]


def test_no_expansion_in_the_first_block(backbone: MobileNetV2) -> None:
    widths = [block.conv[-2].in_channels // channels for block, channels in zip(backbone.features[1:-1], CHANNELS, strict=False)]
    assert widths == [1] + [6] * 16


def test_shortcuts_join_equal_shapes(backbone: MobileNetV2) -> None:
    # The first repeat of every stage has none (table 2).
    assert [block.has_shortcut for block in backbone.features[1:-1]] == [
        *(False, False, True, False, True, True, False, True, True, True, False, True, True, False, True, True, False)
    ]


def test_keras_layer_literals(backbone: MobileNetV2) -> None:
    names = ("features.0.0", "features.1.conv.0.0", "features.1.conv.1", "features.18.0")
    assert [parameters(backbone.get_submodule(name)) for name in names] == [864, 288, 512, 409_600]


def test_keras_batch_norm_of_160_channels(backbone: MobileNetV2) -> None:
    norm = backbone.get_submodule("features.14.conv.3")
    assert parameters(norm) + sum(buffer.numel() for buffer in norm.buffers() if buffer.dim()) == 640


def test_running_statistics(backbone: MobileNetV2) -> None:
    assert sum(buffer.numel() for name, buffer in backbone.named_buffers() if "running" in name) == 34_112


def test_ssdlite_parameters(backbone: MobileNetV2, ssdlite: SSDLite) -> None:
    assert parameters(ssdlite) == 2_113_141
    assert parameters(backbone) + parameters(ssdlite) == 4_337_013


@pytest.mark.parametrize(("size", "billions"), [(320, 0.789), (300, 0.735)])
def test_ssdlite_multiply_adds(backbone: MobileNetV2, ssdlite: SSDLite, size: int, billions: float) -> None:
    counted = multiply_adds(lambda x: ssdlite(backbone(x), (size, size)), images(size))
    assert counted / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize(("size", "count"), [(320, 2034), (300, 1917)])
def test_ssdlite_anchors(backbone: MobileNetV2, ssdlite: SSDLite, size: int, count: int) -> None:
    predictions = ssdlite(backbone(images(size)), (size, size))
    assert predictions.anchors.shape == (count, 4)
    assert predictions.class_logits.shape == (1, count, 81)
    assert predictions.box_deltas.shape == (1, count, 4)


@pytest.mark.parametrize(("size", "sides"), [(320, [20, 10, 5, 3, 2, 1]), (300, [19, 10, 5, 3, 2, 1])])
def test_ssdlite_maps(backbone: MobileNetV2, ssdlite: SSDLite, size: int, sides: list[int]) -> None:
    features = backbone(images(size))
    maps = [features[name] for name in ssdlite.taps]
    for extra in ssdlite.extras:
        maps.append(extra(maps[-1]))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, s, s) for c, s in zip([576, 1280, 512, 256, 256, 128], sides, strict=True)]


def test_anchor_scales(ssdlite: SSDLite) -> None:
    ratios = (1, 2, 1 / 2, 3, 1 / 3)
    scales = [0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    expected = [[(scale, ratio) for ratio in ratios] + [((scale * after) ** 0.5, 1)] for scale, after in pairwise(scales)]
    for level, boxes in zip(ssdlite.levels, [[(0.1, 1), (0.2, 2), (0.2, 1 / 2)], *expected], strict=True):
        assert level == [pytest.approx(box) for box in boxes]


def test_six_boxes_on_every_level(backbone: MobileNetV2) -> None:
    head = SSDLite(backbone.taps, 80, anchors="torchvision").to("meta").eval()
    assert round((parameters(backbone) + parameters(head)) / 1e3) == 4484
    assert head(backbone(images(320)), (320, 320)).anchors.shape == (3234, 4)
    counted = multiply_adds(lambda x: head(backbone(x), (320, 320)), images(320))
    assert counted / 1e9 == pytest.approx(0.848, rel=1e-3)


def test_ssd_of_table_5(backbone: MobileNetV2, ssd: SSD) -> None:
    assert parameters(ssd) == 14_776_629
    assert multiply_adds(ssd, backbone(images(320)), (320, 320)) / 1e9 == pytest.approx(1.259, rel=1e-3)


def mobile_deeplab(output_stride: int, *atrous_rates: int) -> tuple[MobileNetV2, DeepLabV3]:
    """Table 7's network: the backbone ends at its 320 channels, and VOC has 21 classes."""
    backbone = MobileNetV2(["layer18"], output_stride=output_stride).to("meta").eval()
    return backbone, DeepLabV3(backbone.taps, 21, atrous_rates).to("meta").eval()


def deeplab_multiply_adds(backbone: MobileNetV2, head: DeepLabV3, size: int) -> float:
    return multiply_adds(lambda x: head(backbone(x), (size, size)), images(size))


def test_mobile_deeplab_of_table_7() -> None:
    backbone, head = mobile_deeplab(16)
    assert parameters(backbone) + parameters(head) == 2_113_557
    assert deeplab_multiply_adds(backbone, head, 513) / 1e9 == pytest.approx(2.741, rel=1e-3)


# The paper prints 5.8 G, which is what TensorFlow computes: see tests/tasks/cost/test_paper_tables.py.
def test_mobile_deeplab_with_atrous_branches() -> None:
    backbone, head = mobile_deeplab(16, 6, 12, 18)
    assert parameters(backbone) + parameters(head) == 4_523_541
    assert deeplab_multiply_adds(backbone, head, 513) / 1e9 == pytest.approx(5.364, rel=1e-3)


def test_mobile_deeplab_at_six_scales_and_flipped() -> None:
    network = mobile_deeplab(8)
    sizes = [round(512 * scale) + 1 for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert 2 * sum(deeplab_multiply_adds(*network, size) for size in sizes) / 1e9 == pytest.approx(152.33, rel=1e-3)


# Table 4: parameters and multiply-adds with 1000 classes at 224, as printed there.
COMPARED = {
    "MobileNetV1": (lambda: MobileNetV1(), 4.2e6, 575e6),
    "ShuffleNet (1.5)": (lambda: ShuffleNetV1(width_mult=1.5, groups=3), 3.4e6, 292e6),
    "ShuffleNet (x2)": (lambda: ShuffleNetV1(width_mult=2.0, groups=3), 5.4e6, 524e6),
    "NASNet-A": (lambda: NASNetA(), 5.3e6, 564e6),
}


@pytest.mark.parametrize("name", list(COMPARED))
def test_networks_that_the_paper_compares_with(name: str) -> None:
    build, printed_parameters, printed_multiply_adds = COMPARED[name]
    with torch.device("meta"):
        network = build().eval()
    last = list(network.taps.values())[-1].channels
    assert parameters(network) + (last + 1) * 1000 == pytest.approx(printed_parameters, rel=0.02)
    assert multiply_adds(network, images(224)) + last * 1000 == pytest.approx(printed_multiply_adds, rel=0.02)


def test_mobilenet_v1_with_ssdlite_of_table_6() -> None:
    with torch.device("meta"):
        backbone = MobileNetV1().eval()
        head = SSDLite(backbone.taps, 80).eval()
    assert list(head.taps) == ["layer12", "layer14"]
    assert parameters(backbone) + parameters(head) == 5_100_661
    assert multiply_adds(lambda x: head(backbone(x), (320, 320)), images(320)) / 1e9 == pytest.approx(1.309, rel=1e-3)


def test_mobilenet_v1_with_deeplab_of_table_7() -> None:
    with torch.device("meta"):
        backbone = MobileNetV1(output_stride=16).eval()
        head = DeepLabV3(backbone.taps, 21, (6, 12, 18)).eval()
    assert parameters(backbone) + parameters(head) == 11_145_301


def test_worked_example_of_separable_convolution() -> None:
    features = torch.empty(1, 3, 6, 6)
    separable = nn.Sequential(Layers().depthwise(3), Conv2d(3, 3, 1))
    full, cheap = multiply_adds(Conv2d(3, 3, 3), features), multiply_adds(separable, features)
    assert (full, cheap) == (2916, 1296)
    assert cheap / full == pytest.approx(1 / 3 + 1 / 3**2)


@pytest.mark.parametrize(("channels", "kernel_size"), [(3, 3), (32, 3), (24, 5), (160, 3)])
def test_cost_ratio_of_separable_convolution(channels: int, kernel_size: int) -> None:
    features = torch.empty(1, 8, 6, 6, device="meta")
    depthwise, pointwise = Conv2d(8, 8, kernel_size, groups=8), Conv2d(8, channels, 1)
    cheap = multiply_adds(nn.Sequential(depthwise, pointwise).to("meta"), features)
    full = multiply_adds(Conv2d(8, channels, kernel_size).to("meta"), features)
    assert cheap / full == pytest.approx(1 / channels + 1 / kernel_size**2)
