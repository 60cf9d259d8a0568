"""Reading published weights into our backbones."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger("lightning.pytorch")  # shown by default wherever Lightning is


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of named tensors without running code from it.

    Args:
        path: a .safetensors file, or a torch file (.pth, .pt, .ckpt) that holds tensors and plain values only.

    Returns:
        The tensors by name; of a torch checkpoint with a `state_dict`, those in it.

    Raises:
        ValueError: the file does not exist, cannot be read, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader raises its own kinds of error, pickle's among them
        raise ValueError(f"{path}: cannot be read as weights: {type(error).__name__} {error}".splitlines()[0]) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: holds no dictionary of tensors")
    return found


def load_torchvision_weights(module: nn.Module, source: str, architecture: str, strict: bool = True) -> None:
    """Loads weights with torchvision's parameter names and logs by name what was left out.

    Args:
        module: the backbone to fill.
        source: a local file, or `imagenet` for torchvision's newest published weights (downloaded to its cache).
        architecture: torchvision's name of the model, used with `imagenet`.
        strict: whether a parameter that is missing or has another shape is an error.

    Raises:
        ValueError: the file cannot be read, nothing in it fits, or (`strict`) something does not fit.
    """
    fill(module, _published(architecture) if source == "imagenet" else read_tensors(source), source, strict)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str, strict: bool = True) -> None:
    """Copies tensors of the same names and shapes into a module and logs by name what was left out.

    Args:
        module: what to fill.
        tensors: weights by name.
        source: where they come from, for messages.
        strict: whether a parameter that is missing or has another shape is an error.

    Raises:
        ValueError: nothing fits, or (`strict`) something does not fit.
    """
    wanted = module.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in wanted and wanted[name].shape == tensor.shape}
    # Old files do not count the batches that their batch norms saw.
    missing = [name for name in wanted if name not in fitting and not name.endswith("num_batches_tracked")]
    misfits = ", ".join(f"{name} ({_shape(tensors.get(name))}, wanted {_shape(wanted[name])})" for name in missing)
    if not fitting or (missing and strict):
        raise ValueError(f"weights {source}: {len(missing)} of {len(wanted)} tensors do not fit: {_shorten(misfits)}")
    module.load_state_dict(fitting, strict=False)
    unused = ", ".join(name for name in tensors if name not in fitting)
    for names, what in ((misfits, "not found, left as initialised"), (unused, "not used")):
        if names:
            log.info("weights %s: %s: %s", source, what, names)


def _published(architecture: str) -> dict[str, Tensor]:
    import torchvision

    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong checksum
        raise ValueError(
            f"weights 'imagenet': {weights.url} cannot be downloaded ({error}); give the path of a local file instead"
        ) from error
    return tensors


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
