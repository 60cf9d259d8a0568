"""Compiled training: the same weights within rounding, under the same names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.classify.__main__ import main as classify
from tasks.compiling import Compile
from tasks.detect.__main__ import main as detect
from tasks.segment.__main__ import main as segment
from tests.tasks.nursery import FLAGS, OWN, run_of

MAINS: dict[str, Callable[..., Any]] = {"detect": detect, "segment": segment, "classify": classify}


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^backend 'none' is unknown; accepted: .*inductor"):
        Compile(backend="none")


def test_machines_without_a_compiler_are_told(shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    flags = [*FLAGS, *OWN["classify"], f"--data.root={shapes_root}", f"--runs={tmp_path}", "--trainer.callbacks+=tasks.compiling.Compile"]
    with pytest.raises(SystemExit, match="needs a C\\+\\+ compiler, but there is no no-such-compiler"):
        classify(["fit", *flags])


@pytest.mark.slow
@pytest.mark.parametrize("task", MAINS)
@pytest.mark.filterwarnings("ignore")  # those of the compiler
def test_compiled_runs_end_as_others(task: str, shapes_root: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, *OWN[task], f"--data.root={shapes_root}", "--data.train_images=6", "--trainer.max_epochs=1"]
    flags += ["--model.head.dropout=0"] if task != "detect" else []  # compiled networks draw otherwise
    flags += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.01"]  # AdamW makes whole steps of gradients that are rounding
    MAINS[task](["fit", *flags, f"--runs={tmp_path / 'plain'}"])
    MAINS[task](["fit", *flags, f"--runs={tmp_path / 'compiled'}", "--trainer.callbacks+=tasks.compiling.Compile"])
    plain, compiled = (
        torch.load(run_of(tmp_path / name, task) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "compiled")
    )
    assert list(plain) == list(compiled)
    apart, size = (
        sum(float(value.double().square().sum()) ** 0.5 for value in values)
        for values in ([plain[name].double() - compiled[name] for name in plain], plain.values())
    )
    assert apart < 1e-3 * size  # detection picks hard negatives, of which rounding may pick others
