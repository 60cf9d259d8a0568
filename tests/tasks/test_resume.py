"""A run that was stopped and continued equals one that was not, bit by bit; Ctrl-C and SIGTERM save first."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

import tasks.files
from tasks.classify.__main__ import main as classify
from tasks.cli import TaskCLI
from tasks.command import run_command
from tasks.detect.__main__ import main as detect
from tasks.resume import LastCheckpoint
from tasks.segment.__main__ import main as segment
from tests.tasks.nursery import FLAGS, OWN, differences, run_of, watch

MAINS = {"detect": detect, "segment": segment, "classify": classify}


class Killed(BaseException):
    """Stands for SIGKILL in tests of one process."""


@pytest.fixture(autouse=True)
def _only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports after training are tested elsewhere."""
    monkeypatch.setattr(TaskCLI, "after_fit", lambda self: None)


Fit = Callable[..., None]


@pytest.fixture
def fit(shapes_root: Path) -> Fit:
    """Runs or continues a task in a folder of runs."""

    def run(task: str, runs: Path, *flags: str) -> None:
        MAINS[task](["fit", *FLAGS, *OWN[task], f"--data.root={shapes_root}", f"--runs={runs}", *flags])

    return run


@pytest.fixture(scope="module")
def wholes() -> dict[tuple[str, ...], Path]:
    """Uninterrupted runs, each made once."""
    return {}


@pytest.fixture
def whole(fit: Fit, wholes: dict[tuple[str, ...], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def made(task: str, *flags: str) -> Path:
        if (task, *flags) not in wholes:
            runs = tmp_path_factory.mktemp("whole")
            fit(task, runs, *flags)
            wholes[(task, *flags)] = run_of(runs, task)
        return wholes[(task, *flags)]

    return made


def killed(fit: Fit, task: str, runs: Path, event: str, number: int, *flags: str) -> None:
    """Runs a task and leaves the disk as it was at an event."""
    run, kept = run_of(runs, task), runs / "kept"

    def kill() -> None:
        shutil.copytree(run, kept)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        watch(patch.setattr, event, number, kill)
        with pytest.raises(Killed):
            fit(task, runs, *flags)
    shutil.rmtree(run)
    kept.rename(run)


@pytest.mark.parametrize(
    ("task", "event", "number"),
    [("detect", "step", 10), ("segment", "validation", 3), ("classify", "step", 4)],
)
def test_killed_and_continued_equals_uninterrupted(
    task: str, event: str, number: int, fit: Fit, whole: Callable[..., Path], tmp_path: Path
) -> None:
    killed(fit, task, tmp_path, event, number)
    assert differences(run_of(tmp_path, task), whole(task))
    fit(task, tmp_path, "--ckpt_path=last")
    assert differences(run_of(tmp_path, task), whole(task)) == []


@pytest.mark.parametrize(
    ("event", "number", "name", "code", "steps"),
    [
        ("step", 3, signal.SIGTERM, 143, 3),  # that step is done
        ("validation", 1, signal.SIGINT, 130, 6),  # from its first image it is done again
        ("step", 12, signal.SIGTERM, 143, 12),
    ],
)
def test_signals_save_first(
    event: str, number: int, name: signal.Signals, code: int, steps: int, fit: Fit, whole: Callable[..., Path], tmp_path: Path
) -> None:
    flags = ["--checkpoint_steps=100"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run in the background
    with pytest.MonkeyPatch.context() as patch:
        watch(patch.setattr, event, number, lambda: os.kill(os.getpid(), name))
        with pytest.raises(SystemExit) as stopped:
            fit("classify", tmp_path, *flags)
    assert stopped.value.code == code
    last = run_of(tmp_path, "classify") / "checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == steps
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    fit("classify", tmp_path, "--ckpt_path=last", *flags)
    assert differences(run_of(tmp_path, "classify"), whole("classify")) == []


def test_interrupt_before_training_ends_with_the_code_of_ctrl_c(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskCLI, "before_instantiate_classes", interrupt)
    with pytest.raises(SystemExit) as stopped:
        fit("detect", tmp_path)
    assert stopped.value.code == 130
    monkeypatch.undo()
    monkeypatch.setattr(LastCheckpoint, "on_train_start", interrupt)
    with pytest.raises(SystemExit) as stopped:
        fit("classify", tmp_path)
    assert stopped.value.code == 130


def test_sigterm_in_an_evaluation_ends_with_its_code() -> None:
    def stop() -> None:
        raise SIGTERMException  # as Lightning does, without a code

    with pytest.raises(SystemExit) as stopped:
        run_command(stop)
    assert stopped.value.code == 143


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_from_elsewhere_continues_in_a_folder_of_its_own(fit: Fit, whole: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copyfile(whole("classify") / "checkpoints/last.ckpt", tmp_path / "last.ckpt")
    fit("classify", tmp_path, f"--ckpt_path={tmp_path / 'last.ckpt'}", "--trainer.max_epochs=3")
    last = torch.load(run_of(tmp_path, "classify") / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 18


def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    fit: Fit, whole: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed(fit, "classify", tmp_path, "step", 11)
    folder = run_of(tmp_path, "classify") / "checkpoints"
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*.ckpt")}
    assert steps == {"last.ckpt": 10, "previous.ckpt": 8, "best.ckpt": 6}
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(content[: len(content) // 2])
    fit("classify", tmp_path, "--ckpt_path=last")
    assert "damaged and left aside: last.ckpt; going on from previous.ckpt" in caplog.text
    assert differences(run_of(tmp_path, "classify"), whole("classify")) == []


def test_full_disk_stops_with_one_line_and_leaves_the_last_checkpoint(
    fit: Fit, whole: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = False
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def fill() -> None:
        nonlocal full
        full = True

    with monkeypatch.context() as patch:
        watch(patch.setattr, "step", 8, fill)
        patch.setattr(tasks.files.os, "fsync", fsync)
        with pytest.raises(SystemExit) as stopped:
            fit("classify", tmp_path)
    assert str(stopped.value.code).startswith("error: ")
    assert "No space left on device" in str(stopped.value.code)
    assert "\n" not in str(stopped.value.code)
    folder = run_of(tmp_path, "classify")
    assert not list(folder.rglob("*.part"))
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    fit("classify", tmp_path, "--ckpt_path=last")
    assert differences(folder, whole("classify")) == []


def test_changed_config_is_named_and_refused(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    fit("classify", Path("runs"), "--trainer.max_epochs=1")
    run = run_of(tmp_path / "runs", "classify")
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        fit("classify", Path("runs"), "--trainer.max_epochs=3", "--model.mixup=0.1", "--data.num_workers=1", "--ckpt_path=last")
    assert "trainer.max_epochs: 1 -> 3; " in str(stopped.value.code).replace("model.mixup: 0.2 -> 0.1; ", "")
    assert "model.mixup: 0.2 -> 0.1" in str(stopped.value.code)
    assert "num_workers" not in str(stopped.value.code)
    assert (run / "config.yaml").read_bytes() == before
    fit("classify", Path("runs"), "--trainer.max_epochs=2", "--allow_changes=true", "--ckpt_path=last")
    assert "goes on with changes: trainer.max_epochs: 1 -> 2" in caplog.text
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["trainer"]["max_epochs"], config["allow_changes"], config["ckpt_path"]) == (2, False, None)
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 12
    classify(["fit", "--ckpt_path=last"])  # with the run's own config; nothing is left to do
    assert not run.with_name(f"{run.name}-2").exists()


def test_checkpoint_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for options in ({"minutes": -1.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="accepted: 0 or more minutes, at least 1 step"):
            LastCheckpoint(tmp_path, **options)  # type: ignore[arg-type]
