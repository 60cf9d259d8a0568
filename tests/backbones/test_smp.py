"""Encoders of segmentation-models-pytorch keep the contract of backbones and compute what smp computes."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import segmentation_models_pytorch as smp
import torch

from backbones import Backbone, SmpBackbone, Tap
from heads import SSDLite
from tests.backbones.contract import BackboneContract, outputs, randomise

# One of each family; without average pooling, which halves the resolution of others.
DILATABLE = ("mit_b0", "timm-mobilenetv3_small_minimal_100", "resnet18", "mobileone_s0", "tu-lcnet_050")
STRIDED = ("tu-convnext_atto", "densenet121", "efficientnet-b0")  # the last pads by fixed amounts


class OfSmp(BackboneContract):
    def build(self, **arguments: Any) -> Backbone:
        return SmpBackbone(self.name, **arguments)


@pytest.mark.slow
class TestDilatable(OfSmp):
    @pytest.fixture(autouse=True, params=DILATABLE)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


@pytest.mark.slow
class TestStrided(OfSmp):
    output_strides: ClassVar[tuple[int, ...]] = ()

    @pytest.fixture(autouse=True, params=STRIDED)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


def test_stages_without_channels_are_left_out() -> None:
    assert SmpBackbone("mit_b0").taps == {"stage2": Tap(32, 4), "stage3": Tap(64, 8), "stage4": Tap(160, 16), "stage5": Tap(256, 32)}
    assert list(SmpBackbone("mobilenet_v2").taps.values()) == [Tap(16, 2), Tap(24, 4), Tap(32, 8), Tap(96, 16), Tap(1280, 32)]


@torch.no_grad()
def test_equals_smps_own_features() -> None:
    theirs = smp.encoders.get_encoder("mobilenet_v2").eval()
    randomise(theirs)
    ours, dense = SmpBackbone("mobilenet_v2"), SmpBackbone("mobilenet_v2", output_stride=16)
    for backbone in (ours, dense):
        backbone.network.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 96)
    for found, features in zip(outputs(ours, images).values(), theirs(images)[1:], strict=True):
        assert torch.equal(found, features)
    # Dense features contain the strided ones; those of smp's own dilation do not.
    torch.testing.assert_close(outputs(dense, images)["stage5"][..., ::2, ::2], theirs(images)[5], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_takes_sizes_that_smp_refuses() -> None:
    backbone = SmpBackbone("efficientnet-b0").eval()  # whose padding is made for one size
    head = SSDLite(backbone.taps, 3)
    backbone.keep(head.taps)
    assert [tuple(features.shape) for features in backbone(torch.randn(1, 3, 97, 65)).values()] == [(1, 112, 7, 5), (1, 320, 4, 3)]


def test_loads_files_of_smps_names(tmp_path: Path) -> None:
    theirs = smp.encoders.get_encoder("mobilenet_v2").eval()
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = SmpBackbone("mobilenet_v2", weights=str(tmp_path / "weights.pth"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(outputs(ours, images)["stage5"], theirs(images)[-1])
    with pytest.raises(ValueError, match=r"weights.pth: \d+ of \d+ tensors do not fit"):
        SmpBackbone("resnet18", weights=str(tmp_path / "weights.pth"))


def test_failed_download_names_the_network_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", fail)
    with pytest.raises(
        ValueError, match=r"smp's mobilenet_v2 cannot be built .*no network; give a local file as weights instead of imagenet"
    ):
        SmpBackbone("mobilenet_v2", weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilenet_v3"}, "smp has no encoder 'mobilenet_v3'; near ones are mobilenet_v2"),
        ({"name": "tu-lcnet_05"}, "smp's tu-lcnet_05 cannot be built .*lcnet_05"),
        ({"name": "mobilenet_v2", "settings": {"depth": 9}}, "smp's mobilenet_v2 cannot be built with settings .*depth"),
        ({"name": "mobilenet_v2", "weights": "nowhere.pth"}, "nowhere.pth: no such weights file"),
    ],
)
def test_errors_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SmpBackbone(**arguments)
    assert "\n" not in str(error.value)
