"""Memory stays flat over many epochs, validation and loader workers included."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from tests.tasks.nursery import FLAGS, OWN

# The C library's heap grows in steps to its size in some tens of epochs; memory is compared over the fifty that follow.
EPOCHS, WARM_UP, END = 130, (0.6, 0.7), (0.9, 1.0)
ROOT = Path(__file__).parents[2]
# Of some 800 MB over five processes. Fifty images kept, of 256 x 256, would be 10 MB.
MEGABYTES = 8.0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="reads Linux's account of memory")
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_memory_is_flat_over_fifty_epochs(task: str, shapes_root: Path, tmp_path: Path) -> None:
    small = ["--data.train_images=8", "--data.val_images=4", "--data.batch_size=4", "--data.num_workers=2"]
    args = [*FLAGS, *OWN[task], *small, f"--trainer.max_epochs={EPOCHS}", f"--data.root={shapes_root}", f"--runs={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    samples, output = [], tmp_path / "output"
    command = [sys.executable, "-m", f"tasks.{task}", "fit", *args]
    with output.open("w") as screen:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=screen, stderr=screen)
        while process.poll() is None:
            if len(workers := _children(process.pid)) == 4:  # two each for training and validation
                parts = [_megabytes(one) for one in (process.pid, *workers)]
                samples += [sum(parts)] if all(parts) else []
            time.sleep(0.1)
    assert process.returncode == 0, output.read_text()
    early, late = (median(samples[int(begin * len(samples)) : int(end * len(samples))]) for begin, end in (WARM_UP, END))
    print(f"{task}: {early:.1f} MB early, {late:.1f} MB late, {len(samples)} samples, least {min(samples):.1f}, most {max(samples):.1f}")
    assert late - early < MEGABYTES


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _megabytes(process: int) -> float:
    """What a process keeps of its own in memory, a page that its workers share by its share; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024
