"""The same runs through Ray."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.swap.__main__ import main

SEGMENT = Path(__file__).resolve().parents[3] / "configs/segment/deeplabv3_mobilenet_v2_shapes.yaml"
HAS_RAY = importlib.util.find_spec("ray") is not None


def tiny(folder: Path) -> dict[str, Any]:
    """A segmentation of two steps."""
    data = {"train_images": 8, "val_images": 4, "size": [33, 33], "crop_size": [33, 33], "batch_size": 4, "num_workers": 0}
    overrides = {"data": data | {"root": str(folder / "shapes")}, "trainer.max_epochs": 1}
    return {"config": str(SEGMENT), "overrides": overrides}


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_missing_ray_is_one_sentence(experiment: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="pip install ray"):
        main(["--config", experiment(), "--launcher", "ray"])


def test_address_without_ray_is_refused(experiment: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="ray_address auto has no use"):
        main(["--config", experiment(), "--ray_address", "auto"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="needs Ray")
def test_ray_runs_what_the_local_launcher_runs(experiment: Callable[..., str], tmp_path: Path) -> None:
    # A process of its own: Ray's threads and sockets leave warnings behind.
    two = [{"name": name, "class_path": "backbones.MobileNetV2", "init_args": {"width_mult": 0.1}} for name in ("one", "two")]
    config = experiment(tasks={"segment": tiny(tmp_path)}, backbones=two, jobs=2)
    command = [sys.executable, "-m", "tasks.swap", "--config", config, "--launcher", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "runs" / "swap" / "trial"
    records = [json.loads(path.read_text()) for path in sorted((root / "records").glob("*.json"))]
    assert [(record["backbone"], record["state"]) for record in records] == [("one", "done"), ("two", "done")]
    assert (root / "table.md").read_text().count("1 of 1") == 2
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "2 of them ended before" in again.stdout
