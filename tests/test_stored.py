"""Numbers that do not move, and that small changes move; see `tests.stored`."""

import json
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.optim import SGD

from backbones import MobileNetV1, MobileNetV2
from heads import LRASPP, DeepLabV3, SoftmaxLoss, SSDLite
from tests.stored import CASES, FILE, Numbers, of_backbone, of_classification, of_detection, of_detection_head, of_segmentation_head

STORED: dict[str, Numbers] = json.loads(FILE.read_text())
# Of a tensor's mean size. One and two threads, with and without oneDNN, differ by up to a third of it.
TOLERANCE = 2e-4


def moved(name: str, numbers: Numbers) -> list[str]:
    """The tensors that are no longer as they were stored."""
    stored = STORED[name]
    assert numbers.keys() == stored.keys()
    found = []
    for key, values in numbers.items():
        new, old = torch.tensor(values, dtype=torch.float64), torch.tensor(stored[key], dtype=torch.float64)
        size = old.abs().clamp(min=old[1].abs()) if len(old) > 5 else old.abs()  # of a summary, the second is the mean size
        if new.shape != old.shape or not ((new - old).abs() <= TOLERANCE * size).all():
            found.append(key)
    return found


def test_every_case_is_stored() -> None:
    assert STORED.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_that_were_stored(name: str) -> None:
    assert moved(name, CASES[name]()) == []


DECODER = partial(DeepLabV3, atrous_rates=(6,), decoder=True, separable=True, channels=32)
TAPS = ["layer4", "layer15_expand", "layer18", "layer19"]
MUTATIONS: dict[str, tuple[str, Callable[[], Numbers]]] = {
    "epsilon of batch norms": ("MobileNetV2", partial(of_backbone, partial(MobileNetV2, TAPS, bn_eps=1e-4))),
    "padding": ("MobileNetV2", partial(of_backbone, partial(MobileNetV2, TAPS, padding="same"))),
    "rate of a dilation": ("MobileNetV1, same, 16", partial(of_backbone, partial(MobileNetV1, width_mult=0.25, padding="same"))),
    "weight of the boxes' loss": ("SSDLite", partial(of_detection_head, partial(SSDLite, box_weight=1.001))),
    "negatives of a match": ("SSDLite", partial(of_detection_head, partial(SSDLite, class_loss=SoftmaxLoss(negative_ratio=2.5)))),
    "overlap of a match": ("SSDLite", partial(of_detection_head, partial(SSDLite, iou_threshold=0.4))),
    "anchors": ("SSDLite", partial(of_detection_head, partial(SSDLite, anchors="torchvision"))),
    "corners": ("DeepLabV3, decoder", partial(of_segmentation_head, partial(DECODER, align_corners=True), "layer4", "layer14")),
    "epsilon in a head": ("LRASPP", partial(of_segmentation_head, partial(LRASPP, bn_eps=1e-3), "layer7", "layer18")),
    "smoothing of labels": ("five steps of classification", partial(of_classification, 0.11)),
    "momentum": ("five steps of detection", partial(of_detection, optimizer=lambda params: SGD(params, 0.02, 0.8, weight_decay=4e-5))),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_small_changes_are_found(name: str) -> None:
    case, changed = MUTATIONS[name]
    assert moved(case, changed())


def test_numbers_that_are_none_are_found() -> None:
    changed = {name: [*values[:-1], float("nan")] for name, values in STORED["LRASPP"].items()}
    assert moved("LRASPP", changed) == ["logits"]
