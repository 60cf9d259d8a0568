"""Runs of several processes: losses, figures and files are those of one; a lost process ends all with one message."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from backbones import MobileNetV2
from tasks import processes
from tasks.detect.__main__ import main as detect
from tasks.detect.module import DetectionModule
from tests.tasks.crew import Crew
from tests.tasks.nursery import FLAGS, OWN, differences, run_of
from tests.tasks.shared_losses import FOREIGN, measure


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("crew")) as started:
        yield started


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Forgets the processes of tests before."""
    processes.join_run()


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_losses_and_gradients_equal_those_of_one_process(ranks: int, crew: Crew, tmp_path: Path) -> None:
    whole = measure()
    assert crew.call(ranks, "tests.tasks.shared_losses:write", str(tmp_path)) == [0] * ranks, crew.said(0)
    for rank in range(ranks):
        for name, (loss, gradients) in torch.load(tmp_path / f"{rank}.pt").items():
            if name.partition(",")[0] not in FOREIGN:
                assert_close(loss, whole[name][0], rtol=1e-6, atol=0)
                largest = max(float(value.abs().max()) for value in whole[name][1].values())
                for key, value in gradients.items():  # two thirds have no end of digits, halves have
                    assert_close(value, whole[name][1][key], rtol=0, atol=(1e-14 if ranks == 2 else 1e-5) * largest, msg=f"{name}: {key}")


def test_run_of_two_processes(crew: Crew, shapes_root: Path, tmp_path: Path) -> None:
    fit = ["classify", "fit", *FLAGS, *OWN["classify"], f"--data.root={shapes_root}"]
    said = {}
    for ranks in (1, 2):
        assert crew.run(ranks, *fit, f"--runs={tmp_path / str(ranks)}") == [0] * ranks, crew.said(0)
        said[ranks] = [crew.said(rank) for rank in range(ranks)]
    assert said[1][0].count("results are in") == said[2][0].count("results are in") == 1
    assert said[2][1].strip() == ""
    one, two = (run_of(tmp_path / str(ranks), "classify") for ranks in (1, 2))
    assert _files(one) == _files(two)

    # Both are killed amid the second epoch, and continue to the same bits.
    killed = tmp_path / "killed"
    fault = {"event": "step", "number": 5, "kind": "SIGKILL"}
    assert crew.run(2, *fit, f"--runs={killed}", fault=fault) == [-signal.SIGKILL] * 2
    assert differences(run_of(killed, "classify"), two)
    assert crew.run(2, *fit, f"--runs={killed}", "--ckpt_path=last") == [0, 0], crew.said(0)
    assert differences(run_of(killed, "classify"), two) == []
    texts = [(run / "metrics.json").read_text().replace(str(run), "") for run in (two, run_of(killed, "classify"))]
    assert texts[0] == texts[1]


def _files(run: Path) -> set[str]:
    return {str(path.relative_to(run)).partition("tfevents")[0] for path in run.rglob("*")}


def test_figures_equal_those_of_one_process(crew: Crew, shapes_root: Path, tmp_path: Path) -> None:
    args = [*OWN["detect"], f"--data.root={shapes_root}", f"--runs={tmp_path}", "--data.val_images=7", "--trainer.max_epochs=1"]
    assert crew.run(1, "detect", "fit", *FLAGS, *args) == [0], crew.said(0)
    run = run_of(tmp_path, "detect")
    assert crew.run(3, "detect", "validate", f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.batch_size=2") == [0] * 3, crew.said(0)
    for name in ("metrics.json", "detections.json"):
        assert (run / "validate" / name).read_bytes() == (run / name).read_bytes()
    assert json.loads((run / "metrics.json").read_text())["images"] == 7


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "error: the process of rank 2 (0 to 2) was killed by SIGKILL"),
        ("raise SystemExit(1)", ""),  # it has said why
    ],
)
def test_end_of_another_process_ends_all(code: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    monkeypatch.setattr(processes, "_end", codes.append)
    waiting = subprocess.Popen([sys.executable, "-Sc", "import time; time.sleep(60)"])
    processes._watch_others([waiting, subprocess.Popen([sys.executable, "-Sc", code])])
    assert codes == [1]
    assert waiting.wait() == -signal.SIGKILL
    assert capsys.readouterr().err.startswith(said)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize(("code", "end"), [(0, None), (143, None), (3, 1)])
def test_first_process_waits_for_the_end_of_others(code: int, end: int | None) -> None:
    other = subprocess.Popen([sys.executable, "-Sc", f"import time; time.sleep(0.2); raise SystemExit({code})"])
    processes._started.append(other)
    if end is None:
        processes.leave_run(True)
    else:
        with pytest.raises(SystemExit) as stopped:
            processes.leave_run(True)
        assert stopped.value.code == end
    assert other.returncode == code


def test_failed_first_process_ends_the_others_in_silence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    monkeypatch.setattr(processes, "_end", codes.append)
    other = subprocess.Popen([sys.executable, "-Sc", "import time; time.sleep(60)"])
    processes._watch_started([other])
    processes.leave_run(False)
    time.sleep(2 * processes.POLL_SECONDS)
    assert other.returncode == -signal.SIGKILL
    assert (codes, capsys.readouterr().err) == ([], "")


def test_process_ends_with_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    monkeypatch.setattr(processes, "_end", codes.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    processes._watch_parent(os.getppid() + 1)
    assert codes == [1]
    assert "the process that started this run was killed" in capsys.readouterr().err


def test_all_batch_norms_can_be_synchronised() -> None:
    module = DetectionModule(MobileNetV2(width_mult=0.35, freeze_bn=True), ["a"])
    names, count = list(module.state_dict()), sum(isinstance(part, _BatchNorm) for part in module.modules())
    module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module).train()
    converted = [part for part in module.modules() if isinstance(part, torch.nn.SyncBatchNorm)]
    assert len(converted) == count
    assert list(module.state_dict()) == names
    assert not any(part.training for part in module.model.backbone.modules() if isinstance(part, torch.nn.SyncBatchNorm))


def test_synchronised_batch_norm_on_cpus_is_refused(shapes_root: Path, tmp_path: Path) -> None:
    flags: list[Any] = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.sync_batchnorm=true"]
    with pytest.raises(SystemExit) as stopped:
        detect(["fit", *FLAGS, *OWN["detect"], f"--data.root={shapes_root}", f"--runs={tmp_path}", *flags])
    assert "error: trainer.sync_batchnorm needs GPUs" in str(stopped.value.code)
