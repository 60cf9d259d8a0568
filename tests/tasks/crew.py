"""Runs of several processes, one of which fails where a test wants it.

`python -m tests.tasks.crew detect fit ...` is `python -m tasks.detect fit ...` with the fault in the environment variable FAULT, a JSON
object: the n-th event (see `tests.tasks.nursery`) of one rank, or of each, and what happens then.

`serve` is a process that has everything imported and forks all processes of the runs that it reads, a JSON object a line:
{"ranks": 2, "log": file, "args": ["detect", "fit", ...]} or {"ranks": 2, "log": file, "call": "module:function", "with": [...]}.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from tasks.classify.__main__ import main as classify
from tasks.detect.__main__ import main as detect
from tasks.module import TaskModule
from tasks.segment.__main__ import main as segment
from tests.tasks.nursery import watch

ROOT = Path(__file__).parents[2]
MAINS = {"detect": detect, "segment": segment, "classify": classify}


def spoilt(losses: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """The same losses as NaN, of which the gradients of all parameters are NaN too."""
    return lambda self, batch: {name: loss * float("nan") for name, loss in losses(self, batch).items()}


def act_of(kind: str) -> Callable[[], None]:
    """What a fault does: ends the process, raises a user's error or another, or makes the next loss NaN."""

    def act() -> None:
        if kind == "error":
            raise ValueError("picture 7 of the second process is broken")
        if kind == "bug":
            raise RuntimeError("nobody expected this")
        if kind == "nan":
            for module in TaskModule.__subclasses__():
                module.losses = spoilt(module.losses)  # type: ignore[method-assign]
        else:
            os.kill(os.getpid(), getattr(signal, kind))

    return act


def run_command(args: list[str]) -> None:
    """Runs a command line of a task, with the fault of the environment."""
    fault = json.loads(os.environ.get("FAULT", "{}"))
    if fault and fault.get("rank") in (None, int(os.environ.get("LOCAL_RANK", "0"))):
        watch(setattr, fault["event"], fault["number"], act_of(fault["kind"]))
    MAINS[args[0]](args[1:])


def _be_rank(job: dict[str, Any], rank: int) -> None:
    output = os.open(f"{job['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if job["ranks"] > 1:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": job["port"], "WORLD_SIZE": job["ranks"], "RANK": rank, "LOCAL_RANK": rank}
        os.environ |= {key: str(value) for key, value in place.items()}
        rank_zero_only.rank = rank  # type: ignore[attr-defined]  # which Lightning looks up when it is imported
    os.environ["FAULT"] = json.dumps(job.get("fault", {}))
    if "args" in job:
        several = ["--trainer.accelerator=cpu", f"--trainer.devices={job['ranks']}"]
        run_command([*job["args"], *several, *(["--trainer.strategy=ddp"] if job["ranks"] > 1 else [])])
        return
    module, _, function = job["call"].partition(":")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=job["ranks"])
    getattr(importlib.import_module(module), function)(*job["with"])
    torch.distributed.destroy_process_group()


def _fork(job: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _be_rank(job, rank)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        print("" if stop.code is None or isinstance(stop.code, int) else stop.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def serve() -> None:
    """Runs what it reads and answers with the exit codes, negative for a signal."""
    for line in sys.stdin:
        job = json.loads(line)
        children = [_fork(job, rank) for rank in range(job["ranks"])]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


class Crew:
    """Runs commands or functions by several processes forked from one that has everything imported.

    Args:
        folder: for their outputs.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"

    def __enter__(self) -> "Crew":
        """Starts the process that forks."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", "from tests.tasks.crew import serve; serve()"]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        return self

    def __exit__(self, *args: object) -> None:
        """Lets it end."""
        self.server.communicate()

    def run(self, ranks: int, *args: str, fault: dict[str, Any] | None = None) -> list[int]:
        """Runs a task's command and returns the exit codes of its processes, negative for a signal."""
        return self._do({"ranks": ranks, "args": args, "fault": fault or {}})

    def call(self, ranks: int, function: str, *args: str) -> list[int]:
        """Calls `module:function` in a process group."""
        return self._do({"ranks": ranks, "call": function, "with": args})

    def said(self, rank: int) -> str:
        """What a process of the last run wrote on the screen."""
        return Path(f"{self.log}.{rank}").read_text()

    def _do(self, job: dict[str, Any]) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job |= {"port": free.getsockname()[1], "log": str(self.log)}
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(job), file=self.server.stdin, flush=True)
        codes: list[int] = json.loads(self.server.stdout.readline())
        return codes


if __name__ == "__main__":
    run_command(sys.argv[1:])
