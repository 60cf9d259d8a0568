"""Folded networks compute the same, with fewer layers."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from backbones import Backbone, MobileNetV1, MobileNetV2
from backbones.folding import fold
from backbones.layers import Conv2d
from heads import LRASPP, SSD, DeepLabV3, SSDLite
from tasks.detect.model import Detector
from tasks.segment.model import Segmenter


def settle(network: nn.Module) -> None:
    """Statistics, scales and shifts as of a trained network."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.5, 0.5)):
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    network.eval()


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("cls", [MobileNetV1, MobileNetV2])
def test_backbones(cls: type[Backbone], padding: str) -> None:
    network = cls(width_mult=0.5, padding=padding)  # type: ignore[call-arg]
    settle(network)
    folded = deepcopy(network).to(memory_format=torch.channels_last)
    fold(folded)
    images = torch.rand(2, 3, 70, 97)
    with torch.no_grad():
        for one, two in zip(network(images).values(), folded(images).values(), strict=True):
            assert torch.allclose(one, two, rtol=1e-4, atol=1e-4 * one.abs().max().item())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())


@pytest.mark.parametrize("head", [SSDLite, SSD])
def test_detectors(head: type[SSDLite]) -> None:
    detector = Detector(MobileNetV2(width_mult=0.35), head, ("cat", "dog"), size=(96, 96))
    settle(detector)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        plain = detector(images)
        fast = detector.optimize()(images)
    for one, two in zip(plain[:2], fast[:2], strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in detector.modules())


@pytest.mark.parametrize("head", [DeepLabV3, LRASPP])
def test_segmenters(head: type[DeepLabV3]) -> None:
    segmenter = Segmenter(MobileNetV2(width_mult=0.35, output_stride=16), head, ("background", "cat"), size=(65, 65))
    settle(segmenter)
    images = torch.randint(0, 256, (2, 3, 65, 65), dtype=torch.uint8)
    with torch.no_grad():
        plain = segmenter(images)
        fast = segmenter.optimize()(images)
    assert torch.allclose(plain, fast, rtol=1e-4, atol=1e-4)


def test_inputs_of_changing_shapes() -> None:
    network = MobileNetV2(width_mult=0.35, padding="same")
    settle(network)
    folded = deepcopy(network).to(memory_format=torch.channels_last)
    fold(folded)
    with torch.no_grad():
        for shape in [(1, 3, 64, 64), (3, 3, 64, 64), (1, 3, 33, 70), (1, 3, 1, 2), (1, 3, 64, 64)]:
            images = torch.rand(shape)
            for one, two in zip(network(images).values(), deepcopy(folded)(images).values(), strict=True):
                assert torch.allclose(one, two, rtol=1e-4, atol=1e-4 * one.abs().max().item())
            folded(images)


def test_features_outlive_the_shortcuts_that_are_added_to_them() -> None:
    network = MobileNetV2([f"layer{number}" for number in range(1, 19)], width_mult=0.35)
    settle(network)
    folded = deepcopy(network).to(memory_format=torch.channels_last)
    fold(folded)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for name, one in network(images).items():
            assert torch.allclose(one, folded(images)[name], rtol=1e-4, atol=1e-4 * one.abs().max().item()), name


def test_gradients_need_not_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.loops.LEAST_SIZE", 0)
    network = MobileNetV2(width_mult=0.35, output_stride=8)
    settle(network)
    folded = deepcopy(network).to(memory_format=torch.channels_last)
    fold(folded)
    images = torch.rand(2, 3, 129, 129).contiguous(memory_format=torch.channels_last)
    for one, two in zip(network(images).values(), folded(images).values(), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-4 * one.abs().max().item())


@pytest.mark.parametrize(("stride", "dilation", "kernel"), [(2, 1, 3), (2, 1, 5), (3, 1, 3), (2, 2, 3), (2, 3, 3), (2, 1, 1)])
@pytest.mark.parametrize("size", [(7, 8), (9, 9), (12, 10), (1, 3)])
def test_odd_padding_without_a_copy(stride: int, dilation: int, kernel: int, size: tuple[int, int]) -> None:
    conv = Conv2d(4, 4, kernel, stride, dilation, groups=4, padding_rule="same").requires_grad_(False)
    chain = nn.Sequential(deepcopy(conv), nn.ReLU())
    fold(chain)
    features = torch.randn(2, 4, *size)
    torch.testing.assert_close(chain(features), conv(features).relu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    detector = Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat", "dog"), size=(96, 96))
    segmenter = Segmenter(MobileNetV2(width_mult=0.35, output_stride=16), DeepLabV3, ("background", "cat"), size=(65, 65))
    for model in (detector, segmenter):
        settle(model)
        images = torch.randint(0, 256, (1, 3, *model.size), dtype=torch.uint8)
        with torch.no_grad():
            plain = model(images)
            half = model.optimize(dtype)(images)
        for one, two in zip(plain[:2], half[:2], strict=True):
            assert two.dtype == dtype
            assert float((one - two).norm() / one.norm()) < 0.05
    found = detector.predict(images[0].permute(1, 2, 0).numpy())
    assert found.boxes.dtype == torch.float32
    assert segmenter.predict(images[0].permute(1, 2, 0).numpy()).shape == (65, 65)
