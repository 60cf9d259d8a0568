"""From an experiment to flat configs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.swap.plan import Plan, make_plan, override
from tasks.swap.settings import Plain, Tasks, TaskSettings, read_plain

ROOT = Path(__file__).resolve().parents[3]
DETECT, SEGMENT = ROOT / "configs/detect/ssdlite_mobilenet_v2_shapes.yaml", ROOT / "configs/segment/deeplabv3_mobilenet_v2_shapes.yaml"
V1 = Plain({"name": "v1", "class_path": "backbones.MobileNetV1", "init_args": {"width_mult": 0.25}})


def tasks(**overrides: Any) -> Tasks:
    return Tasks(detect=TaskSettings(str(DETECT), Plain(overrides)), segment=TaskSettings(str(SEGMENT)))


def plan(chosen: Tasks | None = None, backbones: Any = ("backbones.MobileNetV2", V1), seeds: Any = (0, 1)) -> Plan:
    return make_plan("trial", chosen or tasks(), backbones, seeds, "runs")


def test_each_task_backbone_and_seed_runs_once_and_the_first_seed_comes_first() -> None:
    runs = plan().runs
    assert [run.key for run in runs[:4]] == ["detect_MobileNetV2_seed0", "detect_v1_seed0", "segment_MobileNetV2_seed0", "segment_v1_seed0"]
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert len({run.hash for run in runs}) == len(runs)


def test_backbone_is_replaced_as_a_whole_but_for_the_output_stride() -> None:
    run = plan().runs[3]
    assert run.config["model"]["backbone"] == {
        "class_path": "backbones.MobileNetV1",
        "init_args": {"width_mult": 0.25, "output_stride": 8},
    }
    assert "output_stride" not in plan().runs[1].config["model"]["backbone"]["init_args"]  # the detector's config says none
    told = Plain(V1.values | {"init_args": {"output_stride": 16}})
    assert plan(backbones=[told]).runs[1].config["model"]["backbone"]["init_args"] == {"output_stride": 16}


def test_bare_names_are_of_backbones() -> None:
    assert plan(backbones=["MobileNetV2"]).runs == plan(backbones=["backbones.MobileNetV2"]).runs


def test_overrides_with_odd_keys_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="overrides set model to 'x'; accepted: keys within it"):
        plan(tasks(model="x"))
    assert plan(Tasks(detect=TaskSettings(str(DETECT), Plain({1: 2})))).runs[0].config["1"] == 2  # which the task's parser refuses


def test_nothing_but_backbone_seed_and_name_differs_from_the_base() -> None:
    base, config = yaml.safe_load(SEGMENT.read_text()), plan().runs[6].config
    assert config["seed_everything"] == 1
    assert config["name"] == "MobileNetV2_seed1"
    for changed in ("name", "seed_everything"):
        base.pop(changed)
        config.pop(changed)
    base["model"].pop("backbone")
    config["model"].pop("backbone")
    assert config == base


def test_hash_changes_with_what_changes_results_and_with_nothing_else() -> None:
    base = plan().runs[0]
    assert plan(tasks(**{"trainer.max_epochs": 1})).runs[0].hash != base.hash
    assert plan(tasks(**{"trainer.max_epochs": 1})).runs[2].hash == plan().runs[2].hash
    renamed = Plain({"name": "other", "class_path": "backbones.MobileNetV2"})
    assert plan(backbones=[renamed]).runs[0].hash == base.hash
    assert make_plan("elsewhere", tasks(), ["backbones.MobileNetV2"], [0], "there").runs[0].hash == base.hash
    assert base._replace(config=dict(reversed(base.config.items()))).hash == base.hash


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("a.b", 2, {"a": {"b": 2, "c": 3}}),
        ("a", {"b": 2}, {"a": {"b": 2, "c": 3}}),
        ("a", {"class_path": "x"}, {"a": {"class_path": "x"}}),
        ("new.deep", 1, {"a": {"b": 1, "c": 3}, "new": {"deep": 1}}),
        ("a.b", None, {"a": {"b": None, "c": 3}}),
        ("a", {}, {"a": {}}),
    ],
)
def test_override(key: str, value: Any, expected: dict[str, Any]) -> None:
    config = {"a": {"b": 1, "c": 3}}
    override(config, key, value)
    assert config == expected


def test_init_args_may_be_left_out_of_a_key_as_on_the_command_line() -> None:
    config: dict[str, Any] = {"data": {"class_path": "x", "init_args": {"size": 1}}, "head": "y"}
    override(config, "data.size", 2)
    override(config, "data.init_args.other", 3)
    override(config, "head.channels", 4)
    assert config == {
        "data": {"class_path": "x", "init_args": {"size": 2, "other": 3}},
        "head": {"class_path": "y", "init_args": {"channels": 4}},
    }


def test_overrides_of_one_backbone_come_last() -> None:
    own = Plain({"class_path": "backbones.MobileNetV2", "overrides": {"model.optimizer.lr": 0.5}})
    made = plan(tasks(**{"model.optimizer.lr": 0.1}), backbones=[own, V1]).runs
    rates = [run.config["model"]["optimizer"]["init_args"]["lr"] for run in made[:3]]
    assert rates == [0.5, 0.1, 0.5]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    wrong = Tasks(
        detect=TaskSettings(str(SEGMENT)), segment=TaskSettings("nowhere.yaml"), classify=TaskSettings(str(ROOT / "pyproject.toml"))
    )
    backbones = ["backbones.Nothing", Plain({"class_path": "torch.nn.Conv2d"}), Plain({"class_path": "a", "nome": 1}), V1, V1]
    with pytest.raises(ValueError, match="accepted") as caught:
        make_plan("../up", wrong, backbones, [0, 0], "runs")
    said = str(caught.value).splitlines()
    for part in (
        *("name '../up'", "seeds [0, 0]", "is of another task", "nowhere.yaml: no such config", "cannot be read as YAML"),
        *("cannot import 'backbones.Nothing'", "is no Backbone", "'nome'", "v1 is given more than once"),
    ):
        assert sum(part in line for line in said) == 1, part


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="no task is chosen"):
        plan(Tasks())
    with pytest.raises(ValueError, match="no backbone is given"):
        plan(backbones=[])


def test_mappings_of_flags_are_read_in_one_piece() -> None:
    assert read_plain("{trainer.max_epochs: 2}").values == {"trainer.max_epochs": 2}
    with pytest.raises(ValueError, match="in one piece"):
        read_plain("3")
