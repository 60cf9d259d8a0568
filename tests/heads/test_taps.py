"""Which taps heads take where the backbone was not told which."""

from typing import Any

import pytest

from backbones import MobileNetV2, Offer, Tap
from heads import LRASPP, SSD, ClassifierHead, DeepLabV3, SmpDecoder, SSDLite

NO_STRIDE_32 = Offer({"fine": Tap(8, 4), "coarse": Tap(16, 16)})


def decoder(taps: dict[str, Tap], num_classes: int) -> DeepLabV3:
    return DeepLabV3(taps, num_classes, decoder=True)


@pytest.mark.parametrize(
    ("head", "output_stride", "expected"),
    [
        (SSDLite, 32, ["layer15_expand", "layer19"]),  # paper, section 6.2
        (SSD, 32, ["layer15_expand", "layer19"]),
        (DeepLabV3, 16, ["layer18"]),  # paper, section 6.3
        (DeepLabV3, 32, ["layer18"]),
        (decoder, 16, ["layer4", "layer18"]),
        (decoder, 8, ["layer4", "layer18"]),
        (LRASPP, 16, ["layer7", "layer18"]),
        (SmpDecoder, 32, ["layer4", "layer7", "layer14", "layer18"]),
        (ClassifierHead, 32, ["layer19"]),
    ],
)
def test_heads_choose_from_mobilenet_v2_what_their_papers_do(head: Any, output_stride: int, expected: list[str]) -> None:
    taps = head(MobileNetV2(width_mult=0.35, output_stride=output_stride).taps, 3).taps
    assert [name for name in taps if taps[name].stride > 2] == expected


@pytest.mark.parametrize("names", [["layer4"], ["layer8_expand", "layer15_expand", "layer19"], ["layer14", "layer15_expand", "layer15"]])
def test_ssdlite_takes_all_taps_that_the_backbone_was_told(names: list[str]) -> None:
    assert list(SSDLite(MobileNetV2(names).taps, 3).taps) == names


def test_deeplab_takes_the_last_tap_that_the_backbone_was_told() -> None:
    assert DeepLabV3(MobileNetV2(["layer4", "layer19"]).taps, 3).tap == "layer19"


def test_an_offer_without_blocks_still_serves_deeplab() -> None:
    assert DeepLabV3(Offer({"a": Tap(8, 8, block=False), "b": Tap(8, 16, block=False)}), 3).tap == "b"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (SSDLite, "SSDLite needs features of stride 16 and 32, and the backbone has none of stride 32; it has fine of stride 4, coarse of"),
        (SSD, "SSD needs features of stride 16 and 32"),
        (LRASPP, "LRASPP needs a fine and a coarse tap, such as layer7 and layer18; given: fine of stride 4, coarse of stride 16"),
    ],
)
def test_a_missing_stride_is_named(head: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(NO_STRIDE_32, 3)
