"""Steps whose loss or gradients are not finite: nothing is learnt from them, and nothing that they spoilt is saved."""

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

log = logging.getLogger("lightning.pytorch")

OnNan = Literal["stop", "skip"]
# Skipped steps that are named one by one; the rest are counted.
NAMED = 5
# Steps in a row after which skipping ends too. Bad images are few and shuffled: as many together mean that the weights or the learning rate
# are at fault, which skipping does not mend.
MOST_IN_A_ROW = 10


class Seen(NamedTuple):
    """A batch whose gradients wait for the optimizer step: its images' positions in the data set, and its losses by name."""

    indices: Tensor
    losses: dict[str, Tensor]


class StepGuard:
    """Tells steps that are not finite, and undoes what they changed.

    A forward pass with a NaN in it has spoilt the running statistics of batch norms before any loss is known. Therefore all buffers are
    copied before each step, which are some ten thousand numbers. A loss that is not finite makes all gradients NaN, so that one look at the
    gradients, between the backward pass and the optimizer step, is all the waiting for the device that this adds; and as processes add up
    their gradients, all of them see it and none waits for another.

    Args:
        policy: what follows: stop or skip.

    Raises:
        ValueError: there is no such policy.
    """

    def __init__(self, policy: str) -> None:
        if policy not in get_args(OnNan):
            raise ValueError(f"on_nan {policy!r} is not possible; accepted: {', '.join(get_args(OnNan))}")
        self.policy = policy
        self.skipped = self.in_a_row = 0
        # Whether the step that was just made was skipped.
        self.has_skipped = False
        self.waiting: list[Seen] = []
        self.buffers: list[list[Tensor]] = []
        self.copies: list[list[Tensor]] = []

    def watch(self, buffers: Iterable[Tensor]) -> None:
        """Takes the buffers that training steps may change, on their device."""
        by_kind: dict[Any, list[Tensor]] = {}
        for buffer in buffers:
            by_kind.setdefault(buffer.dtype, []).append(buffer)
        self.waiting, self.buffers = [], list(by_kind.values())
        self.copies = [[buffer.clone() for buffer in group] for group in self.buffers]

    def begin(self) -> None:
        """Copies the buffers before the first batch of a step."""
        self.has_skipped = False
        if not self.waiting:
            for copies, buffers in zip(self.copies, self.buffers, strict=True):
                torch._foreach_copy_(copies, buffers)

    def note(self, indices: Tensor, losses: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        """Remembers a batch, and returns its loss such that one that is not finite makes all gradients NaN."""
        self.waiting.append(Seen(indices, {name: value.detach() for name, value in losses.items()}))
        return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)

    def losses(self) -> list[Tensor]:
        """The losses of waiting batches of this process."""
        return [value for seen in self.waiting for value in seen.losses.values()]

    def accept(self) -> None:
        """Goes on after a healthy step."""
        self.waiting, self.in_a_row = [], 0

    def undo(self, parameters: Iterable[nn.Parameter]) -> None:
        """Puts the buffers back and drops the gradients, without which optimizers leave a parameter and its state alone."""
        for copies, buffers in zip(self.copies, self.buffers, strict=True):
            torch._foreach_copy_(buffers, copies)
        for parameter in parameters:
            parameter.grad = None
        self.waiting = []

    def decide(self, message: str) -> None:
        """Stops, or counts a skipped step.

        Raises:
            ValueError: the policy is to stop, or too many steps in a row were skipped.
        """
        if self.policy == "stop":
            raise ValueError(f"{message}; nothing was learnt or saved since; --model.on_nan skip leaves such steps out")
        self.skipped, self.in_a_row, self.has_skipped = self.skipped + 1, self.in_a_row + 1, True
        if self.in_a_row >= MOST_IN_A_ROW:
            raise ValueError(f"{message}; these are {self.in_a_row} skipped steps in a row, which is no matter of single images")
        if self.skipped <= NAMED:
            log.warning("%s; skipped%s", message, "; further ones are only counted" if self.skipped == NAMED else "")

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on counting."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite; waits for the device once, unless they are not.

    Their norm is made in a twelfth of the time of `isfinite` on a CPU; only where it is not finite itself is each number looked at.
    """
    tensors = list(tensors)
    return bool(get_total_norm(tensors).isfinite()) or all(bool(tensor.isfinite().all()) for tensor in tensors)


def report(step: int, batches: Sequence[tuple[Mapping[str, float], Sequence[str]]], gradient: str) -> str:
    """Says what went wrong in a step: losses and images of the batches whose loss is not finite, or else of all.

    Args:
        step: number of the step.
        batches: losses by name and image files of each of its batches.
        gradient: the first parameter whose gradient is not finite, said where all losses are.
    """
    guilty = [batch for batch in batches if not math.isfinite(sum(batch[0].values()))]
    what = f"the loss became {sum(guilty[0][0].values())}" if guilty else f"the gradient of {gradient} became infinite or nan"
    losses = "; ".join(", ".join(f"{name} {value:.6g}" for name, value in losses.items()) for losses, _ in guilty or batches)
    files = ", ".join(file for _, files in guilty or batches for file in files)
    return f"{what} at step {step} ({losses}); the images were {files}"


def check_state(checkpoint: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuses to save weights, running statistics or states of optimizers that are not finite, by whichever way they became so.

    Args:
        checkpoint: as Lightning writes it.
        names: tensors of its `state_dict` to look at; others may hold infinities for good, such as masks.

    Raises:
        ValueError: names the first such tensor.
    """
    states = [checkpoint["state_dict"], checkpoint.get("current_model_state", {})]
    tensors = [(name, value) for state in states for name, value in state.items() if name in names]
    for optimizer in checkpoint.get("optimizer_states", ()):
        for number, values in optimizer["state"].items():
            tensors += [(f"{key} {number} of the optimizer", value) for key, value in values.items() if isinstance(value, Tensor)]
    tensors = [(name, value) for name, value in tensors if value.is_floating_point() and value.numel()]
    if not all_finite(value for _, value in tensors):
        name = next(name for name, value in tensors if not value.isfinite().all())
        raise ValueError(
            f"{name} is not finite after step {checkpoint['global_step']}; no checkpoint is written, the last one is from before"
        )
