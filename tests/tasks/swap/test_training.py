"""A small experiment with real trainings, killed in the middle and started again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DATA = {"train_images": 16, "val_images": 4, "size": [33, 33], "crop_size": [33, 33], "batch_size": 4, "num_workers": 0}


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stops the children of a killed process")
def test_killed_experiment_leaves_no_process_and_goes_on(experiment: Callable[..., str], tmp_path: Path) -> None:
    overrides = {"data": DATA | {"root": str(tmp_path / "shapes")}, "trainer.max_epochs": 40, "trainer.log_every_n_steps": 1}
    base = str(ROOT / "configs/segment/deeplabv3_mobilenet_v2_shapes.yaml")
    config = experiment(tasks={"segment": {"config": base, "overrides": overrides}})
    root, command = tmp_path / "runs" / "swap" / "trial", [sys.executable, "-m", "tasks.swap", "--config", config]
    run, record = root / "segment" / "one_seed0", root / "records" / "segment_one_seed0.json"
    with subprocess.Popen(command, cwd=ROOT) as swap:
        until = time.monotonic() + 300
        while not (run / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < until:
            time.sleep(0.05)
        swap.send_signal(signal.SIGKILL)
    child = json.loads(record.read_text())["pid"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert not is_alive(child)
    assert "continues: segment one seed 0" in done.stdout
    known = json.loads(record.read_text())
    assert (known["state"], known["continued"]) == ("done", 1)
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(160))
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 40
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    assert "1 of them ended before" in again.stdout
    assert "begins" not in again.stdout
