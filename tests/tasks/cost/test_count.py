"""Counting: parts, layers, memory, and what the flop counter cannot see."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones import MobileNetV2
from heads import LRASPP, SSD, ClassifierHead, DeepLabV3, SSDLite
from tasks.classify.model import Classifier
from tasks.cost.count import evaluation_multiply_adds, looks, parts, trace
from tasks.cost.memory import blocks, held, kilobytes, largest
from tasks.cost.tables import kind
from tasks.detect.model import Detector
from tasks.model import TaskModel
from tasks.segment.model import Segmenter


@pytest.fixture(autouse=True)
def _on_meta() -> Iterator[None]:
    """Builds without drawing weights, where a test does not say otherwise."""
    with torch.device("meta"):
        yield


NAMES = ["a", "b", "c"]


def detector(head: type[SSDLite] = SSDLite) -> Detector:
    return Detector(MobileNetV2(width_mult=0.35), head, NAMES, (96, 128)).eval()


def segmenter() -> Segmenter:
    backbone = MobileNetV2(["layer4", "layer14"], width_mult=0.35)
    return Segmenter(backbone, partial(DeepLabV3, decoder=True, channels=16), NAMES, (65, 49), scales=[0.5, 1.0, 1.5], flip=True).eval()


@pytest.mark.parametrize("build", [detector, partial(detector, SSD), segmenter], ids=["SSDLite", "SSD", "DeepLabV3"])
def test_parts_add_up_to_the_whole(build: Callable[[], TaskModel]) -> None:
    model = build()
    whole, *others = parts(trace(model, model.size))
    assert (whole.name, others[0].name) == ("whole", "backbone")
    assert whole.parameters == sum(p.numel() for p in model.parameters()) == sum(part.parameters for part in others)
    assert whole.statistics == sum(part.statistics for part in others)
    assert whole.multiply_adds == sum(part.multiply_adds for part in others)


def test_detectors_have_extra_and_prediction_layers() -> None:
    assert [part.name for part in parts(trace(detector(), (96, 96)))] == ["whole", "backbone", "extra layers", "prediction layers"]
    without = Detector(MobileNetV2(width_mult=0.35), partial(SSDLite, extra_channels=[]), NAMES)
    assert [part.name for part in parts(trace(without, (96, 96)))] == ["whole", "backbone", "prediction layers"]


def test_counts_equal_those_of_a_real_run() -> None:
    with torch.device("cpu"):
        model = detector()
    with torch.device("cpu"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 96, 128))
    assert trace(model, (96, 128)).multiply_adds[""] == counter.get_total_flops() / 2


def test_layers_are_in_order_and_have_all_multiply_adds() -> None:
    traced = trace(detector(), (96, 128))
    first = traced.layers[0]
    assert (first.name, first.input, first.output) == ("backbone.features.0.0", (3, 96, 128), (16, 48, 64))
    assert sum(layer.multiply_adds for layer in traced.layers) == traced.multiply_adds[""]
    assert traced.layers[-1].name.startswith("head.class_layers.5")


def test_model_is_left_as_it_was() -> None:
    with torch.device("cpu"):
        model = detector()
    for _ in range(2):
        trace(model, (96, 96))
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    on_meta = detector()
    assert trace(on_meta, (96, 96)).model is on_meta
    assert not any(module._forward_hooks for module in on_meta.modules())


def test_what_is_not_counted_is_named() -> None:
    assert trace(detector(), (96, 96)).uncounted[:3] == ("normalisation of images", "batch norms", "ReLU6")
    gated = Segmenter(MobileNetV2(["layer7", "layer18"], 0.35), LRASPP, NAMES)
    assert {"sigmoid", "bilinear resizing", "average pooling", "multiplications by element"} <= set(trace(gated, (65, 65)).uncounted)


@pytest.mark.parametrize("size", [(0, 96), (96, -1), (96,)])
def test_impossible_sizes_are_one_sentence(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^size \[.*\] is not possible; accepted: a height and a width of at least 1$"):
        trace(detector(), size)


def test_looks_are_those_of_the_segmenter() -> None:
    with torch.device("cpu"):
        model = segmenter()
    assert looks(model, model.size) == [(33, 25), (33, 25), (65, 49), (65, 49), (97, 73), (97, 73)]
    with torch.device("cpu"), FlopCounterMode(display=False) as counter:
        model.segment([torch.zeros(3, 65, 49, dtype=torch.uint8)])
    assert evaluation_multiply_adds(model, model.size) == counter.get_total_flops() / 2
    assert looks(detector(), (96, 128)) == [(96, 128)]


def test_held_are_taps_and_what_is_outside_of_blocks() -> None:
    found = held(trace(Detector(MobileNetV2(), partial(SSDLite, extra_channels=[64]), NAMES), (64, 128)))
    # Stem, blocks, the expansion that is a tap, the last layer, the extra layer's result.
    assert found == {(32, 64): 32, (16, 32): 24, (8, 16): 32, (4, 8): 576, (2, 4): 1280, (1, 2): 64}
    assert largest(found) == kilobytes(32, (32, 64)) == 32 * 32 * 64 * 2 / 1000


def test_concatenated_features_are_held() -> None:
    backbone = MobileNetV2(["layer4", "layer14"])
    traced = trace(Segmenter(backbone, partial(DeepLabV3, decoder=True, channels=64), NAMES), (65, 65))
    assert held(traced)[17, 17] == 64 + 48
    assert held(traced)[5, 5] == 128


def test_block_that_a_tap_cuts_off_is_none() -> None:
    traced = trace(Classifier(MobileNetV2(["layer15_expand"]), ClassifierHead, NAMES), (64, 64))
    assert len(blocks(traced)) == 13
    assert held(traced)[4, 4] == 576


def test_kinds_of_layers() -> None:
    layers = trace(Classifier(MobileNetV2(["layer18"], 0.35, 8, "same"), ClassifierHead, NAMES), (64, 64)).layers
    kinds = list(dict.fromkeys(kind(layer.module) for layer in layers))
    assert kinds == [
        *("conv 3x3 /2 same", "batch norm", "ReLU6", "depthwise 3x3", "conv 1x1", "depthwise 3x3 /2 same", "depthwise 3x3 rate 2"),
        *("depthwise 3x3 rate 4", "Dropout", "linear"),
    ]
