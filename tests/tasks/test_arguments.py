"""Looking at command lines before they are parsed."""

from pathlib import Path

import pytest

from tasks.arguments import reason_of, reset_backbone, value_of

CONFIG = """
model:
  backbone:
    class_path: backbones.MobileNetV2
    init_args: {taps: [layer18], output_stride: 16, width_mult: 0.5, weights: imagenet, frozen_layers: 4}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("args", [["--a", "1"], ["--a=1"], ["--b", "--a=1", "--c"]])
def test_value_of(args: list[str]) -> None:
    assert value_of(args, "--a") == "1"
    assert value_of(args, "--d") is None


@pytest.mark.parametrize("named", ["--model.backbone=backbones.MobileNetV1", "--model.backbone.class_path=MobileNetV1"])
def test_another_backbone_keeps_the_output_stride_alone(named: str, config: Path) -> None:
    names = {"taps": "null", "width_mult": "1.0", "weights": "null", "frozen_layers": "0"}
    assert reset_backbone([named], config) == [f"--model.backbone.{name}={value}" for name, value in names.items()]


@pytest.mark.parametrize("way", ["", "init_args."])
def test_what_is_given_stays(way: str, config: Path) -> None:
    args = ["--model.backbone", "MobileNetV1", f"--model.backbone.{way}taps=[layer14]"]
    assert not any("taps" in arg for arg in reset_backbone(args, config))


@pytest.mark.parametrize(
    "args",
    [["fit"], ["--model.backbone=MobileNetV2"], ["--model.backbone", "backbones.MobileNetV2"], ["--model.backbone", '{"class_path": "X"}']],
)
def test_the_same_backbone_keeps_everything(args: list[str], config: Path) -> None:
    assert reset_backbone(args, config) == []


@pytest.mark.parametrize("named", ["nowhere.Net", "Unknown"])
def test_what_is_wrong_is_left_to_the_parser(named: str, config: Path, tmp_path: Path) -> None:
    assert reset_backbone([f"--model.backbone={named}"], config) == []
    assert reset_backbone(["--model.backbone=MobileNetV1"], tmp_path / "missing.yaml") == []


def test_reason_of_a_choice_of_types() -> None:
    text = """Does not validate against any of the Union subtypes
Subtypes: [typing.Literal['paper'], <class 'heads.anchors.AnchorRule'>, <class 'NoneType'>]
Errors:
  - Expected a typing.Literal['paper']
  - max_scale 0 of anchors is not possible
  - Expected a <class 'NoneType'>
Given value type: <class 'int'>"""
    assert reason_of(text) == "max_scale 0 of anchors is not possible"
    assert reason_of('usage: x\nerror: Parser key "a":\n  no such thing') == 'Parser key "a": no such thing'
