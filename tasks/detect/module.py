"""Training and evaluation of a detector with Lightning."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import SGD, Optimizer

from backbones import Backbone, Tap
from heads import DetectionHead, Detections, SSDLite
from tasks.detect.data import Batch
from tasks.detect.metrics import CollectedDetections, Evaluation, evaluate
from tasks.detect.model import IMAGENET_MEAN, IMAGENET_STD, Detector
from tasks.detect.report import write_report
from tasks.optim import Cosine, Schedule, parameter_groups

# Validation images kept for the picture of predictions.
SHOWN_IMAGES = 12


class DetectionModule(L.LightningModule):
    """Wraps a `Detector` for training.

    Args:
        backbone: makes the features.
        head: the detection head.
        class_names: names of the foreground classes; given by the data.
        size: height and width of the network's input; given by the data.
        mean: per channel, of RGB in 0..1, subtracted from images; ImageNet's unless the weights want another.
        std: per channel, of RGB in 0..1, that images are then divided by.
        optimizer: the optimizer; weight decay applies to convolution weights only.
        schedule: learning rate over the run; its peak is the optimizer's.
        channels_last: keep images and weights in channels_last order, which is faster on CPUs and GPUs.
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        head: Callable[[dict[str, Tap], int], DetectionHead] = SSDLite,
        size: tuple[int, int] = (320, 320),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        optimizer: Callable[[Iterable[Any]], Optimizer] = lambda params: SGD(params, lr=0.02, momentum=0.9, weight_decay=4e-5),
        schedule: Schedule = Cosine(warmup_steps=500),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.model = Detector(backbone, head, class_names, size, mean, std)
        self.optimizer, self.schedule = optimizer, schedule
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self.evaluation: Evaluation | None = None
        self.shown: list[tuple[Tensor, Detections, Tensor, Tensor]] = []

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            ValueError: the loss is not finite; the message names the images, and no optimizer step is taken.
        """
        images = batch.images.contiguous(memory_format=self.memory_format)
        losses = self.model.head.loss(self.model(images), batch.targets)
        loss = torch.stack(list(losses.values())).sum()
        if not loss.isfinite():
            files = self.trainer.datamodule.train_set.annotations.files[batch.indices.cpu()]  # type: ignore[attr-defined]
            raise ValueError(f"the loss became {loss.item()} at step {self.global_step}; the images were {', '.join(files)}")
        self.log_dict({f"train/{name}_loss": value for name, value in losses.items()}, batch_size=len(images))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Starts collecting detections."""
        self.collected = CollectedDetections()
        self.shown = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the detections of a batch, and its loss."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        predictions = self.model(images)
        losses = self.model.head.loss(predictions, batch.targets)
        self.log("val/loss", torch.stack(list(losses.values())).sum(), batch_size=len(images), sync_dist=True)
        detections = self.model.head.postprocess(predictions, batch.sizes)
        self.collected.update(batch.indices, detections)
        for place in range(min(SHOWN_IMAGES - len(self.shown), len(images))):
            scale = torch.tensor(images.shape[-2:], device=self.device).flip(0) / batch.sizes[place].flip(0)
            found = detections[place]._replace(boxes=detections[place].boxes * scale.repeat(2))
            self.shown.append((images[place], found, batch.targets.boxes[place], batch.targets.labels[place]))

    def on_validation_epoch_end(self) -> None:
        """Evaluates the whole set and logs `val/AP`, `val/AP50`, ..."""
        rows, seen = self.collected.compute()
        annotations = self.trainer.datamodule.val_set.annotations  # type: ignore[attr-defined]
        self.evaluation = evaluate(annotations, rows.cpu().numpy(), seen.cpu().numpy())
        for name, value in self.evaluation.figures.items():
            self.log(f"val/{name}", value, prog_bar=name == "AP", sync_dist=True)
        if self.trainer.state.fn != TrainerFn.FITTING and self.trainer.is_global_zero:
            facts = {"images": len(seen), "checkpoint": self.trainer.ckpt_path}
            write_report(Path(self.trainer.default_root_dir), self.evaluation, self.shown, facts)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another detector.

        Raises:
            ValueError: the checkpoint holds no detector, or one with other classes, preprocessing or shapes.
        """
        stored, own = checkpoint.get("detector"), self.model.describe()
        if stored is None:
            raise ValueError("the checkpoint holds no detector of tasks.detect")
        for key, what in (("class_names", "classes"), ("mean", "mean"), ("std", "std")):
            if stored[key] != own[key]:
                raise ValueError(f"the checkpoint's {what} are {stored[key]}, those of this run are {own[key]}")
        shapes, theirs = ({name: value.shape for name, value in state.items()} for state in (self.state_dict(), checkpoint["state_dict"]))
        wrong = [name for name in shapes | theirs if shapes.get(name) != theirs.get(name)]
        if wrong:
            raise ValueError(f"the checkpoint is of another architecture: {len(wrong)} tensors do not fit, the first is {wrong[0]}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the detector without any other argument."""
        checkpoint["detector"] = self.model.describe()
