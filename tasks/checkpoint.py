"""Checkpoints: reading them without running code, and writing them whole or not at all."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from typing_extensions import override

from backbones.spec import check_description
from backbones.weights.files import load_torch
from tasks.files import write_whole

log = logging.getLogger("lightning.pytorch")

# Key of a .safetensors file's metadata, which holds as JSON what a checkpoint holds beside its weights.
METADATA = "mobiletap"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint of tensors and plain values to the CPU, or a .safetensors file that `save_checkpoint` wrote.

    Raises:
        ValueError: the file does not exist, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint or file of weights")
    try:
        checkpoint = _load_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)
    except Exception as error:  # zip, pickle, safetensors and torch each raise their own
        raise ValueError(
            f"{path}: cannot be read as a checkpoint of tensors and plain values; is it damaged? Objects, which could run code, are refused"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def newest_checkpoint(folder: Path) -> Path:
    """Returns the checkpoint of the most steps that training can go on from, of equal ones the youngest; it warns of damaged ones.

    `best.ckpt` comes after all others: amid accumulated gradients it holds those of the first process only. Where there is none, returns
    `last.ckpt`, which may not exist.
    """
    steps: dict[Path, int] = {}
    damaged = []
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            found = load_checkpoint(path)
        except ValueError:
            damaged.append(path.name)
        else:
            if "optimizer_states" in found:
                steps[path] = int(found["global_step"])
    newest = max(steps, key=lambda path: (path.stem != "best", steps[path]), default=folder / "last.ckpt")
    if damaged and steps:
        log.warning("%s: damaged and left aside: %s; going on from %s", folder, ", ".join(damaged), newest.name)
    return newest


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Writes a checkpoint whole or not at all.

    Args:
        checkpoint: tensors in `state_dict`, beside plain values.
        path: the file; with the ending .safetensors, plain values stand in its metadata as JSON.

    Raises:
        OSError: it cannot be written; an earlier file of this name is untouched.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        plain = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        tensors = {name: value.contiguous() for name, value in checkpoint["state_dict"].items()}
        write_whole(path, save(tensors, {METADATA: json.dumps(plain)}))
    else:
        content = io.BytesIO()  # torch's own writer of files hides why a disk refuses
        torch.save(checkpoint, content)
        write_whole(path, content.getbuffer())


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        plain: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        return plain | {"state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118 - not a dictionary


class CheckpointFiles(TorchCheckpointIO):
    """Lets Lightning read and write by the functions above."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint; there are no options."""
        save_checkpoint(checkpoint, path)

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Loads to the CPU."""
        return load_checkpoint(path)


def description(checkpoint: dict[str, Any], kind: str, path: object) -> dict[str, Any]:
    """Returns what a checkpoint says of its model.

    Raises:
        ValueError: it holds no model of that kind, or describes it by what could do harm.
    """
    found = checkpoint.get(kind)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no {kind}; accepted: a run's checkpoint, or a file of {kind.capitalize()}.save")
    try:
        check_description(found)
    except (ValueError, ImportError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def model_weights(checkpoint: dict[str, Any], path: object) -> dict[str, Tensor]:
    """Returns a checkpoint's weights of its model, which a training module holds as `model`, beside the buffers of losses.

    Raises:
        ValueError: they are no tensors of real numbers by name, or hold NaN.
    """
    weights = checkpoint.get("state_dict", {})
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{path}: its state_dict is no dictionary of tensors by name")
    found = {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_complex():
            raise ValueError(f"{path}: its {name} is no tensor of real numbers")
        if value.isnan().any():
            raise ValueError(f"{path}: its {name} holds NaN, as after a failed training; accepted: weights that are numbers")
    return found
