"""Training and evaluation of a detector with Lightning."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import SGD

from backbones import Backbone, Tap
from heads import BoxPredictions, DetectionHead, Detections, SSDLite, Targets
from tasks.detect.data import Batch
from tasks.detect.metrics import CollectedDetections, Evaluation, evaluate
from tasks.detect.model import Detector
from tasks.detect.report import write_report
from tasks.export.engines import Precision
from tasks.finite import OnNan
from tasks.metrics import MeanOverImages
from tasks.model import IMAGENET_MEAN, IMAGENET_STD
from tasks.module import OptimizerBuilder, TaskModule
from tasks.optim import Cosine, Schedule

# Validation images kept for the picture of predictions.
SHOWN_IMAGES = 12


class DetectionModule(TaskModule):
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
        weights: a detection checkpoint to start from, backbone and head.
        strict_weights: refuse one that lacks a parameter or has it in another shape, instead of naming what was skipped.
        on_nan: what follows a step whose loss or gradients are not finite: stop, or skip it and go on without what it changed.
        engine: an exported file (.onnx, or OpenVINO's .xml) that computes in place of the checkpoint's weights in `validate` and `test`.
        engine_precision: `f32`, or `bf16` for OpenVINO.
    """

    model_class = Detector

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        head: Callable[[dict[str, Tap], int], DetectionHead] = SSDLite,
        size: tuple[int, int] = (320, 320),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        optimizer: OptimizerBuilder = lambda params: SGD(params, lr=0.02, momentum=0.9, weight_decay=4e-5),
        schedule: Schedule = Cosine(warmup_steps=500),
        channels_last: bool = True,
        weights: str | None = None,
        strict_weights: bool = True,
        on_nan: OnNan = "stop",
        engine: str | None = None,
        engine_precision: Precision = "f32",
    ) -> None:
        super().__init__(
            Detector(backbone, head, class_names, size, mean, std),
            *(optimizer, schedule, channels_last, weights, strict_weights, on_nan, engine, engine_precision),
        )
        self.evaluation: Evaluation | None = None
        self.shown: list[tuple[Tensor, Detections, Tensor, Tensor]] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the head's losses of a batch."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        losses: dict[str, Tensor] = self.model.head.loss(self.model(images), batch.targets)
        return losses

    def on_validation_epoch_start(self) -> None:
        """Starts collecting detections."""
        super().on_validation_epoch_start()
        self.collected = CollectedDetections()
        self.mean_loss = MeanOverImages(len(self.data.val_set)).to(self.device)
        self.shown = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the detections of a batch, and the loss of each of its images."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        predictions = self.model(images)
        self.mean_loss.update(self._loss_of_images(predictions, batch.targets))
        detections = self.model.head.postprocess(predictions, batch.sizes)
        self.collected.update(batch.indices, detections)
        for place in range(min(SHOWN_IMAGES - len(self.shown), len(images))):
            scale = torch.tensor(images.shape[-2:], device=self.device).flip(0) / batch.sizes[place].flip(0)
            found = detections[place]._replace(boxes=detections[place].boxes * scale.repeat(2))
            self.shown.append((images[place], found, batch.targets.boxes[place], batch.targets.labels[place]))

    def _loss_of_images(self, predictions: BoxPredictions, targets: Targets) -> Tensor:
        """(B,) the loss of each image alone, which depends neither on the batch size nor on the number of processes."""
        found = []
        for place in range(len(targets.labels)):
            own = slice(place, place + 1)
            alone = predictions._replace(class_logits=predictions.class_logits[own], box_deltas=predictions.box_deltas[own])
            losses = self.model.head.loss(alone, Targets(targets.boxes[own], targets.labels[own]))
            found.append(torch.stack(list(losses.values())).sum())
        return torch.stack(found)

    def on_validation_epoch_end(self) -> None:
        """Evaluates the whole set and logs `val/AP`, `val/AP50`, ... and the mean loss of its images as `val/loss`."""
        self.log_figure("loss", self.mean_loss.compute())
        rows, seen = self.collected.compute()
        annotations = self.data.val_set.annotations
        self.evaluation = evaluate(annotations, rows.cpu().numpy(), seen.cpu().numpy())
        for name, value in self.evaluation.figures.items():
            self.log_figure(name, value, prog_bar=name == "AP")
        if folder := self.report_folder:
            facts = {"images": seen.numel(), "checkpoint": self.trainer.ckpt_path, "engine": self.engine}
            facts |= {"classes_left_out": annotations.left_out, "images_left_out": self.data.images_left_out}
            write_report(folder, self.evaluation, self.shown, facts)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end
