"""Filling modules with tensors of their own names, and backbones with published weights of any recognised kind."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from backbones.weights.files import read_tensors
from backbones.weights.schemes import body_keys, recognise
from backbones.weights.translation import translate

log = logging.getLogger("lightning.pytorch")  # shown by default wherever Lightning is


def load_weights(module: nn.Module, source: str, architecture: str, strict: bool = True) -> None:
    """Loads published weights into a MobileNetV2 and logs by name what was left out.

    Args:
        module: the backbone to fill.
        source: a local file of any kind that `read_tensors` reads, with names of any scheme that `recognise` knows (ours among them, so
            a checkpoint of a run is one too), or `imagenet` for torchvision's newest published weights (downloaded to its cache).
        architecture: torchvision's name of the model, used with `imagenet`.
        strict: whether a parameter that is missing or has another shape is an error.

    Raises:
        ValueError: the file cannot be read, nothing in it fits, or (`strict`) something does not fit.
    """
    tensors = _published(architecture) if source == "imagenet" else read_tensors(source)
    if (scheme := recognise(tensors)) is not None:
        translation = translate([("", module, body_keys())], tensors, scheme)
        tensors = translation.tensors | {name: tensors[name] for name in translation.unused}
        if scheme.tensorflow and not any(getattr(layer, "pads_asymmetrically", False) for layer in module.modules()):
            log.warning("weights %s were trained in TensorFlow: padding 'same', bn_eps 0.001, and mean and std of 0.5 suit them", source)
    fill(module, tensors, source, strict)


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
