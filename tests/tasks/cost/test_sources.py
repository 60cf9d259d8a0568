"""Models from configs and checkpoints."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from backbones import MobileNetV2
from heads import ClassifierHead, DeepLabV3, SSDLite
from tasks.classify.model import Classifier
from tasks.cli import CONFIGS
from tasks.cost.sources import MODULES, load
from tasks.detect.model import Detector
from tasks.segment.model import Segmenter

BACKBONE = {"class_path": "backbones.MobileNetV2", "init_args": {"width_mult": 0.35}}


def config(folder: Path, data: dict[str, Any], model: dict[str, Any] | None = None, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump({"data": data, "model": model or {"backbone": BACKBONE}}))
    return folder / name


@pytest.mark.parametrize("path", [path for task in MODULES for path in sorted((CONFIGS / task).glob("*.yaml"))], ids=lambda path: path.stem)
def test_every_shipped_config_is_built_without_data_and_weights(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = load(path)
    assert source.name == path.stem
    assert {parameter.device.type for parameter in source.model.parameters()} == {"meta"}
    assert not source.model.training
    written = yaml.safe_load(path.read_text())["data"]["init_args"].get("size")
    assert written is None or source.model.size == tuple(written)
    assert list(tmp_path.iterdir()) == []


def test_classes_are_those_of_the_data(tmp_path: Path) -> None:
    for name, count in (("detect.data.Voc", 20), ("detect.data.Shapes", 5), ("segment.data.Voc", 21), ("segment.data.Coco", 21)):
        source = load(config(tmp_path, {"class_path": f"tasks.{name}"}))
        assert (len(source.model.class_names), source.notes) == (count, ())
    source = load(config(tmp_path, {"class_path": "tasks.detect.data.Coco", "init_args": {"root": str(tmp_path), "download": True}}))
    assert len(source.model.class_names) == 80
    assert source.notes == ("80 classes are assumed, for the data is not there; --num_classes changes that",)


def test_classes_can_be_given(tmp_path: Path) -> None:
    path = config(tmp_path, {"class_path": "tasks.detect.data.Voc"})
    assert load(path, num_classes=7).model.head.num_classes == 7


def test_head_is_the_tasks_own_where_none_is_named(tmp_path: Path) -> None:
    assert type(load(config(tmp_path, {"class_path": "tasks.detect.data.Voc"})).model.head) is SSDLite
    backbone = BACKBONE | {"init_args": {"taps": ["layer18"]}}
    source = load(config(tmp_path, {"class_path": "tasks.segment.data.Voc"}, {"backbone": backbone, "flip": True}))
    assert type(source.model.head) is DeepLabV3
    assert source.model.flip


def test_config_of_a_run_is_named_after_the_run(tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    assert load(config(tmp_path / "my_run", {"class_path": "tasks.detect.data.Voc"}, name="config.yaml")).name == "my_run"


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_checkpoints_of_all_tasks(ending: str, tmp_path: Path) -> None:
    slim = partial(MobileNetV2, width_mult=0.35)
    built = (
        Detector(slim(), SSDLite, ["a", "b"], (96, 96)),
        Segmenter(slim(["layer18"]), DeepLabV3, ["a", "b"], (65, 65)),
        Classifier(slim(["layer19"]), ClassifierHead, ["a", "b"], (64, 64)),
    )
    for model in built:
        model.save(tmp_path / f"{model.kind}.{ending}")
        source = load(tmp_path / f"{model.kind}.{ending}")
        assert (source.name, type(source.model), source.model.size) == (model.kind, type(model), model.size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "cannot be read as YAML"),
        ("model: {}", "has no section data; accepted: configs such as"),
        ("- 1", "has no section data and no section model"),
        ("data: {class_path: my.Data}\nmodel: {}", "its data is of no known task; accepted: data of tasks.detect"),
        ("data: {class_path: tasks.detect.data.Nope}\nmodel: {}", "cannot be built: .*no attribute 'Nope'"),
        (
            "data: {class_path: tasks.detect.data.Voc}\nmodel: {backbone: {class_path: backbones.MobileNetV2}, nope: 1}",
            "cannot be built: .*nope",
        ),
        (
            "data: {class_path: tasks.detect.data.Voc}\nmodel: {backbone: {class_path: backbones.MobileNetV2, init_args: {nope: 1}}}",
            "cannot be built: Option 'nope' is not accepted",
        ),
        ("data: {class_path: tasks.classify.data.Torchvision, init_args: {name: SUN}}\nmodel: {}", "cannot be built: .*no data set 'SUN'"),
        (
            "data: {class_path: tasks.classify.data.Torchvision, init_args: {name: GTSRB, root: nowhere}}\n"
            "model: {backbone: {class_path: backbones.MobileNetV2}}",
            "its number of classes cannot be known without its data; give --num_classes",
        ),
    ],
    ids=["yaml", "data", "list", "task", "class", "key", "argument", "data set", "classes"],
)
def test_configs_that_cannot_be_used_are_one_sentence(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        load(tmp_path / "mine.yaml")
    assert "\n" not in str(raised.value)


def test_other_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml: no such config$"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match=r"absent\.ckpt: no such checkpoint or file of weights$"):
        load(tmp_path / "absent.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: holds no detector, segmenter, classifier; accepted: a run's checkpoint"):
        load(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="a checkpoint has its own classes; num_classes is for configs"):
        load(tmp_path / "other.ckpt", num_classes=3)
    with pytest.raises(ValueError, match="num_classes 0 is not possible; accepted: at least 1"):
        load(tmp_path / "other.yaml", num_classes=0)
