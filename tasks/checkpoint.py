"""Reading checkpoints without running code from them."""

from pathlib import Path
from typing import Any

import torch


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint of tensors and plain values to the CPU.

    Raises:
        ValueError: the file does not exist, is damaged, or holds anything else.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise ValueError(f"{path}: cannot be read as a checkpoint of tensors and plain values; is it damaged?") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint
