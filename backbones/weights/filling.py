"""Filling modules with tensors of their own names, and backbones with published weights of any recognised kind."""

import logging
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from backbones.base import Preprocessing
from backbones.weights.files import read_tensors
from backbones.weights.names import HALVES, IMAGENET
from backbones.weights.schemes import recognise
from backbones.weights.translation import translate

log = logging.getLogger("lightning.pytorch")  # shown by default wherever Lightning is


def load_weights(module: nn.Module, source: str, architecture: str, strict: bool = True) -> Preprocessing | None:
    """Loads published weights into a backbone and logs by name what was left out.

    Args:
        module: the backbone to fill.
        source: a local file of any kind that `read_tensors` reads, with our names (so a checkpoint of a run is one too) or those of a
            scheme that `recognise` knows, or `imagenet` for the newest published weights (downloaded to their library's cache).
        architecture: `mobilenet_v2`, `mobilenet_v1`, or another network, of which only our own names are known.
        strict: whether a parameter that is missing or has another shape is an error.

    Returns:
        How images were normalised when the weights were trained, None where the file does not tell.

    Raises:
        ValueError: the file cannot be read or is of another network, nothing in it fits, or (`strict`) something does not fit.
    """
    tensors, expects = _published(architecture) if source == "imagenet" else (read_tensors(source), None)
    scheme = recognise(tensors)
    if scheme is not None and scheme.network != architecture and scheme.count(tensors) > 1:  # a stem's names may be those of others too
        raise ValueError(f"weights {source}: are those of {scheme.network} by the names of {scheme.name}, not of {architecture}")
    if scheme is not None and scheme.network == architecture:
        translation = translate([("", module, scheme.body)], tensors, scheme)
        tensors = translation.tensors | {name: tensors[name] for name in translation.unused}
        expects = expects or scheme.expects
        if scheme.tensorflow and not any(getattr(layer, "pads_asymmetrically", False) for layer in module.modules()):
            log.warning("weights %s were trained in TensorFlow: padding 'same', bn_eps 0.001, and mean and std of 0.5 suit them", source)
    else:
        tensors = _unwrapped(tensors, next(iter(module.state_dict())))
    fill(module, tensors, source, strict)
    return expects


def _unwrapped(tensors: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """Tensors without what a file puts before the names of ours, of which `first` is one."""
    prefix = next((name.removesuffix(first) for name in tensors if name.endswith(f".{first}")), "")
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str, strict: bool = True) -> None:
    """Copies tensors of the same names and shapes into a module and logs by name what was left out.

    Args:
        module: what to fill.
        tensors: weights by name.
        source: where they come from, for messages.
        strict: whether a parameter that is missing or has another shape is an error.

    Raises:
        ValueError: nothing fits, (`strict`) something does not fit, or what fits holds NaN.
    """
    wanted = module.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in wanted and wanted[name].shape == tensor.shape}
    # Old files do not count the batches that their batch norms saw.
    missing = [name for name in wanted if name not in fitting and not name.endswith("num_batches_tracked")]
    misfits = ", ".join(f"{name} ({_shape(tensors.get(name))}, wanted {_shape(wanted[name])})" for name in missing)
    if not fitting or (missing and strict):
        raise ValueError(f"weights {source}: {len(missing)} of {len(wanted)} tensors do not fit: {_shorten(misfits)}")
    lost = [name for name, tensor in fitting.items() if tensor.isnan().any()]
    if lost:
        raise ValueError(f"weights {source}: {len(lost)} tensors hold NaN, as after a failed training, the first is {lost[0]}")
    module.load_state_dict(fitting, strict=False)
    unused = ", ".join(name for name in tensors if name not in fitting)
    for names, what in ((misfits, "not found, left as initialised"), (unused, "not used")):
        if names:
            log.info("weights %s: %s: %s", source, what, names)


def _published(architecture: str) -> tuple[dict[str, Tensor], Preprocessing]:
    if architecture not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        raise ValueError(f"weights 'imagenet' of {architecture} are not published; accepted: a local file, or 'imagenet' of {known}")
    where, download, expects = PUBLISHED[architecture]
    try:
        return download(), expects
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong checksum
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"weights 'imagenet': {where} cannot be downloaded ({reason}); give the path of a local file instead") from error


def _of_torchvision() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = MobileNet_V2_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
    return tensors


def _of_timm() -> dict[str, Tensor]:
    import timm

    tensors: dict[str, Tensor] = timm.create_model(TIMM_V1, pretrained=True).state_dict()
    return tensors


# timm's only weights of MobileNetV1 at full width: 75.4 % top-1 (timm/results), ten times the epochs of the paper.
TIMM_V1 = "mobilenetv1_100.ra4_e3600_r224_in1k"
PUBLISHED: Mapping[str, tuple[str, Callable[[], dict[str, Tensor]], Preprocessing]] = {
    "mobilenet_v2": (MobileNet_V2_Weights.DEFAULT.url, _of_torchvision, IMAGENET),
    "mobilenet_v1": (f"https://huggingface.co/timm/{TIMM_V1}", _of_timm, HALVES),
}


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
