"""What the plain models of all tasks share: normalisation, and files that rebuild them."""

import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from typing_extensions import Self

from backbones import Backbone
from backbones.folding import fold
from backbones.layers import Conv2d
from backbones.spec import Described, describe, rebuild
from backbones.weights import fill
from tasks.checkpoint import description, load_checkpoint, model_weights, save_checkpoint
from tasks.export.engines import Engine, Precision, load_engine, one_torch_thread, pixels_last
from tasks.images import MAX_PIXELS, RGBImage, read_ahead
from tasks.traced import Traced

# Mean and standard deviation of ImageNet's RGB in 0..1, as torchvision's weights expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Published values are rounded to three digits or so.
PREPROCESSING_TOLERANCE = 2e-3

log = logging.getLogger("lightning.pytorch")


class TaskModel(nn.Module, ABC):
    """A backbone with a head that takes images as they are.

    Args:
        backbone: makes the features.
        head: turns them into predictions; the backbone keeps the taps that it reads.
        class_names: names of the classes, see `tasks.labels`.
        size: height and width of the network's input in pixels.
        mean: per channel, of RGB in 0..1, subtracted from images.
        std: per channel, of RGB in 0..1, that images are then divided by.

    Raises:
        ValueError: two classes have the same name, or the size, a mean or a standard deviation is not possible.
    """

    # What checkpoints call the model, and what its head must be.
    kind: ClassVar[str]
    head_class: ClassVar[type[Described]]

    mean: Tensor
    std: Tensor
    # Computes in place of backbone and head, see `run_by`.
    engine: Engine | None = None
    # What backbone and head compute in; None for whatever their weights are, or autocast says.
    dtype: torch.dtype | None = None
    # Runs backbone and head, see `optimize`.
    traced: Traced | None = None

    def __init__(
        self,
        backbone: Backbone,
        head: Any,
        class_names: Sequence[str],
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        repeated = [name for name, count in Counter(class_names).items() if count > 1]
        if repeated:
            raise ValueError(f"class_names has {', '.join(repeated)} more than once; accepted: another name for each class")
        _check_input(size, mean, std)
        self.backbone = backbone
        self.head = head
        backbone.keep(head.taps)
        self.class_names = tuple(class_names)
        self.size = (int(size[0]), int(size[1]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

        if expected := backbone.expects:
            for key, wanted, given in (("mean", expected.mean, mean), ("std", expected.std, std)):
                if max(abs(a - b) for a, b in zip(wanted, given, strict=True)) > PREPROCESSING_TOLERANCE:
                    log.warning("the backbone's weights were trained with %s %s; set model.%s to it", key, list(wanted), key)

    def normalise(self, images: Tensor) -> Tensor:
        """Turns (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, into what the backbone takes."""
        pixels = self._normalised(images)
        return pixels if self.dtype is None else pixels.to(self.dtype)

    def _normalised(self, images: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or images.dtype != torch.uint8 or not images.is_contiguous(memory_format=torch.channels_last):
            # Channels last, so that exported files need not turn the pixels before they compute.
            pixels = images.permute(0, 2, 3, 1)
            pixels = pixels.float() / 255 if images.dtype == torch.uint8 else pixels
            return ((pixels - self.mean.flatten()) / self.std.flatten()).permute(0, 3, 1, 2)
        # The same in place and by whole rows, as torch is slow where only three values lie side by side.
        rows = images.permute(0, 2, 3, 1).flatten(2).float().div_(255).to(torch.promote_types(torch.float32, self.mean.dtype))
        mean, std = (value.flatten().repeat(images.shape[3]) for value in (self.mean, self.std))
        return rows.sub_(mean).div_(std).view(images.shape[0], *images.shape[2:], 3).permute(0, 3, 1, 2)

    def resize(self, size: Sequence[int]) -> None:
        """Sets height and width of the network's input.

        Raises:
            ValueError: they are not possible.
        """
        _check_input(size, self.mean.flatten().tolist(), self.std.flatten().tolist())
        self.size = (int(size[0]), int(size[1]))

    @abstractmethod
    def predict(self, image: str | Path | RGBImage) -> Any:
        """Finds what the model looks for in one image."""

    def predict_each(self, images: Iterable[str | Path | RGBImage]) -> Iterator[Any]:
        """Yields what `predict` returns for each image, in order; the next JPEGs are read while the network computes.

        Args:
            images: what `predict` takes, of which two are asked for ahead.

        Raises:
            ValueError: as `predict`, at the image's turn, and then no further image is looked at; or there is one image, not several.
        """
        if isinstance(images, (str, Path)):
            raise ValueError(f"{images}: is one image; accepted: several, or predict for one")
        for pixels in read_ahead(images):
            yield self.predict(pixels())

    def describe(self) -> dict[str, Any]:
        """Returns plain values from which `from_checkpoint` builds the same architecture.

        Raises:
            ValueError: a part was built with arguments that cannot be written down.
        """
        return {
            "backbone": describe(self.backbone),
            "head": describe(self.head, skip=("taps", "num_classes")),
            "class_names": list(self.class_names),
            "size": list(self.size),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def save(self, path: str | Path) -> None:
        """Writes a file of tensors and plain values for `from_checkpoint`, `validate`, `test` and `predict`.

        Args:
            path: the file: .safetensors, or any other ending for torch's format.

        Raises:
            ValueError: an exported file computes in its place.
        """
        if self.engine is not None:
            raise ValueError(f"{path}: a model that {self.engine.path} computes has no weights of its own to save")
        weights = {f"model.{name}": value for name, value in self.state_dict().items()}
        save_checkpoint({self.kind: self.describe(), "state_dict": weights, "pytorch-lightning_version": L.__version__}, path)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Self:
        """Rebuilds a model from a run's checkpoint or from a file that `save` wrote; runs no code from it.

        Returns:
            The model in evaluation mode, on the CPU; averaged weights (EMA) where the run kept them.

        Raises:
            ValueError: the file cannot be read, or holds no such model.
        """
        checkpoint = load_checkpoint(path)
        spec, weights = cls.described(checkpoint, path), model_weights(checkpoint, path)
        try:
            model = cls._built(spec)
            model.load_state_dict(weights)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: {error}") from error
        return model.eval()

    @classmethod
    def described(cls, checkpoint: dict[str, Any], path: object) -> dict[str, Any]:
        """Returns what a checkpoint says of its model, once it is known that it takes no more memory than the weights beside it.

        Raises:
            ValueError: it holds no such model, describes it by what could do harm, or has other weights than it describes.
        """
        spec = description(checkpoint, cls.kind, path)
        try:
            with torch.device("meta"):  # takes no memory, however large what is described
                shapes = {name: value.shape for name, value in cls._built(spec).state_dict().items()}
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: {error}") from error
        if shapes != {name: value.shape for name, value in model_weights(checkpoint, path).items()}:
            raise ValueError(f"{path}: its weights do not fit its own description")
        return spec

    @classmethod
    def _built(cls, description: dict[str, Any]) -> Self:
        spec = dict(description)
        try:
            backbone, head = rebuild(spec.pop("backbone"), Backbone), spec.pop("head")
            return cls(backbone, lambda taps, num_classes: rebuild(head, cls.head_class, taps, num_classes), **spec)  # type: ignore[arg-type]
        except ValueError:
            raise
        except Exception as error:  # whatever values of the wrong kind lead to
            raise ValueError(f"its description is not that of a {cls.kind}: {type(error).__name__} {error}") from error

    @classmethod
    def from_exported(cls, path: str | Path, threads: int = 0, precision: Precision = "f32") -> Self:
        """Opens a file that the subcommand `export` wrote with outputs `raw`; it computes, and the rest is as of any other model.

        Args:
            path: .onnx, or OpenVINO's .xml.
            threads: threads of one inference; 0 for one a core.
            precision: `f32`, or `bf16` for OpenVINO.

        Raises:
            ValueError: the file cannot be read, its runtime is not installed, or it holds another kind of model or other outputs.
        """
        engine = load_engine(path, threads, precision)
        stored = description({str(engine.metadata["kind"]): engine.metadata["model"]}, cls.kind, path)
        try:
            with torch.device("meta"):  # takes no memory, however large what is described
                described = sum(parameter.numel() for parameter in cls._built(stored).parameters())
            if described > engine.size:
                raise ValueError(f"describes {described:,} parameters, but has {engine.size:,} bytes")
            model = cls._built(stored)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: {error}") from error
        return model.run_by(engine).eval()

    def optimize(self, dtype: torch.dtype = torch.float32) -> Self:
        """Makes inference faster, in place.

        Batch norms are folded into convolutions, memory is in channels_last order, and on CPUs graphs whose operators oneDNN fuses run the
        network, see `Traced`: they are made, in half a second, at the second input of a shape. The model can neither be trained nor saved
        afterwards, and its weights must stay as they are.

        Args:
            dtype: float32, in which results change by rounding only; bfloat16 is about twice as fast on CPUs that have it (AVX512-BF16 or
                AMX), float16 and bfloat16 are on GPUs.
        """
        fold(self.eval())
        self.dtype = dtype
        nn.ModuleList([self.backbone, self.head]).to(dtype)
        # Of foreign layers in half the precision rounding would hide errors of graphs.
        if dtype == torch.float32 or all(isinstance(layer, Conv2d) for layer in self.modules() if isinstance(layer, nn.Conv2d)):
            self.traced = Traced(self._network)
        return self.to(memory_format=torch.channels_last).requires_grad_(False)

    def predictions(self, pixels: Tensor) -> Any:
        """What the head makes of normalised (B, 3, H, W) images."""
        return self._network(pixels) if self.traced is None else self.traced(pixels)

    def _network(self, pixels: Tensor) -> Any:
        return self.head(self.backbone(pixels), (pixels.shape[2], pixels.shape[3]))

    def judging(self) -> Self:
        """Returns the model in evaluation mode; `eval` takes a millisecond to go through all layers."""
        return self.eval() if self.training else self

    def run_by(self, engine: Engine) -> Self:
        """Lets an exported file compute in place of backbone and head.

        Raises:
            ValueError: it is of another model, or does not end in the head's own outputs.
        """
        if engine.metadata["outputs"] != "raw":
            raise ValueError(f"{engine.path}: ends in {engine.metadata['outputs']}; accepted: a file exported with outputs raw")
        stored, own = engine.metadata["model"], self.describe()
        differing = [key for key in own if own[key] != stored.get(key)]
        if engine.metadata["kind"] != self.kind or differing:
            raise ValueError(f"{engine.path}: was exported from another {self.kind}; differing: {', '.join(differing) or 'kind'}")
        self.engine = engine
        return self

    def _threads(self) -> AbstractContextManager[None]:
        """In which torch prepares inputs and reads outputs."""
        return nullcontext() if self.engine is None else one_torch_thread()

    def _run_engine(self, images: Tensor, *others: Tensor) -> list[Tensor]:
        """Runs the exported file on (B, 3, H, W) uint8 images."""
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}; accepted by an exported file: uint8")
        if images.shape[2:] != self.size:
            raise ValueError(f"images are {list(images.shape[2:])} pixels high and wide; accepted by the exported file: {list(self.size)}")
        found = self.engine(pixels_last(images), *(other.cpu().numpy() for other in others))  # type: ignore[misc]
        return [torch.from_numpy(array).to(images.device) for array in found]

    def load_weights(self, path: str | Path, strict: bool = True) -> None:
        """Takes the weights of a checkpoint that was made with the same or, unless `strict`, a similar architecture.

        Raises:
            ValueError: the file cannot be read, nothing in it fits, or (`strict`) something does not fit.
        """
        checkpoint = load_checkpoint(path)
        fill(self, model_weights(checkpoint, path), str(path), strict)
        stored, own = checkpoint.get(self.kind), self.describe()
        for key in ("mean", "std"):
            if isinstance(stored, dict) and key in stored and stored[key] != own[key]:
                log.warning("weights %s were trained with %s %s, this model has %s; set model.%s", path, key, stored[key], own[key], key)


def _check_input(size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
    if len(size) != 2 or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"size {list(size)} is not possible; accepted: height and width of at least 1, of {MAX_PIXELS:,} pixels at most")
    if len(mean) != 3 or not all(map(math.isfinite, mean)):
        raise ValueError(f"mean {list(mean)} is not possible; accepted: three numbers, of red, green and blue")
    if len(std) != 3 or not all(0 < value < math.inf for value in std):
        raise ValueError(f"std {list(std)} is not possible; accepted: three positive numbers, of red, green and blue")
