"""Decoders of segmentation-models-pytorch on our taps, against that package's own models."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn
from torch.testing import assert_close

from backbones import MobileNetV2, Tap
from backbones.spec import describe, rebuild
from heads import SegmentationHead, SmpDecoder
from heads.smp import ARCHITECTURES

# Architecture, its coarsest stride, and settings that keep it small.
DECODERS: list[tuple[str, int, dict[str, Any]]] = [
    ("Unet", 32, {"decoder_channels": [32, 24, 16, 16, 8]}),
    ("UnetPlusPlus", 32, {"decoder_channels": [32, 24, 16, 16, 8]}),
    ("MAnet", 32, {"decoder_channels": [32, 24, 16, 16, 8], "decoder_pab_channels": 8}),
    ("Linknet", 32, {}),
    ("FPN", 32, {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 64}),
    ("PSPNet", 32, {"psp_out_channels": 32}),
    ("DeepLabV3", 16, {"decoder_channels": 16}),
    ("DeepLabV3", 8, {"decoder_channels": 16}),
    ("DeepLabV3Plus", 16, {"decoder_channels": 16}),
    ("DeepLabV3Plus", 8, {"decoder_channels": 16}),
    ("PAN", 32, {"decoder_channels": 16}),
    ("PAN", 16, {"decoder_channels": 16}),
    ("UPerNet", 32, {"decoder_channels": 16}),
    ("Segformer", 32, {"decoder_segmentation_channels": 16}),
]
# Taps that are offered in vain.
UNREAD = {
    "FPN": {"stride2"},
    "PAN": {"stride2"},
    "UPerNet": {"stride2"},
    "PSPNet": {"stride2", "stride4", "stride8", "stride16"},
    "DeepLabV3": {"stride2", "stride4"},
    "DeepLabV3Plus": {"stride2"},
}
NAMES = [f"{architecture}{stride}" for architecture, stride, _ in DECODERS]
every_decoder = pytest.mark.parametrize(("architecture", "stride", "settings"), DECODERS, ids=NAMES)


def taps_to(coarsest: int, finest: int = 2) -> dict[str, Tap]:
    return {f"stride{s}": Tap(48, s) for s in (2, 4, 8, 16, 32) if finest <= s <= coarsest}


def small_decoder(architecture: str, stride: int, settings: dict[str, Any], finest: int = 2, **kwargs: Any) -> SmpDecoder:
    taps, fitting = taps_to(stride, finest), dict(settings)
    if isinstance(channels := settings.get("decoder_channels"), list):
        fitting["decoder_channels"] = channels[: stride.bit_length() - 1]
    return SmpDecoder(taps, 3, architecture, fitting, **kwargs)


def features(head: SegmentationHead, size: tuple[int, int], batch: int = 2) -> dict[str, Tensor]:
    return {n: torch.randn(batch, t.channels, -(-size[0] // t.stride), -(-size[1] // t.stride)) for n, t in head.taps.items()}


def test_every_architecture_is_tested() -> None:
    assert {architecture for architecture, _, _ in DECODERS} == set(ARCHITECTURES)


def test_every_architecture_of_the_package_is_known_except_the_one_for_transformers() -> None:
    assert {cls.__name__ for cls in smp._MODEL_ARCHITECTURES} - set(ARCHITECTURES) == {"DPT"}


@every_decoder
@pytest.mark.parametrize("size", [(97, 33), (64, 64), (16, 16), (5, 3)])
@pytest.mark.parametrize("align_corners", [False, True])
@torch.no_grad()
def test_any_input_size(architecture: str, stride: int, settings: dict[str, Any], size: tuple[int, int], align_corners: bool) -> None:
    head = small_decoder(architecture, stride, settings, align_corners=align_corners).eval()
    logits = head(features(head, size), size)
    assert logits.shape[:2] == (2, 3)
    assert logits.isfinite().all()
    assert head.upsample(logits, size).shape == (2, 3, *size)


@every_decoder
def test_gradients_reach_every_parameter(architecture: str, stride: int, settings: dict[str, Any]) -> None:
    # In evaluation mode, because batch norms in training have no gradient for biases that come before them.
    head = small_decoder(architecture, stride, settings).eval()
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, 0.1)  # keeps ReLUs of a single channel alive
    seen = {name: tensor.requires_grad_() for name, tensor in features(head, (97, 33)).items()}
    head(seen, (97, 33)).square().mean().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    read = {name for name, tensor in seen.items() if tensor.grad is not None}
    between = {"stride8"} if stride == 16 and architecture.startswith("DeepLab") else set()
    assert read == set(seen) - UNREAD.get(architecture, set()) - between


@every_decoder
def test_one_image_of_one_cell_trains(architecture: str, stride: int, settings: dict[str, Any]) -> None:
    head = small_decoder(architecture, stride, settings)
    logits = head(features(head, (16, 16), batch=1), (16, 16))
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(buffer.isfinite().all() for buffer in head.buffers())


# What makes smp's models as deep as our taps and lets them return all pixels.
DEPTHS: dict[str, dict[str, Any]] = {"PSPNet": {"encoder_depth": 5, "upsampling": 32}}
DILATED = ("DeepLabV3", "DeepLabV3Plus", "PAN")


# At output stride 16, smp's PAN reads two maps of stride 16, ours the last one only.
@pytest.mark.parametrize(("architecture", "stride", "settings"), [d for d in DECODERS if d[:2] != ("PAN", 16)])
@torch.no_grad()
def test_equals_the_original(architecture: str, stride: int, settings: dict[str, Any]) -> None:
    size = (256, 320) if architecture == "PAN" else (64, 96)
    arguments = settings | DEPTHS.get(architecture, {}) | ({"encoder_output_stride": stride} if architecture in DILATED else {})
    theirs = getattr(smp, architecture)(encoder_name="mobilenet_v2", encoder_weights=None, classes=3, **arguments).eval()
    images = torch.randn(2, 3, *size)
    seen = {f"map{k}": tensor for k, tensor in enumerate(theirs.encoder(images)[1:])}
    taps = {name: Tap(tensor.shape[1], size[0] // tensor.shape[2]) for name, tensor in seen.items()}
    head = SmpDecoder(taps, 3, architecture, settings, align_corners=True).eval()
    head.decoder.load_state_dict(theirs.decoder.state_dict())
    head.segmentation_head.load_state_dict(theirs.segmentation_head.state_dict())
    assert_close(head.upsample(head(seen, size), size), theirs(images))


@torch.no_grad()
def test_padding_repeats_the_border() -> None:
    head = small_decoder(*DECODERS[1]).eval()
    seen, padded = features(head, (97, 33)), {}
    for name, tensor in seen.items():
        rows, columns = (torch.arange(n // head.taps[name].stride) for n in (128, 64))
        padded[name] = tensor[:, :, rows.clamp(max=tensor.shape[2] - 1)][..., columns.clamp(max=tensor.shape[3] - 1)]
    assert_close(head(seen, (97, 33)), head(padded, (128, 64))[:, :, :97, :33])


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("architecture", ["Unet", "PSPNet"])
@torch.no_grad()
def test_on_our_backbone(architecture: str, output_stride: int) -> None:
    backbone = MobileNetV2(["layer2", "layer4", "layer7", "layer14", "layer18"], width_mult=0.1, output_stride=output_stride).eval()
    head = SmpDecoder(backbone.taps, 21, architecture).eval()
    for size in [(97, 33), (65, 65)]:
        logits = head(backbone(torch.randn(1, 3, *size)), size)
        assert head.upsample(logits, size).shape == (1, 21, *size)


@torch.no_grad()
def test_logits_keep_the_resolution_of_the_decoder_where_nothing_is_padded() -> None:
    strides = {"FPN": 4, "PSPNet": 32, "DeepLabV3": 16, "DeepLabV3Plus": 4, "PAN": 4, "UPerNet": 4, "Segformer": 4}
    for architecture, stride, settings in DECODERS:
        head = small_decoder(architecture, stride, settings).eval()
        cells = 256 // (8 if (architecture, stride) == ("DeepLabV3", 8) else strides.get(architecture, 1))
        assert head(features(head, (256, 256), batch=1), (256, 256)).shape == (1, 3, cells, cells)


def test_of_equal_strides_the_last_tap_is_used() -> None:
    head = SmpDecoder({"a": Tap(8, 4), "b": Tap(8, 8), "c": Tap(16, 16), "d": Tap(32, 16)}, 3, "UPerNet", {"decoder_channels": 8})
    assert head.levels == {1: None, 2: None, 4: "a", 8: "b", 16: "d"}


def test_default_channels_follow_the_strides() -> None:
    for stride, channels in [(32, [256, 128, 64, 32, 16]), (16, [128, 64, 32, 16]), (8, [64, 32, 16])]:
        head = SmpDecoder(taps_to(stride), 3)
        assert [block.conv2[0].out_channels for block in head.decoder.blocks] == channels


@pytest.mark.parametrize("architecture", ["Unet", "MAnet", "Segformer", "FPN", "PAN", "UPerNet", "PSPNet"])
@torch.no_grad()
def test_features_of_stride_2_are_not_needed(architecture: str) -> None:
    (settings,) = (settings for name, stride, settings in DECODERS if (name, stride) == (architecture, 32))
    head = small_decoder(architecture, 32, settings, finest=4).eval()
    assert head.upsample(head(features(head, (97, 33)), (97, 33)), (97, 33)).shape == (2, 3, 97, 33)


@torch.no_grad()
def test_deeplab_needs_only_what_it_reads() -> None:
    for architecture, taps in [("DeepLabV3", ["layer18"]), ("DeepLabV3Plus", ["layer4", "layer18"])]:
        backbone = MobileNetV2(taps, width_mult=0.1, output_stride=16).eval()
        head = SmpDecoder(backbone.taps, 3, architecture, {"decoder_channels": 8}).eval()
        assert head.upsample(head(backbone(torch.randn(1, 3, 97, 33)), (97, 33)), (97, 33)).shape == (1, 3, 97, 33)


def test_the_package_is_left_as_it_was() -> None:
    before = dict(encoders)
    SmpDecoder(taps_to(32), 3, "Linknet")
    with pytest.raises(ValueError, match="Attention"):
        SmpDecoder(taps_to(32), 3, "Unet", {"decoder_attention_type": "none of these"})
    assert encoders == before


def test_rebuilt_from_its_description() -> None:
    head = small_decoder("FPN", 32, {**DECODERS[4][2], "decoder_merge_policy": "cat"}, align_corners=True).eval()
    spec = describe(head, skip=["taps", "num_classes"])
    assert spec["init_args"]["settings"]["decoder_merge_policy"] == "cat"
    again = rebuild(spec, SegmentationHead, head.taps, head.num_classes).eval()
    again.load_state_dict(head.state_dict())
    seen = features(head, (97, 33))
    assert_close(again(seen, (97, 33)), head(seen, (97, 33)))


@torch.no_grad()
def test_bfloat16() -> None:
    for architecture, stride, settings in DECODERS:
        head = small_decoder(architecture, stride, settings)
        with torch.autocast("cpu", torch.bfloat16):
            logits = head({name: tensor.bfloat16() for name, tensor in features(head, (97, 33)).items()}, (97, 33))
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes 1 is not possible; accepted: 2 to 255"),
        ({"architecture": "DPT"}, "architecture 'DPT' is unknown; accepted: Unet, UnetPlusPlus, .*Segformer"),
        ({"architecture": "unet"}, "architecture 'unet' is unknown; accepted: Unet"),
        ({"taps": taps_to(32, finest=4), "architecture": "Linknet"}, "Linknet needs taps of strides 2 too; given: stride4 of stride 4, "),
        ({"taps": taps_to(32, finest=16)}, "Unet needs taps of strides 4, 8 too; given: stride16 of stride 16, stride32 of stride 32"),
        ({"taps": taps_to(8), "architecture": "FPN"}, "FPN needs taps of strides 1 too"),
        ({"taps": taps_to(4), "architecture": "UPerNet"}, "smp's UPerNet cannot be built on strides up to 4: .*less than 3"),
        ({"architecture": "DeepLabV3Plus"}, "smp's DeepLabV3Plus cannot be built on strides up to 32: .*8 or 16, got 32"),
        ({"taps": {"a": Tap(8, 3)}}, "strides 3 are not possible; accepted: powers of two"),
        ({"settings": {"decoder_chanels": [1]}}, "settings decoder_chanels are unknown; accepted: .*decoder_channels"),
        ({"settings": {"encoder_name": "resnet18"}}, "settings encoder_name are unknown; accepted: decoder_use_norm"),
        ({"settings": {"decoder_channels": [8, 8]}}, "strides up to 32: Model depth is 5"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmpDecoder(**{"taps": taps_to(32), "num_classes": 3, **arguments})


def test_settings_of_another_kind_are_refused() -> None:
    taps = MobileNetV2(["layer2", "layer4", "layer7", "layer14", "layer18"], 0.35).taps
    with pytest.raises(ValueError, match="smp's Unet cannot be built"):
        SmpDecoder(taps, 3, "Unet", {"decoder_channels": 256})
