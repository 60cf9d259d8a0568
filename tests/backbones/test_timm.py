"""Networks of timm keep the contract of backbones and compute what timm computes."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from backbones import Backbone, Tap, TimmBackbone
from heads import SSDLite
from tests.backbones.contract import BackboneContract, outputs, randomise

# One of each family; the first is quick.
DILATABLE = (
    *("lcnet_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "tf_efficientnet_lite0", "ghostnet_100"),
    *("repvit_m0_9", "fastvit_t8", "mobileone_s0", "resnet18", "mnasnet_small", "ghostnetv2_100"),
)
# Convolutions of even kernels, or average pooling, halve the resolution of these.
STRIDED = ("convnext_atto", "resnet10t", "edgenext_xx_small")


class OfTimm(BackboneContract):
    def build(self, **arguments: Any) -> Backbone:
        return TimmBackbone(self.name, **arguments)


class TestLCNet(OfTimm):
    name = DILATABLE[0]


@pytest.mark.slow
class TestDilatable(OfTimm):
    @pytest.fixture(autouse=True, params=DILATABLE[1:])
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


@pytest.mark.slow
class TestStrided(OfTimm):
    output_strides: ClassVar[tuple[int, ...]] = ()

    @pytest.fixture(autouse=True, params=STRIDED)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


def test_taps_of_mobilenetv3_large() -> None:
    # MobileNetV3's table 1; SSDLite's C4 is the expansion of bneck 13 (section 6.3).
    assert TimmBackbone("mobilenetv3_large_100").taps == {
        "blocks.0": Tap(16, 2),
        "blocks.1.0.bn1": Tap(64, 2, block=False),
        "blocks.1": Tap(24, 4),
        "blocks.2.0.bn1": Tap(72, 4, block=False),
        "blocks.2": Tap(40, 8),
        "blocks.3.0.bn1": Tap(240, 8, block=False),
        "blocks.4": Tap(112, 16),
        "blocks.5.0.bn1": Tap(672, 16, block=False),
        "blocks.6": Tap(960, 32),
    }


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "ghostnet_100"])
@torch.no_grad()
def test_equals_timms_own_features(name: str) -> None:
    theirs = timm.create_model(name, features_only=True).eval()
    randomise(theirs)
    ours = TimmBackbone(name)
    ours.network.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96)
    found = outputs(ours, images)
    for name, features in zip(theirs.feature_info.module_name(), theirs(images), strict=True):
        assert torch.equal(found[name], features)


@torch.no_grad()
def test_expansion_is_what_the_depthwise_convolution_of_stride_2_reads() -> None:
    ours = TimmBackbone("mobilenetv3_small_050").eval()
    randomise(ours)
    images = torch.randn(1, 3, 64, 64)
    found = ours(images)
    block: Any = ours.network.get_submodule("blocks.4.0")
    assert block.conv_dw.stride == (2, 2)
    torch.testing.assert_close(found["blocks.4.0.bn1"], block.bn1(block.conv_pw(found["blocks.3"])))


@pytest.mark.parametrize("name", ["mobilenetv2_035", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_dilation_equals_timms(name: str, output_stride: int) -> None:
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride).eval()
    randomise(theirs)
    ours = TimmBackbone(name, output_stride=output_stride)
    ours.network.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 97, 65)
    found = outputs(ours, images)
    for name, features in zip(theirs.feature_info.module_name(), theirs(images), strict=True):
        torch.testing.assert_close(found[name], features, rtol=1e-4, atol=1e-4)


def test_maps_with_channels_last_are_turned() -> None:
    swin = TimmBackbone("swinv2_cr_tiny_ns_224", settings={"strict_img_size": False, "window_size": 2, "depths": [1, 1, 1, 1]})
    assert list(swin.taps.values()) == [Tap(96, 4), Tap(192, 8), Tap(384, 16), Tap(768, 32)]


def test_sizes_that_timm_rounds_down_are_filled_up() -> None:
    backbone = TimmBackbone("convnext_atto").eval()
    assert backbone.multiple == 32
    filled = torch.zeros(1, 3, 64, 64)
    filled[..., :33, :50] = images = torch.randn(1, 3, 33, 50)
    found, expected = outputs(backbone, images), outputs(backbone, filled)
    for name, (_, stride, _) in backbone.taps.items():
        torch.testing.assert_close(found[name], expected[name][..., : -(-33 // stride), : -(-50 // stride)])


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_loads_a_file_of_timms_names(name: str, prefix: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name).eval()
    randomise(theirs)
    path = tmp_path / "weights.safetensors"
    save_file({prefix + key: value for key, value in theirs.state_dict().items()}, path)
    ours = TimmBackbone(name, weights=str(path))
    images = torch.randn(1, 3, 64, 64)
    last = outputs(ours, images)[list(ours.taps)[-1]]
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, intermediates_only=True)[-1]
    torch.testing.assert_close(last, expected)
    assert ours.expects == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert TimmBackbone(name).expects is None


def test_loads_a_checkpoint_of_a_run(tmp_path: Path) -> None:
    trained = TimmBackbone("lcnet_050")
    randomise(trained)
    trained.keep(["blocks.5"])
    state = {f"model.backbone.{name}": value for name, value in trained.state_dict().items()} | {"model.head.linear.bias": torch.zeros(3)}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    images = torch.randn(1, 3, 64, 64)
    loaded = TimmBackbone("lcnet_050", weights=str(tmp_path / "run.ckpt"))
    assert torch.equal(outputs(loaded, images)["blocks.5"], outputs(trained, images)["blocks.5"])


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("mobilenetv3_small_075").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors: \d+ of \d+ tensors do not fit: .*wanted"):
        TimmBackbone("mobilenetv3_small_050", weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=r"nowhere.pth: no such weights file"):
        TimmBackbone("lcnet_050", weights="nowhere.pth")


def test_failed_download_names_the_network_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: nn.Module, **arguments: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nto load the files")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(
        ValueError, match=r"timm's lcnet_050 cannot be built .*couldn't connect to .*; give a local file as weights"
    ) as error:
        TimmBackbone("lcnet_050", pretrained=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilenetv3_smal_050"}, "timm has no network 'mobilenetv3_smal_050'; near ones are mobilenetv3_small_050"),
        ({"name": "lcnet_050", "settings": {"colour": 3}}, "timm's lcnet_050 cannot be built .*colour"),
        ({"name": "lcnet_050.nonsense", "pretrained": True}, "nonsense"),
        ({"name": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224 does not take images of 64 x 128 .*doesn't match"),
    ],
)
def test_errors_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TimmBackbone(**arguments)
    assert "\n" not in str(error.value)


def test_a_plain_vision_transformer_has_no_stride_32_for_ssdlite() -> None:
    settings = {"dynamic_img_size": True, "depth": 3, "embed_dim": 48, "num_heads": 3}
    backbone = TimmBackbone("vit_tiny_patch16_224", settings=settings)
    assert {tap.stride for tap in backbone.taps.values()} == {16}
    with pytest.raises(ValueError, match=r"SSDLite needs features of stride 16 and 32, and the backbone has none of stride 32"):
        SSDLite(backbone.taps, 3)
