"""Odd values for the flags of the default configs, through the tasks' own command lines up to the first training step."""

import contextlib
import importlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tasks.cli import TaskCLI
from tests.fuzz.fuzzer import Fuzzer
from tests.tasks.nursery import NAMES

TEXTS = [
    *(
        "",
        " ",
        "null",
        "true",
        "0",
        "1",
        "-1",
        "-0.5",
        "0.5",
        "1.5",
        "2",
        "7",
        "33",
        "1e-9",
        "1e9",
        "1e999",
        "nan",
        ".nan",
        ".inf",
        "-.inf",
    ),
    *("9" * 30, "9" * 400, "[]", "[[]]", "[0, 0]", "[1]", "[1, 1]", "[-1, 5]", "[.nan, .inf]", "[1, 2, 3]", "[0.1, -0.2, 0]", "[x, y]"),
    *("[layer3]", "[layer99, layer4]", "[null]", "{}", "{a: 1}", "[{}]", "{class_path: os.system}", "{class_path: 3}", "{init_args: {}}"),
    *(
        "os.system",
        "torch.optim.SGD",
        "torch.nn.ReLU",
        "heads.SSD",
        "heads.LRASPP",
        "backbones.MobileNetV1",
        "no.such.Class",
        "MobileNetV2",
    ),
    *(
        "x",
        "naïve 猫",
        "a\nb",
        "{",
        "]",
        "!!python/object:os.system",
        "&a [*a]",
        "1_0",
        "0x10",
        "1:30",
        "same",
        "paper",
        "%s",
        "last",
        "y" * 300,
    ),
]
# Of the trainer's own flags, those that the default configs use.
TRAINER = ("max_epochs", "check_val_every_n_epoch", "gradient_clip_val", "log_every_n_steps", "num_sanity_val_steps")
# Where files are written to.
LEFT_ALONE = ("name", "runs", "trainer", "data.root")


def flags_of(task: str) -> dict[str, Any]:
    """The flags of a task's command line with its default config, and their values."""

    def leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
        if key:
            yield key, value
        for name, inner in value.items() if isinstance(value, dict) else ():
            part = "" if name in ("class_path", "init_args") else name
            yield from leaves(inner, ".".join(filter(None, (key, part))))

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(f"tasks.{task}.__main__").main(["fit", "--print_config"])
    found = dict(leaves(yaml.safe_load(said.getvalue()), ""))
    return {key: value for key, value in found.items() if key not in LEFT_ALONE and (not key.startswith("trainer.") or key[8:] in TRAINER)}


def like(value: Any) -> SearchStrategy[str]:
    """Values of the kind that a flag takes, out of range and in it."""
    numbers = st.sampled_from((-1, 0, 0.0, 1, 2, 3, 0.5, -0.5, 1e-9, 1.5, 16, 33, 64, 1e6, 2**31, 2**63, 1e300, math.inf, math.nan))
    if isinstance(value, bool):
        return st.sampled_from(("true", "false", "1", "no"))
    if isinstance(value, int | float):
        return numbers.map(yaml_text)
    if isinstance(value, list):
        return st.lists(st.sampled_from([*value, "layer3"]) if value and isinstance(value[0], str) else numbers, max_size=4).map(yaml_text)
    return st.sampled_from(TEXTS)


def yaml_text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


@st.composite
def settings_of(draw: DrawFn, flags: dict[str, Any]) -> list[str]:
    """One or two flags of a command line."""
    chosen = draw(st.lists(st.sampled_from(sorted(flags)), min_size=1, max_size=2, unique=True))
    return [f"--{flag}={draw(like(flags[flag]) | like(flags[flag]) | st.sampled_from(TEXTS) | st.text(max_size=8))}" for flag in chosen]


def rehearse(cli: TaskCLI, subcommand: str) -> None:
    """Does what comes before the first step, without data."""
    model, data = cli.model, cli.datamodule
    pipeline = data.augmentation.compose(getattr(data, "crop_size", data.size))
    model.schedule.build(model.optimizer(list(model.parameters())), 10)
    assert model.model.describe()["class_names"] == list(data.class_names)
    if max(data.size) < 600:
        pixels = np.zeros((40, 60, 3), dtype=np.uint8)
        inputs = {
            "detect": {"bboxes": np.array([[1.0, 2, 30, 20]]), "labels": np.array([1])},
            "segment": {"mask": pixels[..., 0]},
            "classify": {},
        }
        pipeline(image=pixels, **inputs[cli.task])


def names_of(arg: str) -> tuple[str, ...]:
    """What a message may call a flag: by its name, by its value, or by what it is a part of."""
    flag, _, value = arg.removeprefix("--").partition("=")
    parts = (part.removesuffix("s") for part in flag.split("."))  # torch says "beta parameter" of betas
    return (*parts, *([value] if value else []), "the config")


@pytest.mark.parametrize("task", list(NAMES))
@pytest.mark.filterwarnings("ignore")  # the command line shows them
def test_flags(task: str, fuzz: Fuzzer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskCLI, "_run_subcommand", rehearse)
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"tasks.{task}.__main__").main

    def build(args: list[str]) -> None:
        said, code = io.StringIO(), None
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                main(["fit", *args, "--trainer.logger=false", f"--runs={tmp_path}"])
            except SystemExit as stopped:
                code = stopped.code
        if code is not None:
            text = code if isinstance(code, str) else said.getvalue()
            assert isinstance(code, str) or code == 2
            assert "error: " in text
            assert "Traceback" not in text
            assert any(part in text for arg in args for part in names_of(arg)), text
            raise ValueError(code)

    fuzz(build, settings_of(flags_of(task)), quick=5, slow=250)
