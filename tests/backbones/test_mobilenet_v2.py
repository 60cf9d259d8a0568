"""MobileNetV2 against torchvision, timm, TensorFlow's padding rule and Google's weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from backbones import MobileNetV2, Offer
from backbones.layers import Conv2d
from backbones.mobilenet_v2 import make_divisible

LAYERS = [f"layer{number}" for number in range(1, 20)]
EXPANDED = [f"layer{number}_expand" for number in range(3, 19)]
ALL_TAPS = LAYERS + EXPANDED
SIZES = [(64, 64), (97, 65), (50, 71), (1, 1)]


def randomise(module: nn.Module) -> None:
    """Gives every batch norm statistics, scales and shifts that a wrong order or a wrong epsilon would show in."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def copied(module: nn.Module, **kwargs: Any) -> MobileNetV2:
    """Our network with the weights of another one whose tensors stand in the same order."""
    ours = MobileNetV2(**kwargs).eval()
    wanted = ours.state_dict()
    tensors = [tensor for name, tensor in module.state_dict().items() if not name.startswith("classifier")]
    assert [t.shape for t in tensors] == [t.shape for t in wanted.values()]
    ours.load_state_dict(dict(zip(wanted, tensors, strict=True)))
    return ours


@torch.no_grad()
def torchvision_taps(theirs: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found, features = {}, images
    for number, layer in enumerate(theirs.features, start=1):
        if f"layer{number}_expand" in EXPANDED:
            found[f"layer{number}_expand"] = layer.conv[0](features)
        found[f"layer{number}"] = features = layer(features)
    return found


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v2().eval()
    randomise(module)
    return module


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_tap_equals_torchvision(theirs: nn.Module, size: tuple[int, int]) -> None:
    ours = MobileNetV2(ALL_TAPS).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing == []
    assert unexpected == ["classifier.1.weight", "classifier.1.bias"]
    images = torch.randn(2, 3, *size)
    found, expected = ours(images), torchvision_taps(theirs, images)
    assert set(found) == set(ALL_TAPS)
    for name in ALL_TAPS:
        assert_close(found[name], expected[name])


@torch.no_grad()
def test_ssdlite_tap_is_the_expansion_of_the_first_160_channel_block(theirs: nn.Module) -> None:
    ours = MobileNetV2(["layer15_expand"]).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 96)
    (found,) = ours(images).values()
    assert found.shape == (1, 576, 4, 6)
    assert_close(found, theirs.features[14].conv[0](theirs.features[:14](images)))


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@torch.no_grad()
def test_equals_timm(padding: str, output_stride: int) -> None:
    theirs = timm.create_model("mobilenetv2_100", output_stride=output_stride, pad_type="same" if padding == "same" else "").eval()
    randomise(theirs)
    ours = copied(theirs, taps=["layer19"], output_stride=output_stride, padding=padding)
    for size in ((64, 64), (97, 65), (50, 71)):
        images = torch.randn(1, 3, *size)
        assert_close(ours(images)["layer19"], theirs.forward_features(images))


@pytest.mark.parametrize(("width", "name"), [(0.35, "mobilenetv2_035"), (1.4, "mobilenetv2_140")])
@torch.no_grad()
def test_widths_equal_timm_and_torchvision(width: float, name: str) -> None:
    theirs = timm.create_model(name).eval()
    randomise(theirs)
    ours = copied(theirs, width_mult=width, taps=["layer19"])
    images = torch.randn(1, 3, 65, 49)
    assert_close(ours(images)["layer19"], theirs.forward_features(images))
    shapes = {name: t.shape for name, t in torchvision.models.mobilenet_v2(width_mult=width).features.state_dict().items()}
    assert {name: t.shape for name, t in ours.features.state_dict().items()} == shapes


# Widths of the paper and of TensorFlow's published weights; timm's name where it has that width.
WIDTHS = [
    *((0.35, "mobilenetv2_035"), (0.5, "mobilenetv2_050"), (0.75, "mobilenetv2_075")),
    *((1.0, "mobilenetv2_100"), (1.3, None), (1.4, "mobilenetv2_140")),
]


@pytest.mark.parametrize(("width", "name"), WIDTHS)
@torch.no_grad()
def test_every_width_of_the_paper(width: float, name: str | None) -> None:
    with torch.device("meta"):
        ours, theirs = MobileNetV2(LAYERS, width).eval(), torchvision.models.mobilenet_v2(width_mult=width)
        timms = timm.create_model(name) if name else None
        images = [torch.empty(1, 3, size, size) for size in (96, 128, 160, 192, 224)]
    shapes = [tensor.shape for tensor in ours.state_dict().values()]
    assert shapes == [tensor.shape for tensor in theirs.features.state_dict().values()]
    assert timms is None or shapes == [tensor.shape for key, tensor in timms.state_dict().items() if not key.startswith("classifier")]
    assert ours.taps["layer19"].channels == (1280 if width <= 1 else round(1280 * width))
    for image in images:
        features = ours(image)
        assert {key: f.shape[1:] for key, f in features.items()} == {
            key: (tap.channels, image.shape[2] // tap.stride, image.shape[2] // tap.stride) for key, tap in ours.taps.items()
        }


@pytest.mark.parametrize(("channels", "rounded"), [(1, 8), (11.2, 16), (12, 16), (33.6, 32), (44.8, 48), (8.4, 8), (18, 24), (1792, 1792)])
def test_channels_are_rounded_to_eights_never_below_90_percent(channels: float, rounded: int) -> None:
    assert make_divisible(channels) == rounded
    assert make_divisible(channels) >= 0.9 * channels


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("width", [0.35, 1.4])
@torch.no_grad()
def test_every_tap_has_the_declared_channels_and_stride(width: float, output_stride: int, padding: str) -> None:
    backbone = MobileNetV2(ALL_TAPS, width, output_stride, padding).eval()
    assert max(tap.stride for tap in backbone.taps.values()) == output_stride
    for height, width_ in ((97, 65), (32, 64), (33, 1)):
        features = backbone(torch.randn(1, 3, height, width_))
        expected = {n: (1, tap.channels, -(-height // tap.stride), -(-width_ // tap.stride)) for n, tap in backbone.taps.items()}
        assert {name: tuple(f.shape) for name, f in features.items()} == expected


@pytest.mark.parametrize("name", ALL_TAPS)
def test_layers_past_the_last_tap_are_not_built(name: str) -> None:
    backbone = MobileNetV2([name])
    assert len(backbone.features) == int(name.removeprefix("layer").removesuffix("_expand"))
    backbone(torch.randn(2, 3, 80, 80))[name].square().mean().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_taps_come_in_network_order() -> None:
    backbone = MobileNetV2(["layer19", "layer4", "layer15_expand", "layer15", "layer4"])
    assert list(backbone.taps) == ["layer4", "layer15_expand", "layer15", "layer19"]
    assert list(backbone(torch.randn(2, 3, 33, 33))) == list(backbone.taps)


def test_by_default_all_taps_are_offered() -> None:
    backbone = MobileNetV2()
    assert isinstance(backbone.taps, Offer)
    assert sorted(backbone.taps) == sorted(ALL_TAPS)
    assert not isinstance(MobileNetV2(ALL_TAPS).taps, Offer)


@pytest.mark.parametrize("kept", [["layer15_expand", "layer19"], ["layer18"], ["layer4", "layer15_expand"]])
@torch.no_grad()
def test_keeping_taps_leaves_the_network_that_is_built_with_them(kept: list[str]) -> None:
    whole, narrow = MobileNetV2(), MobileNetV2(kept)
    whole.keep(kept)
    narrow.load_state_dict(whole.state_dict())
    images = torch.randn(1, 3, 65, 65)
    assert_close(whole.eval()(images), narrow.eval()(images), rtol=0, atol=0)
    assert whole.taps == narrow.taps


@pytest.mark.parametrize(
    ("output_stride", "dilations"),
    [(32, [1] * 17), (16, [1] * 14 + [2] * 3), (8, [1] * 7 + [2] * 7 + [4] * 3)],
)
def test_dilation_starts_after_the_block_that_lost_its_stride(output_stride: int, dilations: list[int]) -> None:
    backbone = MobileNetV2(["layer18"], output_stride=output_stride)
    depthwise = [m for m in backbone.features[1:].modules() if isinstance(m, Conv2d) and m.groups > 1]
    assert [conv.dilation[0] for conv in depthwise] == dilations


@pytest.mark.parametrize("size", [(97, 65), (64, 64)])
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_atrous_features_contain_the_strided_ones(output_stride: int, size: tuple[int, int]) -> None:
    strided, atrous = MobileNetV2(["layer14", "layer19"]), MobileNetV2(["layer14", "layer19"], output_stride=output_stride)
    randomise(strided)
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, *size)
    dense, sparse = atrous.eval()(images), strided.eval()(images)
    for name, tap in atrous.taps.items():
        step = strided.taps[name].stride // tap.stride
        assert_close(dense[name][:, :, ::step, ::step], sparse[name], rtol=1e-4, atol=1e-5)


def tensorflow_same(images: Tensor, weight: Tensor, stride: int, dilation: int, groups: int) -> Tensor:
    """SAME as TensorFlow's documentation of tf.nn words it."""
    reach = (weight.shape[-1] - 1) * dilation + 1
    pads = [max(reach - (size % stride or stride), 0) for size in (images.shape[-1], images.shape[-2])]
    sides = [side for pad in pads for side in (pad // 2, pad - pad // 2)]
    return F.conv2d(F.pad(images, sides), weight, stride=stride, dilation=dilation, groups=groups)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_is_tensorflows(stride: int, dilation: int) -> None:
    for kernel_size, groups in ((1, 1), (3, 4), (5, 1)):
        conv = Conv2d(4, 4, kernel_size, stride, dilation, groups, padding_rule="same")
        for size in ((1, 1), (2, 3), (8, 8), (9, 7), (12, 11)):
            images = torch.randn(1, 4, *size)
            found = conv(images)
            assert found.shape[-2:] == tuple(-(-side // stride) for side in size)
            assert_close(found, tensorflow_same(images, conv.weight, stride, dilation, groups))


@torch.no_grad()
def test_paddings_differ_on_even_sizes_only() -> None:
    symmetric, same = MobileNetV2(["layer14"]).eval(), MobileNetV2(["layer14"], padding="same").eval()
    same.load_state_dict(symmetric.state_dict())
    odd, even = torch.randn(1, 3, 97, 65), torch.randn(1, 3, 96, 64)
    assert_close(symmetric(odd), same(odd))
    assert not torch.allclose(symmetric(even)["layer14"], same(even)["layer14"])


def googles_classifier(folder: Path, images: Tensor) -> Tensor:
    weights = folder / "mobilenet_v2_1.0_224.safetensors"
    backbone = MobileNetV2(["layer19"], padding="same", bn_eps=1e-3, weights=str(weights)).eval()
    pooled = backbone(images)["layer19"].mean(dim=(2, 3))
    classifier = load_file(weights)
    return F.linear(pooled, classifier["classifier.1.weight"], classifier["classifier.1.bias"]).softmax(dim=1).flatten()


@pytest.mark.parametrize("vector", ["0", "1", "2"])
@torch.no_grad()
def test_googles_weights_give_the_published_probabilities(shared: Path, vector: str) -> None:
    folder = shared / "weights" / "imagenet"
    vectors = folder / "mobilenet_v2_1.0_224_vectors" / vector
    # Whoever published these noise images fed them to the network as they are, in 0..255.
    images = torch.from_numpy(np.load(vectors / "input_0.npy")).permute(0, 3, 1, 2)
    published = torch.from_numpy(np.load(vectors / "output_0.npy")).flatten()
    found = googles_classifier(folder, images)
    assert found.argmax() == published.argmax() == 738
    assert_close(found, published, rtol=0, atol=0.0027)


@torch.no_grad()
def test_googles_weights_see_a_military_uniform(shared: Path) -> None:
    folder = shared / "weights" / "imagenet"
    photo = Image.open(shared / "weights" / "photos" / "grace_hopper.bmp").convert("RGB").resize((224, 224))
    images = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    found = googles_classifier(folder, images)
    labels = (folder / "labels_1001.txt").read_text().splitlines()
    assert labels[found.argmax()] == "military uniform"
    assert found.max() > 0.8


def test_batch_norm_settings_reach_every_batch_norm() -> None:
    backbone = MobileNetV2(bn_eps=1e-3, bn_momentum=0.03)
    assert len(norms(backbone)) == 52
    assert {(norm.eps, norm.momentum) for norm in norms(backbone)} == {(1e-3, 0.03)}


def test_initialisation_is_torchvisions() -> None:
    backbone = MobileNetV2(["layer19"])
    for conv in (m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms(backbone))


def test_bfloat16_autocast_stays_near_float32() -> None:
    backbone = MobileNetV2(["layer7"], width_mult=0.35, output_stride=8)
    images = torch.randn(2, 3, 64, 64)
    expected = backbone(images)["layer7"]
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone(images)["layer7"]
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"taps": ["layer20"]}, r"taps \['layer20'\] cannot be had; accepted: .*layer1, .*layer15_expand, .*layer19"),
        ({"taps": ["layer2_expand"]}, "layer2_expand"),
        ({"taps": []}, r"taps \[\] cannot be had"),
        ({"output_stride": 4}, "output_stride 4 is not possible; accepted: 8, 16, 32"),
        ({"width_mult": 0.0}, "width_mult 0.0 is not possible; accepted: over 0 to 10"),
        ({"width_mult": -1.0}, "width_mult -1.0"),
        ({"padding": "valid"}, "padding 'valid' is unknown; accepted: 'symmetric', 'same'"),
        ({"frozen_layers": 20}, "frozen_layers 20 is not possible; accepted: 0 to 19"),
        ({"frozen_layers": -1}, "frozen_layers -1"),
        ({"frozen_layers": 5, "taps": ["layer4"]}, "accepted: 0 to 4, the layers built"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MobileNetV2(**arguments)
