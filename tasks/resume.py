"""Checkpoints to continue from: when they are written, and what makes a continued run equal one that was never stopped.

Lightning skips a validation that was due where ModelCheckpoint saved within an epoch, and loses the last row of the history. Therefore
checkpoints are written here where nothing is half done: before and after a validation, after an epoch, and before a batch.
"""

import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from tasks.run_folder import CsvHistory

# A signal that comes again within these seconds is the same one: `timeout` sends to the process and to its group.
SAME_SIGNAL_SECONDS = 1.0


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` and, in case it gets damaged, the one before it as `previous.ckpt`; SIGTERM and Ctrl-C save first.

    Within gradient accumulation nothing is saved; a signal then waits for the optimizer step.

    Args:
        folder: where to write.
        minutes: the least time between two checkpoints within an epoch.
        steps: optimizer steps between two checkpoints within an epoch, beside those by time; None for none.

    Raises:
        ValueError: one is out of range.
    """

    def __init__(self, folder: Path, minutes: float = 15.0, steps: int | None = None) -> None:
        if minutes < 0 or (steps is not None and steps < 1):
            raise ValueError(f"checkpoint_minutes {minutes}, checkpoint_steps {steps}: accepted: 0 or more minutes, at least 1 step")
        self.folder, self.minutes, self.steps = folder, minutes, steps
        self.asked: int | None = None
        self.random: list[Any] = []
        self.gradients: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the randomness and the waiting gradients of a continued run back and starts to listen to signals."""
        _begin_epoch(trainer)
        if len(self.random) == trainer.world_size:
            _set_random(self.random[trainer.global_rank])
        for name, parameter in pl_module.named_parameters():
            if name in self.gradients:
                parameter.grad = self.gradients[name].to(parameter.device)
        self.gradients = {}
        # A damaged one, when going on from the one before it, must not take its place.
        self.is_last_good = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == (self.folder / "last.ckpt").resolve()
        self.saved, self.clock = _batches(trainer), time.monotonic()
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):  # Lightning puts the handlers of before back
                if signal.getsignal(number) != signal.SIG_IGN:  # as the shell makes it for what runs in the background
                    signal.signal(number, self._ask_to_stop)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Saves when it is time or when asked to stop."""
        wanted = self.asked is not None or self._is_due(trainer)
        if trainer.strategy.reduce_boolean_decision(wanted, all=False) and _is_between_steps(trainer):
            if self.saved != _batches(trainer):
                self._save(trainer)
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves before a validation, which may take long."""
        if _is_fitting(trainer) and _is_between_steps(trainer):
            self._save(trainer)
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()  # by which Lightning would tell an interrupted validation

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stops a validation when asked: the checkpoint before it is there."""
        if _is_fitting(trainer) and self.saved == _batches(trainer):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after a validation within an epoch."""
        if _is_fitting(trainer) and _is_between_steps(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after each epoch."""
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the randomness of each process, the end of the history and waiting gradients, and counts only what is done."""
        states: list[Any] = [_get_random()]
        if trainer.world_size > 1:
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, _get_random())
        checkpoint["random"] = states
        checkpoint["history"] = [history.state_dict() for history in _histories(trainer)]
        if not _is_between_steps(trainer):  # where another callback saves
            gradients = {name: parameter.grad for name, parameter in pl_module.named_parameters() if parameter.grad is not None}
            checkpoint["gradients"] = gradients
        _count_done(checkpoint["loops"]["fit_loop"], trainer.validating)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the randomness for the start of training, and cuts the history off."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.random, self.gradients = checkpoint.get("random", []), checkpoint.get("gradients", {})
            for history, state in zip(_histories(trainer), checkpoint.get("history", []), strict=False):
                history.load_state_dict(state)

    def _is_due(self, trainer: L.Trainer) -> bool:
        by_steps = self.steps is not None and trainer.global_step % self.steps == 0
        return by_steps or time.monotonic() - self.clock > 60 * self.minutes

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last = self.folder / "last.ckpt"
        if trainer.is_global_zero and self.is_last_good:
            _keep(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last, weights_only=False)
        self.is_last_good = True
        self.saved, self.clock = _batches(trainer), time.monotonic()

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.asked is not None, all=False):
            if trainer.is_global_zero:
                print(f"stopped at step {trainer.global_step}; --ckpt_path last goes on from here", file=sys.stderr)
            raise SystemExit(128 + (self.asked or signal.SIGTERM))

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        """Notes the signal; a second Ctrl-C stops at once, without saving."""
        if self.asked is None:
            self.asked, self.asked_at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.asked_at > SAME_SIGNAL_SECONDS:
            raise SystemExit(128 + number)


def _keep(file: Path, name: Path) -> None:
    """Gives a file a second name, or copies it where the disk knows no such names, so that both are there at any moment."""
    unfinished = name.with_name(f".{name.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(file, unfinished)
    except OSError:
        shutil.copyfile(file, unfinished)
    os.replace(unfinished, name)


def _batches(trainer: L.Trainer) -> int:
    """Batches that the network has seen."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return int(progress.total.processed)


def _is_fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _is_between_steps(trainer: L.Trainer) -> bool:
    """Whether no gradients wait for more batches."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    done = int(progress.current.processed)
    return done % trainer.accumulate_grad_batches == 0 or done >= trainer.num_training_batches


def _histories(trainer: L.Trainer) -> list[CsvHistory]:
    return [logger for logger in trainer.loggers if isinstance(logger, CsvHistory)]


def _count_done(loops: dict[str, Any], validating: bool) -> None:
    """Corrects Lightning's progress in a checkpoint: a batch that was only fetched, or a validation that only began, is yet to come."""
    batches, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    if batches["current"]["ready"] > batches["current"]["started"]:
        for counts in (batches["total"], batches["current"]):
            counts["ready"] = counts["started"]
        batches["is_last_batch"] = False
    if validating and not validation["current"]["completed"]:
        # The state by which Lightning goes back to a validation, from its first batch on.
        validation["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def _begin_epoch(trainer: L.Trainer) -> None:
    """Lets a run that is limited by steps go on with the next epoch after a finished one, as Lightning does for those limited by epochs."""
    loop: Any = trainer.fit_loop
    epoch = loop.epoch_progress.current
    if loop.restarting and epoch.started == epoch.processed:
        loop._restarting = loop.epoch_loop.restarting = False
        for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
            part.reset_restart_stage()
        epoch.completed = epoch.processed
        loop.epoch_progress.total.completed = loop.epoch_progress.total.processed


def _get_random() -> dict[str, Any]:
    """The state of all global generators, as tensors and plain values."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": (name, keys.tolist(), *rest)}


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
