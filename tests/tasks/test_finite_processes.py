"""Two processes of which one has images with NaN in them: both stop, or both leave the step out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.finite import all_finite
from tests.tasks.nursery import FLAGS, OWN, run_of
from tests.tasks.test_finite import loaded, tensors


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_processes_agree_where_only_one_saw_it(policy: str, shapes_root: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("faulty_rank.py")
    flags = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1"]
    flags += [f"--model.on_nan={policy}", f"--data.root={shapes_root}", f"--runs={tmp_path}", "--data.train_images=30"]
    done = subprocess.run(
        [sys.executable, str(script), "fit", *FLAGS, *OWN["classify"], *flags],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"},
    )
    indices = json.loads(re.findall(r"faulty images: (\[.*\])", done.stdout)[0])
    named = re.findall(r"the loss became nan at step 2 \(class nan\); the images were (.*?); ", done.stderr)
    assert [len(files.split(", ")) for files in named] == [len(indices)] * len(named)
    assert named
    run = run_of(tmp_path, "classify")
    if policy == "stop":
        assert done.returncode == 1
        assert loaded(run)["global_step"] == 2
    else:
        assert done.returncode == 0, done.stderr
        assert loaded(run)["skipped"] == {"skipped": 1, "in_a_row": 0}
        assert loaded(run)["global_step"] == 5
    assert all_finite(tensors(loaded(run)["current_model_state"]))
