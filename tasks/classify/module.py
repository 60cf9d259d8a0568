"""Training and evaluation of a classifier with Lightning."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD

from backbones import Backbone, Tap
from heads import ClassifierHead
from tasks.classify.data import Batch
from tasks.classify.metrics import ClassCounts, Evaluation, evaluate
from tasks.classify.mix import BatchMix
from tasks.classify.model import CROP, Classifier
from tasks.classify.report import Shown, write_report
from tasks.finite import OnNan
from tasks.model import IMAGENET_MEAN, IMAGENET_STD
from tasks.module import OptimizerBuilder, TaskModule
from tasks.optim import Cosine, Schedule

# Validation images kept for the picture of predictions, spread over the set, and as many of the worst mistakes.
SHOWN_IMAGES = 12


class ClassificationModule(TaskModule):
    """Wraps a `Classifier` for training.

    Args:
        backbone: makes the features.
        head: the classification head.
        class_names: names of the classes; given by the data.
        size: height and width of the network's input; given by the data.
        crop: side of the part in the middle of an image that evaluation looks at; given by the data.
        mean: per channel, of RGB in 0..1, subtracted from images; ImageNet's unless the weights want another.
        std: per channel, of RGB in 0..1, that images are then divided by.
        label_smoothing: share of each label that is spread over all classes in training.
        mixup: both parameters of the beta distribution by which pairs of training images are mixed; 0 for none, .2 is usual.
        cutmix: those by which a part of one is pasted into the other; 0 for none, 1 is usual. With both, each batch draws one of them.
        optimizer: the optimizer; weight decay applies to convolution and linear weights only.
        schedule: learning rate over the run; its peak is the optimizer's.
        channels_last: keep images and weights in channels_last order, which is faster on CPUs and GPUs.
        weights: a classification checkpoint to start from, backbone and head.
        strict_weights: refuse one that lacks a parameter or has it in another shape, instead of naming what was skipped.
        on_nan: what follows a step whose loss or gradients are not finite: stop, or skip it and go on without what it changed.

    Raises:
        ValueError: `label_smoothing`, `mixup` or `cutmix` is out of range.
    """

    model_class = Classifier

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        head: Callable[[dict[str, Tap], int], ClassifierHead] = ClassifierHead,
        size: tuple[int, int] = (224, 224),
        crop: float = CROP,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        optimizer: OptimizerBuilder = lambda params: SGD(params, lr=0.05, momentum=0.9, weight_decay=4e-5),
        schedule: Schedule = Cosine(warmup_steps=500),
        channels_last: bool = True,
        weights: str | None = None,
        strict_weights: bool = True,
        on_nan: OnNan = "stop",
    ) -> None:
        model = Classifier(backbone, head, class_names, size, mean, std, crop)
        super().__init__(model, optimizer, schedule, channels_last, weights, strict_weights, on_nan)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not possible; accepted: 0 to under 1")
        self.label_smoothing = label_smoothing
        self.mix = BatchMix(len(class_names), mixup, cutmix)
        self.evaluation: Evaluation | None = None
        self.shown: list[Shown] = []
        self.mistakes: list[Shown] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the cross-entropy of a batch, mixed if wanted, in float32."""
        images, shares = self.mix(batch.images, batch.labels)
        logits = self.model(images.contiguous(memory_format=self.memory_format))
        return {"class": F.cross_entropy(logits.float(), shares, label_smoothing=self.label_smoothing)}

    def on_validation_epoch_start(self) -> None:
        """Starts counting images."""
        super().on_validation_epoch_start()
        self.images = len(self.data.val_set)
        self.counts = ClassCounts(len(self.model.class_names), self.images).to(self.device)
        self.shown, self.mistakes = [], []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts the images of a batch."""
        logits = self.model(batch.images.contiguous(memory_format=self.memory_format))
        self.counts.update(logits, batch.labels)
        if self.report_folder:
            self._keep_shown(batch, logits.float().softmax(dim=1))

    def _keep_shown(self, batch: Batch, probabilities: Tensor) -> None:
        """Keeps images evenly spread over the set, for folders put those of a class side by side, and the surest mistakes."""
        wanted = set(torch.linspace(0, self.images - 1, SHOWN_IMAGES).int().tolist())
        found = [Shown(*row) for row in zip(batch.images, batch.labels.tolist(), probabilities.cpu(), strict=True)]
        self.shown += [one for one, position in zip(found, batch.indices.tolist(), strict=True) if position in wanted]
        wrong = [one for one in found if one.is_wrong]
        self.mistakes = sorted([*self.mistakes, *wrong], key=lambda one: -float(one.probabilities.max()))[:SHOWN_IMAGES]

    def on_validation_epoch_end(self) -> None:
        """Evaluates the whole set and logs `val/top1`, `val/top5`, ..."""
        self.evaluation = evaluate(self.counts.compute(), self.model.class_names)
        for name, value in self.evaluation.figures.items():
            self.log_figure(name, value, prog_bar=name == "top1")
        if folder := self.report_folder:
            facts = {"images": self.counts.counted, "checkpoint": self.trainer.ckpt_path, "images_left_out": self.data.images_left_out}
            write_report(folder, self.evaluation, self.shown, self.mistakes, facts)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end
