"""Processes of all tasks, killed at random moments and continued until they end, equal uninterrupted ones; signals to whole groups."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.nursery import EVENTS, FLAGS, NAMES, OWN, differences, run_of

KILLS = 6  # of each task, with and without loader workers: 36 in all
ROOT = Path(__file__).parents[2]
# All runs by as many threads: sums of the gradients are rounded otherwise by another number.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs a command in a process of its own and returns its exit code."""
    log = tmp_path_factory.mktemp("nursery") / "log"
    command = [sys.executable, "-c", "from tests.tasks.nursery import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as nursery:
        assert nursery.stdin
        assert nursery.stdout

        def run(args: list[str], **options: Any) -> int:
            print(json.dumps({"args": args, "log": str(log)} | options), file=nursery.stdin, flush=True)
            return int(nursery.stdout.readline())  # type: ignore[union-attr]

        yield run
        nursery.stdin.close()


@pytest.fixture(scope="module")
def wholes(process: Any, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs of all tasks."""
    runs = tmp_path_factory.mktemp("wholes")
    for task in NAMES:
        assert process([task, "fit", *FLAGS, *OWN[task], f"--data.root={shapes_root}", f"--runs={runs}"]) == 0
    return {task: run_of(runs, task) for task in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", NAMES)
def test_killed_at_random_moments(
    task: str, workers: int, process: Any, wholes: dict[str, Path], shapes_root: Path, tmp_path: Path
) -> None:
    draw, kills = random.Random(f"{task} {workers}"), 0
    fit = [task, "fit", *FLAGS, *OWN[task], f"--data.root={shapes_root}", f"--runs={tmp_path}", f"--data.num_workers={workers}"]
    run = run_of(tmp_path, task)
    while kills < KILLS:
        shutil.rmtree(run, ignore_errors=True)
        code, begun = -signal.SIGKILL, False
        while code == -signal.SIGKILL:
            event = draw.choice(EVENTS)
            job = {"event": event, "number": draw.randint(1, 10), "signal": signal.SIGKILL} if kills < KILLS else {}
            code = process([*fit, *(["--ckpt_path=last"] if begun else [])], **job)
            kills += code == -signal.SIGKILL
            begun = any((run / "checkpoints").glob("*.ckpt"))
            if not begun:
                shutil.rmtree(run, ignore_errors=True)
        assert code == 0
        assert differences(run, wholes[task]) == []
        continued, whole = (json.loads((folder / "metrics.json").read_text()) for folder in (run, wholes[task]))
        assert Path(continued.pop("checkpoint")).name == Path(whole.pop("checkpoint")).name
        assert continued == whole


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_the_process_and_its_loader_workers(
    name: signal.Signals, code: int, wholes: dict[str, Path], process: Any, shapes_root: Path, tmp_path: Path
) -> None:
    args = ["fit", *FLAGS, *OWN["classify"], f"--data.root={shapes_root}", f"--runs={tmp_path}", "--data.num_workers=2"]
    run = run_of(tmp_path, "classify")
    command = [sys.executable, "-m", "tasks.classify", *args]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests may run in the background
    options: dict[str, Any] = {"text": True, "env": ENVIRONMENT, "cwd": ROOT, "start_new_session": True, "preexec_fn": heard}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as started:
        while not (run / "checkpoints/last.ckpt").is_file():
            time.sleep(0.01)
            assert started.poll() is None
        os.killpg(started.pid, name)
        said = started.communicate()[1]
    assert started.returncode == code
    assert "--ckpt_path last goes on from here" in said
    assert "Traceback" not in said
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] < 12
    assert process(["classify", *args, "--ckpt_path=last"]) == 0
    assert differences(run, wholes["classify"]) == []
