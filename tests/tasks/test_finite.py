"""Steps that are not finite: injected NaN stops a run of each task with all its state as before, or is left out as if it had not been."""

import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tasks.finite
from tasks.classify.__main__ import main as classify
from tasks.cli import TaskCLI
from tasks.data import EpochSampler
from tasks.detect.__main__ import main as detect
from tasks.finite import StepGuard, all_finite, report
from tasks.module import TaskModule
from tasks.segment.__main__ import main as segment
from tests.tasks.nursery import FLAGS, MODULES, OWN, differences, run_of

MAINS = {"detect": detect, "segment": segment, "classify": classify}
PARTS = {"detect": r"classification \S+, localization \S+", "segment": r"pixel \S+", "classify": r"class \S+"}
SKIP = "--model.on_nan=skip"
# No step depends on how many came before it.
CONSTANT = [
    *("--model.schedule=tasks.optim.Exponential", "--model.schedule.end=1", "--model.schedule.warmup_steps=0"),
    *("--model.head.dropout=0", "--trainer.max_epochs=1"),
]


@pytest.fixture(autouse=True)
def _only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskCLI, "after_fit", lambda self: None)


Fit = Callable[..., None]


@pytest.fixture
def fit(shapes_root: Path, tmp_path: Path) -> Fit:
    def run(task: str, *flags: str, runs: Path = tmp_path) -> None:
        own = [flag for flag in OWN[task] if flag.partition("=")[0] not in {given.partition("=")[0] for given in flags}]
        MAINS[task](["fit", *FLAGS, *own, f"--data.root={shapes_root}", f"--runs={runs}", *flags])

    return run


def with_nan(images: Any) -> Any:
    """Images in 0..1 with NaN in them."""
    if isinstance(images, list):
        return [with_nan(images[0]), *(image.float() / 255 for image in images[1:])]
    pixels = images.float() / 255
    pixels[..., 0, 3] = torch.nan
    return pixels


class Fault:
    """Spoils the given steps of a task's training and keeps the state before the first of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, task: str, kind: str, *steps: int) -> None:
        self.kind, self.steps, self.seen, self.before = kind, steps, 0, None
        original = MODULES[task].losses

        def losses(module: TaskModule, batch: Any) -> dict[str, Tensor]:
            self.seen, self.module = self.seen + 1, module
            if self.seen not in self.steps:
                return original(module, batch)
            self.before = self.before or self.state()
            return getattr(self, kind)(lambda changed: original(module, changed), batch)

        monkeypatch.setattr(MODULES[task], "losses", losses)

    def input(self, losses: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        return losses(batch._replace(images=with_nan(batch.images)))

    def boxes(self, losses: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        return losses(batch._replace(targets=batch.targets._replace(boxes=batch.targets.boxes * torch.nan)))

    def infinite(self, losses: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        """A loss whose gradient is finite."""
        return {name: value + torch.inf for name, value in losses(batch).items()}

    def gradient(self, losses: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        found = losses(batch)
        next(iter(found.values())).register_hook(lambda gradient: gradient * torch.inf)
        return found

    def weight(self, losses: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        next(self.module.parameters()).data[0, 0, 0, 0] = torch.nan
        return losses(batch)

    def state(self) -> dict[str, Any]:
        """Everything that training changes."""
        trainer = self.module.trainer
        average = next(callback._average_model for callback in trainer.callbacks if hasattr(callback, "_average_model"))
        return copy.deepcopy({"model": self.module.state_dict(), "average": average.state_dict(), **trainer.optimizers[0].state_dict()})


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(value, two[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return torch.equal(one, two) if isinstance(one, Tensor) else bool(one == two)


def loaded(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, dict | list):
        return [found for part in (value.values() if isinstance(value, dict) else value) for found in tensors(part)]
    return [value] if isinstance(value, Tensor) and value.is_floating_point() else []


def stopped(fit: Fit, *args: str) -> str:
    """The one line by which a run ends with exit code 1."""
    with pytest.raises(SystemExit) as caught:
        fit(*args)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("detect", "input"),
        ("detect", "boxes"),
        ("segment", "input"),
        ("segment", "gradient"),
        ("classify", "input"),
        ("classify", "infinite"),
    ],
)
def test_stop_leaves_everything_as_it_was(task: str, kind: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fault = Fault(patch, task, kind, 10)
        message = stopped(fit, task)
    assert "at step 9 (" in message
    what = "the gradient of .* became infinite or nan" if kind == "gradient" else "the loss became (nan|inf)"
    assert re.search(rf"{what} at step 9 \({PARTS[task]}\); the images were (\S+\.(jpg|png), ){{2}}\S+\.(jpg|png); ", message), message
    assert fault.before is not None
    assert equal(fault.state(), fault.before)
    run = run_of(tmp_path, task)
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert all_finite(tensors({key: value for key, value in loaded(run, path.stem).items() if key != "callbacks"}))
    assert loaded(run)["global_step"] == 8


@pytest.mark.parametrize(
    "task", [pytest.param("detect", marks=pytest.mark.slow), pytest.param("segment", marks=pytest.mark.slow), "classify"]
)
def test_stopped_run_continues_to_the_bits_of_one_without_the_fault(
    task: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, task, "input", 10)
        stopped(fit, task)
    fit(task, "--ckpt_path=last")
    fit(task, runs=tmp_path / "whole")
    assert differences(run_of(tmp_path, task), run_of(tmp_path / "whole", task)) == []


@pytest.mark.parametrize(
    ("task", "kind"), [pytest.param("detect", "input", marks=pytest.mark.slow), ("segment", "gradient"), ("classify", "infinite")]
)
def test_skip_equals_a_run_in_which_the_batch_was_not_there(
    task: str, kind: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = ["--model.mixup=0", "--model.cutmix=0"] if task == "classify" else []
    constant = [*own, *(flag for flag in CONSTANT if task != "detect" or "dropout" not in flag)]
    with monkeypatch.context() as patch:
        Fault(patch, task, kind, 3)
        fit(task, SKIP, *constant)
    assert sum("at step 2 (" in record.message and record.message.endswith("; skipped") for record in caplog.records) == 1
    assert "of 6 steps 1 were skipped" in caplog.text
    skipped = loaded(run_of(tmp_path, task))
    assert skipped["skipped"] == {"skipped": 1, "in_a_row": 0}
    history = (run_of(tmp_path, task) / "metrics.csv").read_text().splitlines()
    column = history[0].split(",").index("train/skipped")
    assert [float(row.split(",")[column]) for row in history[1:7]] == [0, 0, 1, 1, 1, 1]

    drawn = EpochSampler.__iter__
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: iter([pair for place, pair in enumerate(drawn(self)) if place // 3 != 2]))
    monkeypatch.setattr(EpochSampler, "__len__", lambda self: 20 - 3)
    fit(task, *constant, runs=tmp_path / "without")
    without = loaded(run_of(tmp_path / "without", task))
    assert without["global_step"] == 5
    for key in ("state_dict", "current_model_state", "optimizer_states", "averaging_state"):
        assert equal(skipped[key], without[key])


def test_skipping_ends_where_it_is_no_matter_of_single_images(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks.finite, "MOST_IN_A_ROW", 4)
    monkeypatch.setattr(tasks.finite, "NAMED", 2)
    fault = Fault(monkeypatch, "classify", "input", 1, *range(3, 99))
    message = stopped(fit, "classify", SKIP)
    assert message.endswith("these are 4 skipped steps in a row, which is no matter of single images")
    assert fault.seen == 6
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.rpartition("; ")[2] for message in warnings] == ["skipped", "further ones are only counted"]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_spoilt_weights_are_never_saved(policy: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(torch.optim.SGD):
        """Writes infinity into a weight at the third step, with gradients that are finite."""

        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 3:
                self.param_groups[0]["params"][0].data[0, 0, 0, 0] = torch.inf
            return loss

    monkeypatch.setattr(MODULES["classify"], "configure_optimizers", lambda self: Careless(self.parameters(), lr=0.01))
    message = stopped(fit, "classify", f"--model.on_nan={policy}", "--checkpoint_steps=1", "--trainer.callbacks=[]")
    assert "is not finite after step 3; no checkpoint is written, the last one is from before" in message
    assert loaded(run_of(tmp_path, "classify"))["global_step"] == 2
    assert all_finite(tensors(loaded(run_of(tmp_path, "classify"))["state_dict"]))


def test_counts_go_on_in_a_continued_run(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (["--trainer.max_epochs=1"], ["--ckpt_path=last", "--allow_changes=true"]):
        with monkeypatch.context() as patch:
            Fault(patch, "classify", "input", 2)
            fit("classify", SKIP, *flags)
    assert loaded(run_of(tmp_path, "classify"))["skipped"] == {"skipped": 2, "in_a_row": 0}


@pytest.mark.parametrize("flags", [[], [SKIP]])
def test_validation_within_accumulation_sees_nothing_spoilt(
    flags: list[str], fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*flags, "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3", "--trainer.max_epochs=1"]
    fault = Fault(monkeypatch, "classify", "input", 3)
    run = run_of(tmp_path, "classify")
    if SKIP not in flags:
        assert "the loss became nan at step 1" in stopped(fit, "classify", *flags)
        assert not (run / "checkpoints/best.ckpt").exists()
        assert equal(fault.state(), fault.before)
        return
    fit("classify", *flags)
    for name in ("best", "last"):
        assert all_finite(tensors({key: value for key, value in loaded(run, name).items() if key != "callbacks"}))


def test_policy_can_change_in_a_continued_run_and_no_other_is_known(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, "classify", "input", 10)
        stopped(fit, "classify")
    Fault(monkeypatch, "classify", "input", 2)
    fit("classify", "--ckpt_path=last", SKIP)
    with pytest.raises(ValueError, match="on_nan 'ignore' is not possible; accepted: stop, skip"):
        StepGuard("ignore")


def test_report_names_the_batches_at_fault_or_all() -> None:
    good, bad = ({"box": 1.0, "class": 2.5}, ["a.jpg", "b.jpg"]), ({"box": 3.0, "class": float("nan")}, ["c.jpg"])
    assert report(7, [good, bad], "w") == "the loss became nan at step 7 (box 3, class nan); the images were c.jpg"
    assert report(7, [good], "w") == "the gradient of w became infinite or nan at step 7 (box 1, class 2.5); the images were a.jpg, b.jpg"


def test_finite_numbers_whose_norm_overflows_are_finite() -> None:
    huge = torch.full((3,), 1e30)
    assert torch.nn.utils.get_total_norm([huge]).isinf()
    assert all_finite([huge, torch.zeros(2)])
    assert all_finite([])
    assert not all_finite([huge, torch.tensor([1.0, -torch.inf])])
