"""The classification head against torchvision's MobileNetV2."""

import pytest
import torch
import torchvision

from backbones import MobileNetV2
from backbones.base import Tap
from heads import ClassifierHead
from heads.classifier import LINEAR_STD

TAPS = {"fine": Tap(3, 8), "coarse": Tap(4, 32)}


@torch.no_grad()
def test_logits_equal_torchvisions_with_its_weights() -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=10).eval()
    for norm in (m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    backbone = MobileNetV2(["layer19"]).eval()
    head = ClassifierHead(backbone.taps, 10).eval()
    backbone.features.load_state_dict(theirs.features.state_dict())
    head.linear.load_state_dict(theirs.classifier[1].state_dict())
    images = torch.randn(2, 3, 96, 64)
    expected = theirs(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(head(backbone(images)), expected, rtol=1e-4, atol=1e-5)


def test_parameters_are_those_of_torchvision() -> None:
    backbone = MobileNetV2(["layer19"])
    head = ClassifierHead(backbone.taps, 1000)
    assert sum(p.numel() for part in (backbone, head) for p in part.parameters()) == 3_504_872


def test_the_last_tap_is_averaged_and_scored() -> None:
    head = ClassifierHead(TAPS, 2).eval()
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2.0]]))
        head.linear.bias.copy_(torch.tensor([0.5, 0.0]))
    features = {"fine": torch.full((1, 3, 8, 8), 9.0), "coarse": torch.arange(16.0).view(1, 4, 2, 2)}
    assert head(features).tolist() == [[1.5 + 0.5, 2 * 13.5]]


def test_features_are_dropped_in_training_only() -> None:
    head, features = ClassifierHead(TAPS, 3, dropout=0.5), {"coarse": torch.ones(1, 4, 1, 1)}
    assert not torch.equal(head.train()(features), head.eval()(features))
    assert torch.equal(head(features), head(features))


def test_new_weights_are_small_and_biases_zero() -> None:
    head = ClassifierHead({"layer19": Tap(1280, 32)}, 100)
    assert head.linear.weight.std().item() == pytest.approx(LINEAR_STD, rel=0.05)
    assert not head.linear.bias.any()


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(num_classes: int) -> None:
    with pytest.raises(ValueError, match=rf"num_classes {num_classes} is not possible; accepted: 2 or more"):
        ClassifierHead(TAPS, num_classes)
