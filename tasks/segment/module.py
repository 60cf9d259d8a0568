"""Training and evaluation of a segmenter with Lightning."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD

from backbones import Backbone, Tap
from heads import IGNORE_INDEX, CrossEntropyLoss, DeepLabV3, OHEMLoss, SegmentationHead
from tasks.export.engines import Precision
from tasks.finite import OnNan
from tasks.model import IMAGENET_MEAN, IMAGENET_STD
from tasks.module import OptimizerBuilder, TaskModule
from tasks.optim import Poly, Schedule
from tasks.segment.data import Batch
from tasks.segment.metrics import ConfusionMatrix, Evaluation, evaluate
from tasks.segment.model import Segmenter
from tasks.segment.report import write_report

# Validation images kept for the picture of predictions.
SHOWN_IMAGES = 12


class SegmentationModule(TaskModule):
    """Wraps a `Segmenter` for training.

    Args:
        backbone: makes the features.
        head: the segmentation head.
        class_names: names of the classes, background first; given by the data.
        size: height and width of the network's input in evaluation; given by the data.
        mean: per channel, of RGB in 0..1, subtracted from images; ImageNet's unless the weights want another.
        std: per channel, of RGB in 0..1, that images are then divided by.
        loss: called with (B, K, H, W) logits and (B, H, W) int64 masks: `heads.CrossEntropyLoss`, `heads.OHEMLoss`, or one of
            segmentation_models_pytorch.losses with mode multiclass and ignore_index 255. Over several processes, the first two are the mean
            over the pixels of all images together, the others a mean over processes.
        scales: sizes at which evaluation looks at an image, in sizes of the input (.5 .75 1 1.25 1.5 1.75 in the MobileNetV2 paper,
            table 7); probabilities are averaged.
        flip: whether evaluation looks at the mirror image too.
        sliding: whether evaluation moves a window of `size` over larger images, instead of reducing them to it.
        optimizer: the optimizer; weight decay applies to convolution weights only.
        schedule: learning rate over the run; its peak is the optimizer's.
        channels_last: keep images and weights in channels_last order, which is faster on CPUs and GPUs.
        weights: a segmentation checkpoint to start from, backbone and head.
        strict_weights: refuse one that lacks a parameter or has it in another shape, instead of naming what was skipped.
        on_nan: what follows a step whose loss or gradients are not finite: stop, or skip it and go on without what it changed.
        engine: an exported file (.onnx, or OpenVINO's .xml) that computes in place of the checkpoint's weights in `validate` and `test`.
        engine_precision: `f32`, or `bf16` for OpenVINO.
    """

    model_class = Segmenter

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        head: Callable[[dict[str, Tap], int], SegmentationHead] = DeepLabV3,
        size: tuple[int, int] = (513, 513),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        loss: nn.Module | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        sliding: bool = False,
        optimizer: OptimizerBuilder = lambda params: SGD(params, lr=0.02, momentum=0.9, weight_decay=4e-5),
        schedule: Schedule = Poly(),
        channels_last: bool = True,
        weights: str | None = None,
        strict_weights: bool = True,
        on_nan: OnNan = "stop",
        engine: str | None = None,
        engine_precision: Precision = "f32",
    ) -> None:
        model = Segmenter(backbone, head, class_names, size, mean, std, scales, flip, sliding)
        super().__init__(model, optimizer, schedule, channels_last, weights, strict_weights, on_nan, engine, engine_precision)
        self.loss = loss or CrossEntropyLoss()
        self.evaluation: Evaluation | None = None
        self.shown: list[tuple[Tensor, Tensor, Tensor]] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the loss of a batch of crops, at their size and in float32; 0 where all pixels are void."""
        images = torch.stack(batch.images).contiguous(memory_format=self.memory_format)
        masks = torch.stack(batch.masks).long()
        cells, head = self.model.cells(images).float(), self.model.head
        with torch.autocast(cells.device.type, enabled=False):
            if isinstance(self.loss, CrossEntropyLoss):
                return {"pixel": self.loss.of_cells(cells, masks, head)}
            logits = head.upsample(cells, masks.shape[1:])
            loss = self.loss(logits, masks)  # of a void batch too: processes may wait for each other in it
        # Of void pixels some losses of segmentation_models_pytorch make no number.
        return {"pixel": loss if isinstance(self.loss, OHEMLoss) or (masks != IGNORE_INDEX).any() else logits.sum() * 0}

    def on_validation_epoch_start(self) -> None:
        """Starts counting pixels."""
        super().on_validation_epoch_start()
        images = len(self.data.val_set)
        self.confusion = ConfusionMatrix(len(self.model.class_names), images).to(self.device)
        self.shown = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts the pixels of whole images, at the masks' own resolution."""
        maps = self.model.segment(batch.images)
        self.confusion.update(maps, batch.masks)
        self.shown += list(zip(batch.images, batch.masks, maps, strict=True))[: SHOWN_IMAGES - len(self.shown)]

    def on_validation_epoch_end(self) -> None:
        """Evaluates the whole set and logs `val/mIoU`, `val/pixel_accuracy`, ..."""
        self.evaluation = evaluate(self.confusion.compute().cpu().numpy(), self.model.class_names)
        for name, value in self.evaluation.figures.items():
            self.log_figure(name, value, prog_bar=name == "mIoU")
        if folder := self.report_folder:
            facts = {"images": self.confusion.counted, "checkpoint": self.trainer.ckpt_path, "engine": self.engine}
            write_report(folder, self.evaluation, self.shown, facts | {"images_left_out": self.data.images_left_out})

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end
