"""Networks of torchvision keep the contract of backbones and compute what torchvision computes."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from backbones import Backbone, MobileNetV2, Tap, TorchvisionBackbone
from heads import DeepLabV3, SSDLite
from tests.backbones.contract import BackboneContract, assert_equal, outputs, randomise

# One of each family.
DILATABLE = (
    "mobilenet_v3_small",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "resnet18",
    "mnasnet0_5",
    "efficientnet_b0",
    "mobilenet_v3_large",
)
# Convolutions of even kernels, or pooling, halve the resolution of these.
STRIDED = ("convnext_tiny", "densenet121")


class OfTorchvision(BackboneContract):
    def build(self, **arguments: Any) -> Backbone:
        return TorchvisionBackbone(self.name, **arguments)


@pytest.mark.slow
class TestDilatable(OfTorchvision):
    @pytest.fixture(autouse=True, params=DILATABLE)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


@pytest.mark.slow
class TestStrided(OfTorchvision):
    output_strides: ClassVar[tuple[int, ...]] = ()

    @pytest.fixture(autouse=True, params=STRIDED)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


def offered(name: str, **settings: Any) -> dict[str, Tap]:
    return {name: tap for name, tap in TorchvisionBackbone(name, settings=settings).taps.items() if tap.stride > 2}


def test_offers_stages_expansions_and_the_last_layer() -> None:
    assert offered("mobilenet_v2") == {
        "features.3": Tap(24, 4),
        "features.4.conv.0": Tap(144, 4, block=False),
        "features.6": Tap(32, 8),
        "features.7.conv.0": Tap(192, 8, block=False),
        "features.13": Tap(96, 16),
        "features.14.conv.0": Tap(576, 16, block=False),
        "features.17": Tap(320, 32),
        "features.18": Tap(1280, 32, block=False),
    }
    assert offered("shufflenet_v2_x0_5") == {
        "maxpool": Tap(24, 4),
        "stage2": Tap(48, 8),
        "stage3": Tap(96, 16),
        "stage4": Tap(192, 32),
        "conv5": Tap(1024, 32, block=False),
    }
    assert offered("resnet18") == {f"layer{n}": Tap(32 * 2**n, 2 * 2**n) for n in (1, 2, 3, 4)}


@torch.no_grad()
def test_ssdlite_gets_the_features_of_torchvisions_own_detector() -> None:
    theirs = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()
    # torchvision thins the last stage out for detection, hence reduced_tail.
    ours = TorchvisionBackbone("mobilenet_v3_large", settings={"reduced_tail": True}).eval()
    head = SSDLite(ours.taps, 3)
    ours.keep(head.taps)
    body = theirs.backbone.features
    ours.load_state_dict(dict(zip(ours.state_dict(), body.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 96, 96)
    found, first = ours(images), body[0](images)
    assert list(found) == ["features.13.block.0", "features.16"]
    assert torch.equal(found["features.13.block.0"], first)
    assert torch.equal(found["features.16"], body[1](first))


@torch.no_grad()
def test_equals_our_own_mobilenetv2() -> None:
    theirs, ours = TorchvisionBackbone("mobilenet_v2", settings={"width_mult": 0.35}), MobileNetV2(width_mult=0.35)
    randomise(theirs)
    ours.load_state_dict({name.removeprefix("network."): value for name, value in theirs.state_dict().items()})
    for build_head, taps in ((SSDLite, ("layer15_expand", "layer19")), (DeepLabV3, ("layer18",))):
        assert [ours.taps[name][:2] for name in taps] == [tap[:2] for tap in build_head(theirs.taps, 3).taps.values()]
    images = torch.randn(1, 3, 97, 65)
    found, expected = outputs(theirs, images), outputs(ours, images)
    torch.testing.assert_close(found["features.14.conv.0"], expected["layer15_expand"])
    torch.testing.assert_close(found["features.17"], expected["layer18"])
    torch.testing.assert_close(found["features.18"], expected["layer19"])


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_dilation_equals_torchvisions(output_stride: int) -> None:
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, output_stride < 16, True]).eval()
    randomise(theirs)
    ours = TorchvisionBackbone("resnet50", output_stride=output_stride)
    ours.network.load_state_dict(theirs.state_dict(), strict=False)
    images = torch.randn(1, 3, 97, 65)
    expected = create_feature_extractor(theirs, ["layer3", "layer4"])(images)
    found = outputs(ours, images)
    assert_equal({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize("name", ["mnasnet0_5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenet_v2", "resnet18"))])
@pytest.mark.parametrize("size", [pytest.param((64, 64), marks=pytest.mark.slow), (97, 65)])
@torch.no_grad()
def test_dense_features_contain_the_strided_ones(name: str, size: tuple[int, int]) -> None:
    strided = TorchvisionBackbone(name)
    randomise(strided)
    images = torch.randn(1, 3, *size)
    expected = outputs(strided, images)
    for output_stride in (16, 8):
        dense = TorchvisionBackbone(name, output_stride=output_stride)
        dense.load_state_dict(strided.state_dict())
        for tap, features in outputs(dense, images).items():
            step = max(strided.taps[tap].stride // output_stride, 1)
            torch.testing.assert_close(features[..., ::step, ::step], expected[tap], rtol=1e-4, atol=1e-4)


def test_any_layer_is_a_tap() -> None:
    backbone = TorchvisionBackbone("mobilenet_v2", ["features.5.conv.1", "features.5"])
    assert backbone.taps == {"features.5.conv.1": Tap(192, 8), "features.5": Tap(32, 8)}
    assert {name.split(".")[2] for name in backbone.state_dict()} == {"0", "1", "2", "3", "4", "5"}


def test_loads_files_of_torchvisions_names(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v2(width_mult=0.35).eval()
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = TorchvisionBackbone("mobilenet_v2", settings={"width_mult": 0.35}, weights=str(tmp_path / "weights.pth"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(outputs(ours, images)["features.18"], theirs.features(images))
    assert ours.expects == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ValueError, match=r"weights.pth: \d+ of \d+ tensors do not fit"):
        TorchvisionBackbone("mobilenet_v2", weights=str(tmp_path / "weights.pth"))


def test_failed_download_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"https://\S+mobilenet_v3_small\S+ cannot be downloaded \(no network\); give a local file"):
        TorchvisionBackbone("mobilenet_v3_small", weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilenet_v4"}, "torchvision has no network 'mobilenet_v4'; near ones are mobilenet_v"),
        ({"name": "fasterrcnn_resnet50_fpn"}, "torchvision has no network"),
        ({"name": "mobilenet_v3_small", "taps": ["features.13"]}, r"taps \['features.13'\] cannot be had; accepted: .*features.12"),
        ({"name": "mobilenet_v3_small", "taps": ["classifier.3"]}, r"classifier.3 \(1, 1000\); accepted: \(1, C, H, W\) maps of stride 2"),
        ({"name": "mobilenet_v2", "settings": {"colour": 3}}, "mobilenet_v2 cannot be built with settings .*colour"),
        (
            {"name": "mobilenet_v3_small", "weights": "IMAGENET1K_V7"},
            "weights .IMAGENET1K_V7. of mobilenet_v3_small are no local file; near ones are IMAGENET1K_V1",
        ),
        ({"name": "vit_b_16"}, "vit_b_16 does not take images of 64 x 128 pixels"),
        ({"name": "squeezenet1_1"}, "squeezenet1_1 has no layers that give"),
    ],
)
def test_errors_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TorchvisionBackbone(**arguments)
    assert "\n" not in str(error.value)
