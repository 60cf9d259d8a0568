"""Which runs are executed, with a stand-in for the training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tasks.swap import pictures, runner
from tasks.swap.__main__ import main

Made = Callable[..., str]
FAKE = (sys.executable, str(Path(__file__).with_name("fake_child.py")))


SEGMENT = Path(__file__).resolve().parents[3] / "configs/segment/deeplabv3_mobilenet_v2_shapes.yaml"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the experiment; its trainings are stand-ins, and it draws no pictures."""
    monkeypatch.setattr(runner, "CHILD", FAKE)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pictures, "draw", lambda *args: [])
    return tmp_path / "runs" / "swap" / "trial"


def small(name: str, **more: Any) -> dict[str, Any]:
    """A small backbone of an experiment."""
    return {"name": name, "class_path": "backbones.MobileNetV2", "init_args": {"width_mult": 0.1}, **more}


def calls(root: Path) -> list[str]:
    """What was executed since the last look."""
    path = root / "calls.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    path.unlink(missing_ok=True)
    return lines


def failed(*args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code not in (0, None)
    return str(stopped.value)


def change(record: Path, **changes: Any) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


def test_done_runs_are_skipped_and_changed_ones_run_anew(root: Path, experiment: Made, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", experiment(backbones=[small("one"), small("two")])])
    assert calls(root) == ["detect one_seed0 anew", "detect two_seed0 anew"]
    main(["--config", experiment(seeds=[0, 1]), "--jobs", "2"])
    assert calls(root) == ["detect one_seed1 anew"]
    capsys.readouterr()
    main(["--config", experiment(), "--tasks.detect.overrides", "{data.size: [96, 96]}"])
    assert calls(root) == ["detect one_seed0 anew"]
    assert "settings have changed" in capsys.readouterr().out
    (kept,) = (root / "replaced").iterdir()
    assert (kept / "one_seed0" / "metrics.json").is_file()
    assert yaml.safe_load((root / "configs/detect_one_seed0.yaml").read_text())["data"]["init_args"]["size"] == [96, 96]


def test_unfinished_run_continues_from_its_checkpoint(root: Path, experiment: Made) -> None:
    main(["--config", experiment()])
    assert calls(root) == ["detect one_seed0 anew"]
    record = root / "records" / "detect_one_seed0.json"
    for state in ("running", "stopped"):  # killed, or stopped in order
        change(record, state=state, pid=2**22 + 1)
        main(["--config", experiment()])
        assert calls(root) == ["detect one_seed0 last"]
    assert json.loads(record.read_text())["continued"] == 2
    assert "may have come in another order: one seed 0" in (root / "table.md").read_text()
    change(record, state="stopped")
    (root / "detect/one_seed0/checkpoints/last.ckpt").unlink()
    main(["--config", experiment()])
    assert calls(root) == ["detect one_seed0 anew"]
    assert not (root / "replaced").exists()


def test_failed_run_is_recorded_and_the_others_go_on(root: Path, experiment: Made) -> None:
    config = experiment(backbones=[small("broken"), small("one")])
    assert "1 of 2 runs failed" in failed("--config", config)
    assert calls(root) == ["detect broken_seed0 anew", "detect one_seed0 anew"]
    record = json.loads((root / "records/detect_broken_seed0.json").read_text())
    assert (record["state"], record["exit_code"], record["error"]) == ("failed", 1, "the loss became nan at step 3")
    table = (root / "table.md").read_text()
    assert "broken: seed 0 failed: the loss became nan at step 3" in table
    assert "30.0" in table  # the other's AP
    failed("--config", config)
    assert calls(root) == []
    failed("--config", config, "--retry_failed", "true")
    assert calls(root) == ["detect broken_seed0 anew"]


def test_report_is_made_of_what_is_there(root: Path, experiment: Made) -> None:
    main(["--config", experiment(), "--report_only", "true"])
    assert "one: seed 0 has not run yet" in (root / "table.md").read_text()
    assert calls(root) == []


def test_two_at_once_are_refused(root: Path, experiment: Made) -> None:
    root.mkdir(parents=True)
    with FileLock(root / ".lock"):
        assert "an experiment of this name is running" in failed("--config", experiment())


def test_folder_of_somebody_else_is_refused(root: Path, experiment: Made) -> None:
    (root / "detect" / "one_seed0").mkdir(parents=True)
    assert "one_seed0: not made by this experiment" in failed("--config", experiment())
    assert calls(root) == []


def test_everything_is_checked_before_the_first_run(root: Path, experiment: Made) -> None:
    wrong = [
        small("a", init_args={"width": 1}),
        small("b", init_args={"taps": ["layer99"]}),
        small("c", overrides={"trainer.max_epoch": 1}),
        small("d", overrides={"model.weights": "other.ckpt"}),
    ]
    tasks = {"segment": {"config": str(SEGMENT), "overrides": {"model.head.decoder": True}}}
    said = failed("--config", experiment(backbones=[*wrong, small("e", init_args={"taps": ["layer11"]}), small("one")], tasks=tasks))
    lines = said.removeprefix("error: ").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"segment with {name}" for name in "abcde"]
    for line, part in zip(lines, ("'width' is not accepted", "layer99", "max_epoch", "model.weights other.ckpt", "stride 4"), strict=True):
        assert part in line
    assert calls(root) == []


@pytest.mark.parametrize("flags", [["--jobs", "0"], ["--devices", "[99]"], ["--seeds", "[]"], ["--name", "../up"]])
def test_values_out_of_range_are_one_sentence(root: Path, experiment: Made, flags: list[str]) -> None:
    assert "accepted" in failed("--config", experiment(), *flags)


def test_experiment_file_finds_configs_beside_it(root: Path, experiment: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SEGMENT.read_text())
    main(["--config", experiment(tasks={"segment": {"config": "mine.yaml"}})])
    assert calls(root) == ["segment one_seed0 anew"]


def test_stopping_stops_the_runs_and_the_same_command_continues(root: Path, experiment: Made) -> None:
    config = experiment(backbones=[small("slow")])
    code = f"import sys; from tasks.swap import runner; runner.CHILD = {FAKE!r}; from tasks.swap.__main__ import main; main(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, "--config", config], stderr=subprocess.PIPE, text=True) as swap:
        until = time.monotonic() + 120
        while not (root / "detect/slow_seed0/checkpoints/last.ckpt").is_file() and time.monotonic() < until:
            time.sleep(0.1)
        swap.send_signal(signal.SIGTERM)
        _, said = swap.communicate(timeout=120)
    assert swap.returncode == 130
    assert "the same command continues them" in said
    record = json.loads((root / "records/detect_slow_seed0.json").read_text())
    assert record["state"] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(record["pid"], 0)
    assert calls(root) == ["detect slow_seed0 anew"]
    main(["--config", config])
    assert calls(root) == ["detect slow_seed0 last"]


def test_reason_of_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\nRuntimeError: out of memory\n\n")
    assert runner.reason_of(log, 1) == "RuntimeError: out of memory"
    assert runner.reason_of(log, -9) == "killed by signal 9 (SIGKILL)"
    assert runner.reason_of(log, 0) == "wrote no metrics.json"
    log.write_text("")
    assert runner.reason_of(log, 2) == "said nothing"
