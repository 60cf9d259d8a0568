"""Exponential moving average of the weights."""

from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from tasks.module import TaskModule


class EMA(WeightAveraging):
    """Averages weights and buffers with the decay min(decay, (1 + n) / (10 + n)) at step n, and validates and saves the average.

    The growing decay is that of TensorFlow's ExponentialMovingAverage with `num_updates`. Without it, as in Lightning's EMAWeightAveraging,
    the first, random weights fill the average of a short run.

    Args:
        decay: share that the average keeps at each step; .9999 in TensorFlow's ssdlite_mobilenet_v2_coco.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=partial(_average, decay=decay))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Averages after each step that was not skipped."""
        if isinstance(pl_module, TaskModule) and pl_module.guard.has_skipped:
            self._latest_update_step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores both sets of weights to go on training; an evaluation has the average already, as the checkpoint's weights."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


@torch.no_grad()
def _average(averages: list[Tensor], currents: list[Tensor], updates: Any, decay: float) -> None:
    weight = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, currents, weight)
    else:  # counters of batches
        torch._foreach_copy_(averages, currents)
