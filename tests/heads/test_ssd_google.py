"""SSDLite against Google's published detector."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.testing import assert_close

from backbones import MobileNetV2
from backbones.layers import Conv2d
from heads import SigmoidLoss, SSDLite


def google_layers() -> list[str]:
    """TensorFlow's names of all convolutions, in the order of ours."""
    body = "FeatureExtractor/MobilenetV2/"
    names = [f"{body}Conv", f"{body}expanded_conv/depthwise", f"{body}expanded_conv/project"]
    names += [f"{body}expanded_conv_{k}/{part}" for k in range(1, 17) for part in ("expand", "depthwise", "project")]
    names += [f"{body}Conv_1"]
    for k, channels in enumerate((512, 256, 256, 128), start=2):
        names += [f"{body}layer_19_1_Conv2d_{k}_1x1_{channels // 2}"]
        names += [f"{body}layer_19_2_Conv2d_{k}_3x3_s2_{channels}{part}" for part in ("_depthwise", "")]
    for part in ("BoxEncodingPredictor", "ClassPredictor"):
        names += [f"BoxPredictor_{k}/{part}{suffix}" for k in range(6) for suffix in ("_depthwise", "")]
    return names


@torch.no_grad()
def load_folded(modules: list[nn.Module], tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Fills convolutions with folded weights; batch norms become the addition of the folded biases."""
    names = iter(google_layers())
    for module in modules:
        if isinstance(module, Conv2d):
            name = next(names)
            weight, bias = (torch.from_numpy(tensors[f"{name}/{part}"]) for part in ("weights", "biases"))
            if name.endswith("BoxEncodingPredictor"):  # rows y x h w
                weight, bias = (t.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1) for t in (weight, bias))
            module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.copy_(bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
            module.bias.copy_(bias)
    assert next(names, None) is None


@pytest.mark.parametrize(("photo", "labels"), [("pets", {12}), ("bicycle", {2, 15})])
@torch.no_grad()
def test_googles_weights_give_the_reference_outputs(shared: Path, photo: str, labels: set[int]) -> None:
    folder = shared / "weights" / "coco"
    backbone = MobileNetV2(padding="same", bn_eps=1e-3).eval()
    head = SSDLite(backbone.taps, 20, padding="same", class_loss=SigmoidLoss()).eval()
    with np.load(folder / "ssdlite_mobilenet_v2_21of91_folded.npz") as tensors:
        load_folded([*backbone.modules(), *head.modules()], tensors)
    with np.load(folder / f"reference_raw_{photo}.npz") as reference:
        expected = {name: torch.from_numpy(reference[name]) for name in reference}
    predictions = head(backbone(expected["input_nchw"]), (300, 300))
    assert_close(predictions.class_logits[0], expected["class_logits21"], rtol=0, atol=2e-3)
    assert_close(predictions.box_deltas[0], expected["box_encodings_yxhw"][:, [1, 0, 3, 2]], rtol=0, atol=2e-3)
    # Two dogs, and people on bicycles; labels count VOC's classes in alphabetical order.
    (found,) = head.postprocess(predictions, torch.tensor([[300, 300]]))
    assert set(found.labels[found.scores > 0.5].tolist()) == labels
