"""Experiment files with odd values in them and damaged bytes, up to the plan of their runs."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tasks.cli import CONFIGS
from tasks.swap.__main__ import read_settings
from tasks.swap.plan import make_plan
from tests.fuzz.cases import damaged, odd_values, spoiled
from tests.fuzz.fuzzer import Fuzzer

EXPERIMENT: dict[str, Any] = {
    "name": "trial",
    "seeds": [0, 1],
    "backbones": [
        "MobileNetV2",
        {"name": "v1", "class_path": "backbones.MobileNetV1", "init_args": {"width_mult": 0.25}, "overrides": {"a.b": 1}},
    ],
    "tasks": {
        task: {"config": str(next((CONFIGS / task).glob("*_shapes.yaml"))), "overrides": {"trainer.max_epochs": 2, "data.size": [64, 64]}}
        for task in ("detect", "segment", "classify")
    },
}


def yaml_bytes(document: Any) -> bytes:
    """A document as the bytes of a YAML file."""
    return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")


@st.composite
def settings_files(draw: DrawFn) -> bytes:
    """Experiments with odd values."""
    return yaml_bytes(draw(spoiled(EXPERIMENT)))


@st.composite
def base_configs(draw: DrawFn) -> bytes:
    """Configs of a task with odd values."""
    return yaml_bytes(draw(spoiled(yaml.safe_load(Path(EXPERIMENT["tasks"]["detect"]["config"]).read_text()))))


def plan_of(file: Path) -> None:
    """Reads an experiment as the command does; of a list of faults, each is a sentence."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings = read_settings(["--config", str(file)])
    except SystemExit as stopped:
        assert "error: " in said.getvalue()
        raise ValueError(stopped.code) from None
    try:
        plan = make_plan(*(settings[key] for key in ("name", "tasks", "backbones", "seeds")), runs=file.parent)
    except ValueError as error:
        raise ValueError(one_of(str(error))) from error
    assert len({run.key for run in plan.runs}) == len(plan.runs) > 0
    assert all(len(run.hash) == 12 for run in plan.runs)


def one_of(text: str) -> str:
    """One line of those that say what is wrong; each must be one."""
    lines = text.splitlines()
    assert lines
    assert all(line.strip() for line in lines)
    return lines[0]


@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_experiments(kind: str, fuzz: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        plan_of(path)

    corpus = [b"", b"\xff\xfe", b"[" * 2000, b"a: &a [*a]", b"- 1", yaml_bytes(EXPERIMENT)]
    corpus.append(yaml_bytes(EXPERIMENT | {"tasks": EXPERIMENT["tasks"] | {"classify": None}}))
    fuzz(read, settings_files() if kind == "values" else damaged(yaml_bytes(EXPERIMENT)), corpus, quick=12, slow=400)


def test_base_configs(fuzz: Fuzzer, tmp_path: Path) -> None:
    base, path = tmp_path / "base.yaml", tmp_path / "experiment.yaml"
    path.write_bytes(yaml_bytes(EXPERIMENT | {"tasks": {"detect": {"config": str(base)}}}))

    def read(content: bytes) -> None:
        base.write_bytes(content)
        plan_of(path)

    corpus = [b"", b"\xff\xfe", b"[" * 2000, b"- 1", b"data: {class_path: tasks.detect.data.Voc}\nmodel: {backbone: x}"]
    fuzz(read, base_configs() | damaged(base_text()), corpus, quick=12, slow=400)


def base_text() -> bytes:
    """A config of a task."""
    return Path(EXPERIMENT["tasks"]["detect"]["config"]).read_bytes()


def test_overrides(fuzz: Fuzzer, tmp_path: Path) -> None:
    known = st.sampled_from(("model", "data", "model.backbone", "data.init_args", "", ".", "..", "a.b.c", "name", "model.head"))
    keys = known | st.text(max_size=5)

    def plan(overrides: dict[str, Any]) -> None:
        path = tmp_path / "experiment.yaml"
        tasks = {"detect": EXPERIMENT["tasks"]["detect"] | {"overrides": overrides}}
        path.write_bytes(yaml_bytes(EXPERIMENT | {"tasks": tasks}))
        plan_of(path)

    fuzz(plan, st.dictionaries(keys, odd_values(), max_size=3), [{}], quick=10, slow=400)
