"""Parameter groups and learning-rate schedules."""

import math
from abc import ABC, abstractmethod
from typing import Any, cast

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

# Optimizers of torch that can step by one kernel on CPUs and GPUs.
FUSIBLE = (SGD, Adam, AdamW)


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """Splits trainable parameters so that only convolution and linear weights decay.

    Batch-norm scales and shifts, and biases, are parameters of one dimension and get `weight_decay` 0.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def fused(optimizer: Optimizer) -> Optimizer:
    """Returns the same optimizer in the form that steps by one kernel, where torch has one and the arguments do not say otherwise.

    On a CPU a step of SGD for MobileNetV2 takes a sixth of the time. It must not have taken a step yet.
    """
    is_open = all(
        group.get("fused", False) is group.get("foreach", False) is None and not group.get("differentiable")
        for group in optimizer.param_groups
    )
    devices = {parameter.device.type for group in optimizer.param_groups for parameter in group["params"]}
    if type(optimizer) not in FUSIBLE or not is_open or not devices <= {"cpu", "cuda"}:
        return optimizer
    groups = [{key: value for key, value in group.items() if key not in ("fused", "foreach")} for group in optimizer.param_groups]
    built: Any = cast(Any, type(optimizer))(groups, fused=True)
    # It could undo the scaling of float16 itself, for which Lightning refuses to clip gradients; without a scaler there is nothing to undo.
    built._step_supports_amp_scaling = False
    return cast(Optimizer, built)


class Schedule(ABC):
    """A learning rate over the optimizer steps of a run: linear warm-up, then a decay.

    The learning rate given to the optimizer is the peak; it is not scaled by batch size or number of devices. A run that is continued with
    more steps follows the longer schedule from where it is.

    Args:
        warmup_steps: steps of the warm-up; where it would fill more than half of the run, half of the run.
        warmup_start: learning rate of the first step, as a share of the peak.

    Raises:
        ValueError: the warm-up has less than no steps, or a share is not 0 to 1.
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1) -> None:
        if warmup_steps < 0 or not 0 <= warmup_start <= 1:
            raise ValueError(f"warmup_steps {warmup_steps}, warmup_start {warmup_start}: accepted: at least 0, and 0 to 1")
        self.warmup_steps, self.warmup_start = warmup_steps, warmup_start

    @abstractmethod
    def share(self, progress: float) -> float:
        """Returns the learning rate as a share of the peak; `progress` is 0 after the warm-up and 1 at the end of the run."""

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Returns the schedule of a run of `total_steps` optimizer steps."""
        warmup = min(self.warmup_steps, total_steps // 2)

        def factor(step: int) -> float:
            if step < warmup:
                return self.warmup_start + (1 - self.warmup_start) * step / warmup
            return self.share(min((step - warmup) / max(total_steps - warmup, 1), 1.0))

        return LambdaLR(optimizer, factor)


class Cosine(Schedule):
    """Half a cosine from the peak to zero (Loshchilov & Hutter 2017)."""

    def share(self, progress: float) -> float:
        """(1 + cos(pi progress)) / 2."""
        return (1 + math.cos(math.pi * progress)) / 2


class Exponential(Schedule):
    """A constant factor a step, such that the run ends at `end` times the peak.

    Args:
        warmup_steps: steps of the warm-up.
        warmup_start: learning rate of the first step, as a share of the peak.
        end: learning rate at the end, as a share of the peak.
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1, end: float = 0.01) -> None:
        super().__init__(warmup_steps, warmup_start)
        if not 0 < end <= 1:
            raise ValueError(f"end {end} is not possible; accepted: over 0 to 1")
        self.end = end

    def share(self, progress: float) -> float:
        """`end` to the power of the progress."""
        return float(self.end**progress)


class Poly(Schedule):
    """(1 - progress) to the power `power`, DeepLab's schedule.

    Args:
        warmup_steps: steps of the warm-up.
        warmup_start: learning rate of the first step, as a share of the peak.
        power: .9 in DeepLab (research/deeplab train.py, learning_power).
    """

    def __init__(self, warmup_steps: int = 0, warmup_start: float = 0.1, power: float = 0.9) -> None:
        super().__init__(warmup_steps, warmup_start)
        if not 0 <= power <= 100:
            raise ValueError(f"power {power} is not possible; accepted: 0 to 100")
        self.power = power

    def share(self, progress: float) -> float:
        """(1 - progress) to the power `power`."""
        return float((1 - progress) ** self.power)
