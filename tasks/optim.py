"""Parameter groups and learning-rate schedules."""

from abc import ABC, abstractmethod

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
)


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """Splits trainable parameters so that only convolution and linear weights decay.

    Batch-norm scales and shifts, and biases, are parameters of one dimension and get `weight_decay` 0.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


class Schedule(ABC):
    """A learning rate over the optimizer steps of a run: linear warm-up, then a decay.

    The learning rate given to the optimizer is the peak; it is not scaled by batch size or number of devices.

    Args:
        warmup_steps: steps of the warm-up; where it would fill more than half of the run, half of the run.
        warmup_start: learning rate of the first step, as a share of the peak.
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1) -> None:
        self.warmup_steps, self.warmup_start = warmup_steps, warmup_start

    @abstractmethod
    def decay(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Returns the schedule of the `steps` steps after the warm-up."""

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Returns the whole schedule for a run of `total_steps` optimizer steps."""
        warmup = min(self.warmup_steps, total_steps // 2)
        after = self.decay(optimizer, max(total_steps - warmup, 1))
        if warmup == 0:
            return after
        rise = LinearLR(optimizer, self.warmup_start, total_iters=warmup)
        return SequentialLR(optimizer, [rise, after], milestones=[warmup])


class Cosine(Schedule):
    """Half a cosine from the peak to zero (Loshchilov & Hutter 2017)."""

    def decay(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Returns the schedule of the `steps` steps after the warm-up."""
        return CosineAnnealingLR(optimizer, steps)


class Exponential(Schedule):
    """A constant factor a step, such that the last step is at `end` times the peak.

    Args:
        warmup_steps: steps of the warm-up.
        warmup_start: learning rate of the first step, as a share of the peak.
        end: learning rate of the last step, as a share of the peak.
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1, end: float = 0.01) -> None:
        super().__init__(warmup_steps, warmup_start)
        self.end = end

    def decay(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Returns the schedule of the `steps` steps after the warm-up."""
        return ExponentialLR(optimizer, self.end ** (1 / max(steps - 1, 1)))


class Poly(Schedule):
    """(1 - step / steps) to the power `power`, DeepLab's schedule.

    Args:
        warmup_steps: steps of the warm-up.
        warmup_start: learning rate of the first step, as a share of the peak.
        power: .9 in DeepLab (research/deeplab train.py, learning_power).
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1, power: float = 0.9) -> None:
        super().__init__(warmup_steps, warmup_start)
        self.power = power

    def decay(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Returns the schedule of the `steps` steps after the warm-up."""
        return PolynomialLR(optimizer, steps, self.power)
