"""What the training modules of all tasks share: optimizer, schedule, training step and checkpoints."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from tasks.checkpoint import description
from tasks.export.engines import Precision, load_engine
from tasks.finite import OnNan, StepGuard, all_finite, check_state, report
from tasks.model import TaskModel
from tasks.optim import Schedule, fused, parameter_groups

log = logging.getLogger("lightning.pytorch")

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
        on_nan: what follows a step whose loss or gradients are not finite: stop, or skip it and go on without what it changed.
        engine: an exported file that computes in evaluations, instead of the checkpoint's weights.
        engine_precision: what it computes in.
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
        on_nan: OnNan,
        engine: str | None = None,
        engine_precision: Precision = "f32",
    ) -> None:
        super().__init__()
        self.engine, self.engine_precision = engine, engine_precision
        self.guard = StepGuard(on_nan)
        if weights is not None:
            model.load_weights(weights, strict_weights)
        self.model: Any = model
        self.optimizer, self.schedule = optimizer, schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)

    def setup(self, stage: str) -> None:
        """Opens the exported file.

        Raises:
            ValueError: it cannot be read, is of another model, or is to be trained.
        """
        if self.engine is not None:
            if stage == "fit":
                raise ValueError(f"model.engine {self.engine} cannot be trained; accepted by validate and test")
            self.model.run_by(load_engine(self.engine, precision=self.engine_precision))

    def configure_optimizers(self) -> Any:
        """Builds the optimizer over two parameter groups and its schedule."""
        optimizer = self.optimizer(parameter_groups(self.model))
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:
            optimizer = fused(optimizer)
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

    def on_train_start(self) -> None:
        """Starts to guard the buffers, among them the running statistics of batch norms."""
        self.guard.watch(self.buffers())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the loss of a batch; what is logged is the mean over the processes."""
        self.guard.begin()
        losses = self.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        found = self._over_processes(torch.stack([*losses.values(), loss]).detach())
        if len(losses) > 1:
            self.log_dict({f"train/{name}_loss": value for name, value in zip(losses, found, strict=False)}, batch_size=len(batch.indices))
        self.log("train/loss", found[-1], prog_bar=True, batch_size=len(batch.indices))
        return self.guard.note(batch.indices, losses, loss)

    def _over_processes(self, values: Tensor) -> Tensor:
        """The mean of (N,) values over the processes, in steps that are logged; else those of this one, which wait for nobody."""
        distributed = torch.distributed
        is_one_of_several = distributed.is_available() and distributed.is_initialized()
        if is_one_of_several and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            distributed.all_reduce(values)
            values = values / distributed.get_world_size()
        return values

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Looks at the gradients of a step, for which it waits for the device.

        Raises:
            ValueError: the loss or a gradient is not finite; the message names step, losses and images, and no step is taken.
        """
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        healthy = all_finite([*gradients, *self.guard.losses()])
        if not healthy and getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            healthy = not self._is_lost()  # in float16 gradients overflow now and then, and the scaler skips such a step itself
        if healthy:
            self.guard.accept()
        else:
            self._leave_out()
        if self.guard.policy == "skip":
            self.log("train/skipped", float(self.guard.skipped))

    def on_validation_start(self) -> None:
        """Looks at batches whose gradients wait for more, lest a validation judges and saves what they spoilt.

        Raises:
            ValueError: see `on_before_optimizer_step`.
        """
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking and self.guard.waiting and self._is_lost():
            self._leave_out()

    def on_train_end(self) -> None:
        """Says how many steps were skipped."""
        if self.guard.skipped:
            log.warning("of %d steps %d were skipped because they were not finite", self.global_step, self.guard.skipped)

    def _is_lost(self) -> bool:
        """Whether a waiting batch of any process has a loss that is not finite."""
        return bool(self.trainer.strategy.reduce_boolean_decision(not all_finite(self.guard.losses()), all=False))

    def _leave_out(self) -> None:
        files = self.data.train_set.annotations.files
        seen = [
            ({name: value.item() for name, value in losses.items()}, [str(file) for file in files[indices.cpu().numpy()]])
            for indices, losses in self.guard.waiting
        ]
        batches: list[Any] = [seen] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(batches, seen)
        named = ((name, parameter.grad) for name, parameter in self.named_parameters())
        wrong = next((name for name, gradient in named if gradient is not None and not gradient.isfinite().all()), "")
        message = report(self.global_step, list(chain(*batches)), wrong)
        self.guard.undo(self.parameters())
        self.guard.decide(message)

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
        """Refuses a checkpoint of another model, and goes on counting skipped steps.

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
        if "skipped" in checkpoint:
            self.guard.load_state_dict(checkpoint["skipped"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the model without any other argument, and the count of skipped steps.

        Raises:
            ValueError: weights, running statistics or the optimizer's state are not finite.
        """
        statistics = {name for name, _ in self.named_buffers() if name.endswith(("running_mean", "running_var"))}
        check_state(checkpoint, statistics | {name for name, _ in self.named_parameters()})
        checkpoint[self.model.kind] = self.model.describe()
        checkpoint["skipped"] = self.guard.state_dict()
