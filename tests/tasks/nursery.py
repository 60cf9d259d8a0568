"""Runs of seconds of all three tasks, stopped where a test wants it.

As a script, a process that has everything imported and forks the commands that it reads, a JSON object a line, each a process of its own
that ends itself by a signal at the n-th event of a kind: {"args": ["detect", "fit", ...], "event": "step", "number": 5, "signal": 9}.
"""

import csv
import json
import os
import runpy
import stat
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import tasks.files
import tasks.resume
from tasks.classify.module import ClassificationModule
from tasks.detect.module import DetectionModule
from tasks.segment.module import SegmentationModule

MODULES = {"detect": DetectionModule, "segment": SegmentationModule, "classify": ClassificationModule}
EVENTS = ("step", "validation", "write", "written", "rename")
NAMES = {"detect": "ssdlite_mobilenet_v2_shapes", "segment": "deeplabv3_mobilenet_v2_shapes", "classify": "mobilenet_v2_shapes"}

# Two epochs of six steps; whatever draws random numbers is on.
FLAGS = [
    *("--data.train_images=20", "--data.val_images=6", "--data.batch_size=3", "--data.num_workers=0", "--model.backbone.width_mult=0.35"),
    *("--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.precision=32-true", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--checkpoint_steps=2"),
]
OWN = {
    "detect": ["--data.size=[64,64]"],
    "segment": ["--data.size=[65,65]", "--data.crop_size=[65,65]", "--model.head.dropout=0.1"],
    "classify": ["--data.size=[48,48]", "--model.mixup=0.2", "--model.cutmix=1", "--model.head.dropout=0.2"],
}

Patch = Callable[[Any, str, Any], None]


def run_of(runs: Path, task: str) -> Path:
    """The folder of the default run."""
    return runs / task / NAMES[task]


def watch(patch: Patch, event: str, number: int, act: Callable[[], None]) -> None:
    """Calls `act` at the n-th event: before a step or validation step, with half of a file written (`act` must not return), with all of it
    on the disk, or before a renaming.
    """
    seen: dict[str, int] = dict.fromkeys(EVENTS, 0)

    def happened(kind: str) -> None:
        seen[kind] += 1
        if kind == event and seen[kind] == number:
            act()

    def before(owner: Any, name: str, kind: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            happened(kind)
            return original(*args, **kwargs)

        patch(owner, name, watched)

    for module in MODULES.values():
        before(module, "training_step", "step")
        before(module, "validation_step", "validation")
    before(tasks.resume.os, "replace", "rename")
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        file = os.fstat(descriptor)
        if stat.S_ISREG(file.st_mode):
            if event == "write" and seen["write"] == number - 1:
                os.ftruncate(descriptor, file.st_size // 2)
            happened("write")
        sync(descriptor)
        happened("written")

    patch(tasks.files.os, "fsync", fsync)


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two runs: everything in their last checkpoints, bit by bit, and their histories, but for paths and times."""
    one, two = (dict(_flat(torch.load(run / "checkpoints/last.ckpt", weights_only=True))) for run in (first, second))
    # Lightning writes a current score, reads it nowhere, and does not put it back.
    keys = [key for key in one | two if not key.endswith(("dirpath", "model_path", "current_score")) and "best_k_models" not in key]
    keys = [key for key in keys if "/last_row/time/" not in key]
    found = [key for key in keys if key not in one or key not in two or not _equal(one[key], two[key])]
    assert any("current_model_state" in key for key in keys)
    histories = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (first, second)]
    for row in chain(*histories):
        for name in [name for name in row if name.startswith("time/")]:
            del row[name]
    return found + ["metrics.csv"] * (histories[0] != histories[1])


def _equal(one: Any, two: Any) -> bool:
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if parts is None:
        yield key, value
    else:
        for name, part in parts:
            yield from _flat(part, f"{key}/{name}")


def _run(job: dict[str, Any]) -> None:
    """Does what `python -m tasks.<task>` does, with its output in a file."""
    output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if job.get("event"):
        watch(setattr, job["event"], job["number"], lambda: os.kill(os.getpid(), job["signal"]))
    task, *args = job["args"]
    sys.argv = [task, *args]
    runpy.run_module(f"tasks.{task}", run_name="__main__", alter_sys=True)


def serve() -> None:
    """Forks a process for each line and answers with its exit code, negative for a signal."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                _run(json.loads(line))
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
                print(stop.code, file=sys.stderr)
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
