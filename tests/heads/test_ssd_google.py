"""SSDLite against Google's published detector."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.testing import assert_close

from backbones import MobileNetV2
from backbones.tensorflow import body_scopes, load_folded
from heads import SigmoidLoss, SSDLite


def scopes() -> list[str]:
    """TensorFlow's names of all convolutions, in the order of ours."""
    names = body_scopes(19)
    for k, channels in enumerate((512, 256, 256, 128), start=2):
        names += [f"MobilenetV2/layer_19_1_Conv2d_{k}_1x1_{channels // 2}"]
        names += [f"MobilenetV2/layer_19_2_Conv2d_{k}_3x3_s2_{channels}{part}" for part in ("_depthwise", "")]
    names = [f"FeatureExtractor/{name}" for name in names]
    for part in ("BoxEncodingPredictor", "ClassPredictor"):
        names += [f"BoxPredictor_{k}/{part}{suffix}" for k in range(6) for suffix in ("_depthwise", "")]
    return names


def reordered(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turns the rows y x h w of box predictors into x y w h."""
    if "BoxEncodingPredictor/" not in name:
        return array
    return array.reshape(-1, 4, *array.shape[1:])[:, [1, 0, 3, 2]].reshape(array.shape)


@pytest.mark.parametrize(("photo", "labels"), [("pets", {12}), ("bicycle", {2, 15})])
@torch.no_grad()
def test_googles_weights_give_the_reference_outputs(shared: Path, photo: str, labels: set[int]) -> None:
    folder = shared / "weights" / "coco"
    backbone = MobileNetV2(padding="same", bn_eps=1e-3).eval()
    head = SSDLite(backbone.taps, 20, padding="same", class_loss=SigmoidLoss()).eval()
    with np.load(folder / "ssdlite_mobilenet_v2_21of91_folded.npz") as tensors:
        ours = {name: reordered(name, tensors[name]) for name in tensors}
    load_folded([*backbone.modules(), *head.modules()], scopes(), ours, "google")
    with np.load(folder / f"reference_raw_{photo}.npz") as reference:
        expected = {name: torch.from_numpy(reference[name]) for name in reference}
    predictions = head(backbone(expected["input_nchw"]), (300, 300))
    assert_close(predictions.class_logits[0], expected["class_logits21"], rtol=0, atol=2e-3)
    assert_close(predictions.box_deltas[0], expected["box_encodings_yxhw"][:, [1, 0, 3, 2]], rtol=0, atol=2e-3)
    # Two dogs, and people on bicycles; labels count VOC's classes in alphabetical order.
    (found,) = head.postprocess(predictions, torch.tensor([[300, 300]]))
    assert set(found.labels[found.scores > 0.5].tolist()) == labels
