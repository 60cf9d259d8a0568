"""What the processes of one training run must agree on."""

import torch
from torch import Tensor


def shared_count(count: Tensor, least: float = 1.0) -> Tensor:
    """Returns what a process divides its summed loss by: its own count, or over several processes their mean count.

    Processes have different counts, and the mean of their ratios is not the ratio of the whole batch. DistributedDataParallel averages
    losses and gradients; divided by the mean count, the average is that of one process with all the images (so do DETR's SetCriterion and
    detectron2's heads). Processes wait here for each other, and in training all must come here equally often; where no gradients are
    recorded, as in evaluation, each keeps its own count.

    Args:
        count: a scalar, such as the matched anchors of the process's batch.
        least: of the count over all processes, against division by zero.
    """
    distributed = torch.distributed
    if not (torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()):
        return count.clamp(min=least)
    total = count.detach().clone()
    distributed.all_reduce(total)
    return total.clamp(min=least) / distributed.get_world_size()
