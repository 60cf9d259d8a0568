"""Descriptions of built objects, and rebuilding from them."""

import copy
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backbones import Backbone, MobileNetV2
from backbones.spec import Described, describe, rebuild
from heads import SSD, AnchorRule, DetectionHead, FocalLoss, SigmoidLoss, SoftmaxLoss, SSDLite, Suppression
from heads.multibox import ClassLoss


class CountingLoss(ClassLoss):
    """A loss without arguments, as a user would write one."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.sum() * 0 + (labels > 0).sum()

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()[..., 1:]


def described_head(head: DetectionHead) -> dict[str, Any]:
    """A head's description after a trip through JSON, which only plain values survive."""
    return json.loads(json.dumps(describe(head, skip=("taps", "num_classes"))))


def test_backbone_round_trip() -> None:
    built = MobileNetV2(["layer4", "layer7"], 0.35, output_stride=8, padding="same", bn_eps=1e-3, frozen_layers=2)
    spec = json.loads(json.dumps(describe(built)))
    twin = rebuild(spec, Backbone)
    assert type(twin) is MobileNetV2
    assert describe(twin) == spec
    twin.load_state_dict(built.state_dict())
    images = torch.randn(1, 3, 33, 33)
    assert torch.equal(twin.eval()(images)["layer7"], built.eval()(images)["layer7"])
    assert not any(parameter.requires_grad for parameter in twin.features[:2].parameters())


def test_defaults_are_recorded_and_weights_are_not() -> None:
    assert describe(MobileNetV2(["layer3"])) == {
        "class_path": "backbones.mobilenet_v2.MobileNetV2",
        "init_args": {
            "taps": ["layer3"],
            "width_mult": 1.0,
            "output_stride": 32,
            "padding": "symmetric",
            "bn_eps": 1e-5,
            "bn_momentum": 0.1,
            "weights": None,
            "strict_weights": True,
            "frozen_layers": 0,
            "freeze_bn": False,
        },
    }


def test_rebuilding_does_not_read_the_weights_file_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(MobileNetV2(["layer3"]).state_dict(), path)
    built = MobileNetV2(["layer3"], weights=str(path))
    path.unlink()
    assert rebuild(describe(built), Backbone).taps == built.taps


@pytest.mark.parametrize("cls", [SSD, SSDLite])
def test_head_round_trip_with_nested_arguments(cls: type[SSDLite]) -> None:
    taps = MobileNetV2(["layer4"]).taps
    rule, suppression = AnchorRule(scales=(0.1, 0.4), ratios=(1.0, 2.0), interpolated="none"), Suppression(max_per_class=7)
    built = cls(taps, 3, extra_channels=(32,), anchors=rule, class_loss=FocalLoss(alpha=0.25), suppression=suppression)
    twin = rebuild(described_head(built), DetectionHead, taps, 3)
    assert type(twin) is cls
    assert isinstance(twin.class_loss, FocalLoss)
    assert (twin.class_loss.alpha, twin.class_loss.gamma) == (0.25, 2.0)
    assert twin.suppression == suppression
    assert isinstance(twin.anchor_rule, AnchorRule)
    assert twin.levels == built.levels
    assert described_head(twin) == described_head(built)
    twin.load_state_dict(built.state_dict())


def test_defaults_of_dataclass_arguments_are_recorded() -> None:
    args = described_head(SSDLite(MobileNetV2(["layer4"]).taps, 3))["init_args"]
    assert args["suppression"] == {"class_path": "heads.nms.Suppression", "init_args": asdict(Suppression())}
    assert args["anchors"] == "paper"
    assert {"taps", "num_classes"}.isdisjoint(args)


@pytest.mark.parametrize("loss", [SoftmaxLoss(negative_ratio=2.0, min_negatives=5), SigmoidLoss(4.0), FocalLoss(gamma=1.5), CountingLoss()])
def test_loss_round_trip(loss: ClassLoss) -> None:
    twin = rebuild(describe(loss), ClassLoss)
    assert type(twin) is type(loss)
    assert vars(twin) == vars(loss)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda built: pickle.loads(pickle.dumps(built))])
@pytest.mark.parametrize("built", [MobileNetV2(["layer3"], 0.35, bn_momentum=0.2), FocalLoss(gamma=1.0), AnchorRule(min_scale=0.1)])
def test_copies_keep_their_description(built: Described, duplicate: Any) -> None:
    assert describe(duplicate(built)) == describe(built)


def test_description_holds_only_what_a_safe_checkpoint_holds(tmp_path: Path) -> None:
    torch.save(describe(MobileNetV2(["layer3"], width_mult=np.float64(0.5), output_stride=32)), tmp_path / "spec.pt")
    assert torch.load(tmp_path / "spec.pt", weights_only=True)["init_args"]["width_mult"] == 0.5


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("torch.nn.Linear", "'torch.nn.Linear', which is not a Backbone"),
        ("os.system", "'os.system', which is not a Backbone"),
        ("heads.SSDLite", "not a Backbone"),
        ("nowhere.Net", "cannot import 'nowhere.Net'"),
        ("backbones.Nothing", "cannot import 'backbones.Nothing'"),
        ("MobileNetV2", "cannot import 'MobileNetV2'"),
    ],
)
def test_foreign_classes_are_refused(class_path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuild({"class_path": class_path, "init_args": {}}, Backbone)


def test_nested_foreign_classes_are_refused() -> None:
    nested = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}
    with pytest.raises(ValueError, match=r"torch\.nn\.Linear"):
        rebuild({"class_path": "heads.SSDLite", "init_args": {"class_loss": nested}}, DetectionHead, {}, 1)


@pytest.mark.parametrize("value", [torch.tensor(0.5), len, {1, 2}])
def test_arguments_that_are_not_plain_are_refused(value: Any) -> None:
    loss = FocalLoss(alpha=value)
    with pytest.raises(ValueError, match=r"FocalLoss\.alpha is a .*, which a checkpoint cannot hold"):
        describe(loss)


def test_unknown_arguments_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="output_strides"):
        MobileNetV2(output_strides=16)
