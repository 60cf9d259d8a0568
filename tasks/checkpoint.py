"""Checkpoints: reading them without running code, and writing them whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

# Key of a .safetensors file's metadata, which holds as JSON what a checkpoint holds beside its weights.
METADATA = "mobiletap"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint of tensors and plain values to the CPU, or a .safetensors file that `save_checkpoint` wrote.

    Raises:
        ValueError: the file does not exist, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        checkpoint = _load_safetensors(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors and torch each raise their own
        raise ValueError(f"{path}: cannot be read as a checkpoint of tensors and plain values; is it damaged?") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Writes a checkpoint beside its place and then renames it, so that no half of it is left behind.

    Args:
        checkpoint: tensors in `state_dict`, beside plain values.
        path: the file; with the ending .safetensors, plain values stand in its metadata as JSON.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import save

            plain = {key: value for key, value in checkpoint.items() if key != "state_dict"}
            tensors = {name: value.contiguous() for name, value in checkpoint["state_dict"].items()}
            unfinished.write_bytes(save(tensors, {METADATA: json.dumps(plain)}))  # save_file would let nobody else read it
        else:
            torch.save(checkpoint, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        plain: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        return plain | {"state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118 - not a dictionary


class CheckpointReader(TorchCheckpointIO):
    """Lets Lightning read what `load_checkpoint` reads."""

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Loads to the CPU; see the function of this name."""
        return load_checkpoint(path)
