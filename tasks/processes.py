"""Runs of several processes: where one fails, all end soon, with one message.

The first process is the one that the user started; Lightning starts the others by the same command. Left alone, those that wait for a
lost one show errors of the network, or hang for half an hour, and Lightning kills the first process without a word.
"""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities import rank_zero_only

# Seconds between two looks at the other processes.
POLL_SECONDS = 0.5
# An error may be the mere consequence of another process's end. So long a process waits to be ended before it shows its own; the first
# one waits longer, since it ends the others.
FIRST_WAITS, OTHERS_WAIT = 8.0, 3.0
# For how long the first process waits for others that end as they should.
END_SECONDS = 30.0
# Exit codes of processes that were asked to stop, as shells and as Popen write them.
STOPPED = {128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT}
GO_ON = "fit --ckpt_path last goes on from the last checkpoint"

_started: list[subprocess.Popen[bytes]] = []
_killing = threading.Event()


def join_run() -> None:
    """Starts to watch the other processes of the run; all but the first one keep quiet unless something is wrong."""
    _started.clear()
    _killing.clear()
    # Called by Lightning as soon as it has started the others; its own observer kills the first process.
    launcher: Any = subprocess_script
    launcher._launch_process_observer = _watch_started
    if _is_started():
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    if not is_first_of_all():
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)


def is_first() -> bool:
    """Whether this is the first process of its machine, which speaks for all."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) == 0


def is_first_of_all() -> bool:
    """Whether this is the first process over all machines, which alone writes files."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def wait_for_others() -> None:
    """Waits before an error is shown: where it is the consequence of another's, this process ends here."""
    if _started or _is_started() or not is_first():
        time.sleep(FIRST_WAITS if is_first() else OTHERS_WAIT)


def leave_run(succeeded: bool) -> None:
    """Ends the other processes; those of a run that succeeded, or was asked to stop, end by themselves.

    Raises:
        SystemExit: one of them failed at its very end.
    """
    deadline = time.monotonic() + (END_SECONDS if succeeded else 0.0)
    for process in _started:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _killing.set()
            process.kill()
            process.wait()
    failed = [process for process in _started if process.returncode and process.returncode not in STOPPED]
    _started.clear()
    if succeeded and failed:
        raise SystemExit(1)


def _is_started() -> bool:
    """Whether another process, Lightning's first one or torchrun, has started this one."""
    return "LOCAL_RANK" in os.environ and not _started


def _watch_started(processes: list[subprocess.Popen[bytes]]) -> None:
    _started[:] = processes
    threading.Thread(target=_watch_others, args=(list(processes),), daemon=True).start()


def _watch_others(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ends this process and all others when one has failed."""
    while not (codes := {number: code for number, process in enumerate(processes, start=1) if (code := process.poll())}):
        if all(process.returncode == 0 for process in processes):
            return
        time.sleep(POLL_SECONDS)
    if _killing.is_set():
        return
    number, code = next(iter(codes.items()))
    if code in STOPPED:  # so is this one, which has a checkpoint to write
        time.sleep(END_SECONDS)
    elif code < 0:  # else it has said what is wrong
        name = signal.Signals(-code).name
        reason = ", as the system does when memory is short" if name == "SIGKILL" else ""
        _say(f"error: the process of rank {number} (0 to {len(processes)}) was killed by {name}{reason}; {GO_ON}")
    for process in processes:
        process.kill()
    _end(1)


def _watch_parent(parent: int) -> None:
    """Ends this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if os.environ["LOCAL_RANK"] == "1":
        _say(f"error: the process that started this run was killed; {GO_ON}")
    _end(1)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _end(code: int) -> None:
    """Ends at once, even where the main thread waits for other processes."""
    for worker in multiprocessing.active_children():  # of loaders
        worker.kill()
    sys.stdout.flush()
    os._exit(code)
