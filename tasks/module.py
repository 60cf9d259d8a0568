"""What the training modules of all tasks share: optimizer, schedule, training step and checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from tasks.model import TaskModel, description
from tasks.optim import Schedule, parameter_groups

OptimizerBuilder = Callable[[Iterable[Any]], Optimizer]


class TaskModule(L.LightningModule, ABC):
    """Wraps a plain model for training.

    Args:
        model: the model to train.
        optimizer: the optimizer; weight decay applies to convolution weights only.
        schedule: learning rate over the run; its peak is the optimizer's.
        channels_last: keep images and weights in channels_last order, which is faster on CPUs and GPUs.
        weights: a checkpoint of the same task to start from, backbone and head.
        strict_weights: refuse one that lacks a parameter or has it in another shape, instead of naming what was skipped.
    """

    # The plain model that it wraps.
    model_class: ClassVar[type[TaskModel]]

    def __init__(
        self,
        model: TaskModel,
        optimizer: OptimizerBuilder,
        schedule: Schedule,
        channels_last: bool,
        weights: str | None,
        strict_weights: bool,
    ) -> None:
        super().__init__()
        if weights is not None:
            model.load_weights(weights, strict_weights)
        self.model: Any = model
        self.optimizer, self.schedule = optimizer, schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)

    def configure_optimizers(self) -> Any:
        """Builds the optimizer over two parameter groups and its schedule."""
        optimizer = self.optimizer(parameter_groups(self.model))
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("the schedule needs the length of the run; set trainer.max_epochs or trainer.max_steps")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule.build(optimizer, int(steps)), "interval": "step"},
        }

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Returns the named scalar losses of a training batch; their sum is minimised."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the loss of a batch; logs its mean over the processes.

        Raises:
            ValueError: the loss is not finite; the message names the images, and no optimizer step is taken.
        """
        losses = self.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        if not loss.isfinite():
            files = self.data.train_set.annotations.files[batch.indices.cpu()]
            raise ValueError(f"the loss became {loss.item()} at step {self.global_step}; the images were {', '.join(files)}")
        if len(losses) > 1:
            self.log_dict({f"train/{name}_loss": value for name, value in losses.items()}, batch_size=len(batch.indices), sync_dist=True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.indices), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Gives all processes the buffers of the first, whose own a checkpoint holds; each has other statistics of batch norms."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def log_figure(self, name: str, value: float, prog_bar: bool = False) -> None:
        """Logs a result of a whole set, which all processes have found alike, as `val/<name>`."""
        # A mean over three processes would round it.
        self.log(f"val/{name}", value, prog_bar=prog_bar, sync_dist=True, reduce_fx="max")

    @property
    def data(self) -> Any:
        """The data module of the run.

        Raises:
            ValueError: the trainer was given loaders instead.
        """
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if datamodule is None:
            raise ValueError("the trainer was given loaders; accepted: a data module of the task, which knows files and classes")
        return datamodule

    @property
    def report_folder(self) -> Path | None:
        """Where an evaluation of its own leaves its report; None for those during training, and for all but the first process."""
        apart = self.trainer.state.fn != TrainerFn.FITTING and self.trainer.is_global_zero
        return Path(self.trainer.default_root_dir) if apart else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model.

        Raises:
            ValueError: the checkpoint holds no such model, or one with other classes, preprocessing or shapes.
        """
        stored, own = description(checkpoint, self.model.kind, "the checkpoint"), self.model.describe()
        for key, what in (("class_names", "classes"), ("mean", "mean"), ("std", "std")):
            if stored[key] != own[key]:
                raise ValueError(f"the checkpoint's {what} are {stored[key]}, those of this run are {own[key]}")
        shapes, theirs = ({name: value.shape for name, value in state.items()} for state in (self.state_dict(), checkpoint["state_dict"]))
        wrong = [name for name in shapes | theirs if shapes.get(name) != theirs.get(name)]
        if wrong:
            raise ValueError(f"the checkpoint is of another architecture: {len(wrong)} tensors do not fit, the first is {wrong[0]}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the model without any other argument."""
        checkpoint[self.model.kind] = self.model.describe()
