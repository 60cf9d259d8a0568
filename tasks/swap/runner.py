"""Runs trainings as processes of their own, so that a failure of one is none of the others."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from tasks.cost.latency import processor
from tasks.swap.plan import Run
from tasks.swap.records import Place, clear, last_checkpoint, place_of, read_json, state_of, versions, write_json

# Seconds between two looks at a process, between two notes of how long it has run, and that it may take to save when it is stopped.
LOOK_SECONDS, NOTE_SECONDS, STOP_SECONDS = 0.5, 30.0, 120.0
# What a run's process runs.
CHILD = (sys.executable, "-m", "tasks.swap.child")
# Bytes at the end of a log in which the reason of a failure is looked for.
TAIL_BYTES = 65536
# Words of the warning that `tasks.model` gives where a backbone's weights expect other images.
EXPECTS = "the backbone's weights were trained with"


class Work(NamedTuple):
    """A run with all that a process needs, also on another machine that sees the same folders.

    Attributes:
        run: the run.
        root: folder of the experiment.
        threads: of the CPU that it may use.
        device: number or name of its CUDA device, "" for the CPU alone, None for what the launcher gives it.
        together: how many runs go on at once, for the record.
    """

    run: Run
    root: Path
    threads: int
    device: str | None
    together: int


class Job:
    """The process of a run.

    Args:
        work: what to run.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.run = work.run
        self.place: Place = place_of(work.root, work.run)
        self.record: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the run, or continues it from its last checkpoint.

        Raises:
            ValueError: a process of an earlier experiment still writes to its folder.
        """
        before = read_json(self.place.record)
        wait_for_end(before)
        continues = state_of(self.work.root, self.run) in ("unfinished", "failed") and last_checkpoint(self.place) is not None
        if not continues:
            clear(self.work.root, self.run)
        self.place.config.parent.mkdir(parents=True, exist_ok=True)
        self.place.config.write_text(yaml.safe_dump(self.run.config, sort_keys=False), encoding="utf-8")
        self.place.log.parent.mkdir(parents=True, exist_ok=True)
        self.before = float(before.get("seconds", 0.0)) if continues else 0.0
        self.began = self.noted = time.monotonic()
        self.record = self._begun(before if continues else {})
        write_json(self.place.record, self.record)  # before the process, so that its folder never stands without a record
        self.process = self._launch(continues)
        self._note("running", {"pid": self.process.pid})

    def _begun(self, before: dict[str, Any]) -> dict[str, Any]:
        """The record of a run that begins, or that continues what is recorded."""
        return {
            "task": self.run.task,
            "backbone": self.run.backbone,
            "seed": self.run.seed,
            "hash": self.run.hash,
            "state": "running",
            "continued": int(before["continued"]) + 1 if before else 0,
            "seconds": self.before,
            "threads": self.work.threads,
            "device": self.work.device,
            "together": self.work.together,
            "host": platform.node(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "started": before.get("started") or time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "pid": None,
        }

    def _launch(self, continues: bool) -> "subprocess.Popen[bytes]":
        arguments = self._arguments(continues)
        with self.place.log.open("ab" if continues else "wb") as log:
            log.write(f"$ python -m tasks.{self.run.task} {' '.join(arguments)}\n".encode())
            log.flush()
            # A session of its own: a terminal's interrupt reaches this process alone, which then stops the run in order.
            return subprocess.Popen(
                [*CHILD, str(os.getpid()), self.run.task, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )

    def _arguments(self, continues: bool) -> list[str]:
        """The command line of the task."""
        given = ["fit", "--config", str(self.place.config), "--runs", str(self.work.root), "--name", self.run.name]
        return [*given, "--trainer.enable_progress_bar=false", *(["--ckpt_path", "last"] if continues else [])]

    def _environment(self) -> dict[str, str]:
        environment = os.environ | {"OMP_NUM_THREADS": str(self.work.threads), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        return environment if self.work.device is None else environment | {"CUDA_VISIBLE_DEVICES": self.work.device}

    @property
    def seconds(self) -> float:
        """How long it has run, in all its parts."""
        return self.before + time.monotonic() - self.began

    def poll(self) -> bool:
        """Says whether the process has ended."""
        if self.process is not None and self.process.poll() is None:
            if time.monotonic() - self.noted > NOTE_SECONDS:
                self.noted = time.monotonic()
                self._note("running")
            return False
        return True

    def finish(self) -> dict[str, Any]:
        """Records how an ended process ended.

        Returns:
            The record.
        """
        code = self.process.returncode if self.process else None
        done = code == 0 and (self.place.folder / "metrics.json").is_file()
        reason = {} if done else {"exit_code": code, "error": reason_of(self.place.log, code)}
        self._note("done" if done else "failed", reason | {"warnings": warnings_of(self.place.log)})
        return self.record

    def stop(self) -> None:
        """Asks the process to save a checkpoint and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self, until: float) -> None:
        """Waits until the process has ended, and kills it when it takes too long.

        Args:
            until: time.monotonic() of its last moment.
        """
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # with its loader workers
            self.process.wait()
        self._note("stopped")

    def _note(self, state: str, more: dict[str, Any] | None = None) -> None:
        self.record |= {"state": state, "seconds": round(self.seconds, 1)} | (more or {})
        write_json(self.place.record, self.record)


def execute(work: Work) -> dict[str, Any]:
    """Runs one training from its beginning to its end; an interrupt stops it in order.

    Returns:
        Its record.
    """
    job = Job(work)
    job.start()
    try:
        while not job.poll():
            time.sleep(LOOK_SECONDS)
    except BaseException:
        stop_all([job])
        raise
    return job.finish()


def run_local(
    works: list[Work],
    slots: list[str],
    on_start: Callable[[Job], None],
    on_end: Callable[[Job], None],
    on_look: Callable[[list[Job]], None],
) -> None:
    """Runs trainings on this machine, as many at once as there are slots.

    Args:
        works: what to run, in order.
        slots: the CUDA device of each run that may go on at once; "" for the CPU.
        on_start: called with each job that begins.
        on_end: called with each job that has ended, after its record is written.
        on_look: called again and again with the jobs that go on.
    """
    waiting, free, active = list(works), list(slots), list[Job]()
    try:
        while waiting or active:
            while waiting and free:
                job = Job(waiting.pop(0)._replace(device=free.pop(0)))
                active.append(job)
                job.start()
                on_start(job)
            for job in [job for job in active if job.poll()]:
                job.finish()
                active.remove(job)
                free.append(job.work.device or "")
                on_end(job)
            on_look(active)
            time.sleep(LOOK_SECONDS)
    except BaseException:
        stop_all(active)
        raise


def stop_all(jobs: list[Job]) -> None:
    """Stops processes together; each may save a checkpoint."""
    for job in jobs:
        job.stop()
    until = time.monotonic() + STOP_SECONDS
    for job in jobs:
        job.wait_stopped(until)


def reason_of(log: Path, code: int | None) -> str:
    """Returns why a run failed: the last line of its log, or the signal that ended it."""
    if code is not None and code < 0:
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"
    if code == 0:
        return "wrote no metrics.json"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    said = [line for line in lines if line.startswith("error:")]
    return (said or lines or ["said nothing"])[-1].removeprefix("error: ")[:500]


def warnings_of(log: Path) -> list[str]:
    """Returns what a run said of images that its backbone's weights expect to be normalised in another way."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if EXPECTS in line))


def wait_for_end(record: dict[str, Any]) -> None:
    """Waits for the process of a record, which a killed experiment may have left behind while it saves.

    Raises:
        ValueError: it does not end.
    """
    until = time.monotonic() + STOP_SECONDS
    while _is_running(record):
        if time.monotonic() > until:
            raise ValueError(f"process {record['pid']} still runs {record['backbone']} with seed {record['seed']}; end it first")
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(record["pid"], signal.SIGTERM)
        time.sleep(1)


def _is_running(record: dict[str, Any]) -> bool:
    if record.get("state") != "running" or record.get("host") != platform.node():
        return False
    try:  # Linux only; elsewhere such a process is not found
        command = Path(f"/proc/{record['pid']}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return f"\0{record['task']}\0fit\0" in command and f"\0--name\0{record['backbone']}_seed{record['seed']}\0" in command
