"""How long training waits for data, and how long its steps take."""

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

log = logging.getLogger("lightning.pytorch")

# What is said at the end: from this share of this many seconds on.
NOTABLE, LEAST_SECONDS = 0.2, 60.0


class StepTimes(Callback):
    """Logs the seconds that a step takes (`time/step`) and waits for its batch (`time/data`), and the images a second of all processes.

    They are means over the steps since the last row of the history, by the clock of the first process. Nothing waits for the device here;
    the look at the gradients does, before each optimizer step. Validation counts for neither.
    """

    def __init__(self) -> None:
        self.total, self.clock = {"data": 0.0, "step": 0.0}, 0.0
        self._begin()

    def _begin(self) -> None:
        self.recent, self.steps, self.images = {"data": 0.0, "step": 0.0}, 0, 0

    def _tick(self, what: str) -> None:
        now = time.perf_counter()
        self.recent[what] += now - self.clock
        self.total[what] += now - self.clock
        self.clock = now

    def on_train_epoch_start(self, *args: Any) -> None:
        """Starts the clock."""
        self.clock = time.perf_counter()

    def on_train_batch_start(self, *args: Any) -> None:
        """Notes how long the batch took to come."""
        self._tick("data")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Notes how long the step took, and logs in steps that are logged."""
        self._tick("step")
        self.steps, self.images = self.steps + 1, self.images + len(batch.indices) * trainer.world_size
        if trainer._logger_connector.should_update_logs:  # as Lightning's LearningRateMonitor asks
            seconds = {f"time/{what}": spent / self.steps for what, spent in self.recent.items()}
            speed = self.images / max(sum(self.recent.values()), 1e-9)
            for logger in trainer.loggers:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                logger.log_metrics(seconds | {"time/images_per_second": speed}, step=step)
            self._begin()

    def on_validation_end(self, *args: Any) -> None:
        """Starts the clock anew."""
        self.clock = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says where training has waited for data."""
        seconds = sum(self.total.values())
        share = self.total["data"] / max(seconds, 1e-9)
        if share >= NOTABLE and seconds >= LEAST_SECONDS and trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            helps = f"more of --data.num_workers (now {getattr(data, 'num_workers', 0)})"
            if getattr(data, "cache", "") is None:
                helps += ", or --data.cache,"
            log.warning("%.0f %% of the time of training was spent waiting for data; %s may help", 100 * share, helps)
