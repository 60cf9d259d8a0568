"""Networks and whole ways from a JPEG file to boxes or masks: the peers, our models in torch, and our exported files."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from backbones import MobileNetV2
from backbones.folding import fold
from heads import Detections
from tasks.bench import peers
from tasks.bench.parts.postprocess import RULES
from tasks.bench.race import Race
from tasks.detect.model import Detector
from tasks.export.command import CALIBRATING, samples
from tasks.export.files import Graph, convert_to_openvino, write_onnx
from tasks.export.graphs import DetectionGraph, SegmentationGraph
from tasks.export.quantize import quantize_onnx
from tasks.images import RGBImage, find_images
from tasks.model import TaskModel
from tasks.segment.model import Segmenter
from tasks.traced import Traced

Model = TypeVar("Model", bound=TaskModel)

DETECTION_PEER, SEGMENTATION_PEER = next(iter(peers.DETECTORS)), next(iter(peers.SEGMENTERS))
BATCHES = (1, 8)
# Images of a turn of networks: one call after the turns of others tells how fast memory is, not the network.
TURN = 16
# Images of the race between feature extractors.
FEATURES_SIZE = 224
# Rounding may move boxes by so many pixels, scores by so much, and the classes of such a share of the pixels.
PIXELS, SCORE, SHARE = 0.5, 1e-3, 1e-3
# Detections are compared from this score on, of bfloat16 from the second: near thresholds rounding decides which are there.
COMPARED = (0.01, 0.3)


class Own(NamedTuple):
    """Our model in one form.

    Attributes:
        model: it.
        rounded: whether it computes in bfloat16 or int8, so that results differ by more than float32's rounding.
    """

    model: Any
    rounded: bool = False


def races(
    images: str,
    detector: str | None = None,
    segmenter: str | None = None,
    size: int = 320,
    limit: int = 48,
    tflite: str | None = None,
    calibration: str | None = None,
) -> Iterator[Race]:
    """Yields the races.

    Args:
        images: folder of JPEG files to run on.
        detector: checkpoint of a trained detector; an untrained one scores everything alike. Without it, detectors are left out.
        segmenter: checkpoint of a segmenter, on whose input size the peers run too. Without it, segmenters are left out.
        size: height and width of the detectors' input; torchvision's knows 320 only.
        limit: most images.
        tflite: a TensorFlow Lite segmenter that takes uint8 pixels.
        calibration: folder of other images, from which int8 takes its ranges of values. Without it, int8 is left out.

    Raises:
        ValueError: a file cannot be read, or our model has other results in another form.
    """
    files = find_images([images])[:limit]
    typical = list(samples([calibration], CALIBRATING)) if calibration else []
    yield _features()
    with tempfile.TemporaryDirectory() as folder:
        if detector:
            found = Detector.from_checkpoint(detector)
            found.size, found.head.suppression = (size, size), RULES["evaluation"]
            yield from _detection(found, files, typical, Path(folder))
        if segmenter:
            yield from _segmentation(Segmenter.from_checkpoint(segmenter), files, typical, Path(tflite) if tflite else None, Path(folder))


def _features() -> Race:
    import timm

    theirs = timm.create_model("mobilenetv2_100", features_only=True, pretrained=False).eval()
    ours = MobileNetV2(["layer3", "layer4", "layer7", "layer14", "layer18"]).eval()
    folded = deepcopy(ours).to(memory_format=torch.channels_last)
    fold(folded)
    images = torch.rand(1, 3, FEATURES_SIZE, FEATURES_SIZE)
    turned = images.contiguous(memory_format=torch.channels_last)
    fused = Traced(lambda images: tuple(folded(images).values()))
    fused(turned)  # graphs are made at the second call
    with torch.no_grad():
        pairs = zip(ours(images).values(), fused(turned), strict=True)
        apart = max(float((one - two).abs().max() / one.abs().max()) for one, two in pairs)
    if apart > SCORE:
        raise ValueError(f"features change by {apart} of the largest value when fused")
    calls: dict[str, Callable[[], Any]] = {"timm": lambda: theirs(images), "eager": lambda: ours(images), "fused": lambda: fused(turned)}
    equal = f"eager and fused, up to {apart:.0e} of the largest value"
    return _warm(f"features of MobileNetV2, {FEATURES_SIZE} x {FEATURES_SIZE}", [()] * TURN, 1, "timm", calls, equal)


def _warm(
    title: str, inputs: Sequence[tuple[Any, ...]], images: int, peer: str, calls: Mapping[str, Callable[..., Any]], equal: str
) -> Race:
    """A race over inputs of so many images each, without gradients; each turn begins with an unmeasured call."""
    calls = {name: torch.inference_mode()(call) for name, call in calls.items()}
    turns = {name: _over(inputs, call) for name, call in calls.items()}
    peer = peer if peer in calls else next(iter(calls))
    return Race(title, "images", len(inputs) * images, peer, turns, equal, prepare=lambda name: calls[name](*inputs[0]))


def _over(inputs: Sequence[tuple[Any, ...]], call: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: [call(*arguments) for arguments in inputs]


def _detection(plain: Detector, images: Sequence[Path], typical: Sequence[RGBImage], folder: Path) -> Iterator[Race]:
    others = peers.installed(peers.DETECTORS, len(plain.class_names), plain.size[0])
    own = _forms(plain, DetectionGraph(plain), typical, folder / "detector")
    expected = [plain.predict(image) for image in images]
    equal = _compared(own, images, lambda form, image, number: _apart(expected[number], form.model.predict(image), COMPARED[form.rounded]))
    for batch in BATCHES:
        yield _networks(f"detector's network, batch {batch}", plain.size, batch, others, own, DETECTION_PEER, lambda model: model)
    yield from _results("JPEG to boxes", images, {name: peer.result for name, peer in others.items()}, own, DETECTION_PEER, equal)


def _segmentation(
    plain: Segmenter, images: Sequence[Path], typical: Sequence[RGBImage], tflite: Path | None, folder: Path
) -> Iterator[Race]:
    others = peers.installed(peers.SEGMENTERS, len(plain.class_names), plain.size[0])
    results = {name: peer.result for name, peer in others.items()}
    if tflite is not None:
        try:
            results["TensorFlow Lite"] = peers.tensorflow_lite(tflite, torch.get_num_threads())
        except ImportError as error:
            print(f"TensorFlow Lite is left out: {error}")
    own = _forms(plain, SegmentationGraph(plain), typical, folder / "segmenter")
    expected = [plain.predict(image) for image in images]
    equal = _compared(own, images, lambda form, image, number: _share(expected[number], form.model.predict(image)))
    for batch in BATCHES:
        yield _networks(f"segmenter's network, batch {batch}", plain.size, batch, others, own, SEGMENTATION_PEER, _cells)
    yield from _results("JPEG to mask", images, results, own, SEGMENTATION_PEER, equal)


def _sizes(batch: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.tensor([size] * len(batch))


def _cells(model: Segmenter) -> Callable[[Tensor], Any]:
    """The network without upsampling and maps."""
    if model.engine is not None:
        return lambda images: model._run_engine(images, _sizes(images, model.size))
    return lambda images: model._cells(model.normalise(images))


def _forms(plain: Model, graph: Graph, typical: Sequence[RGBImage], path: Path) -> dict[str, Own]:
    """Our model eager, optimised and exported; in int8 if there are images that are typical of what it sees."""
    onnx, threads, cls = path.with_suffix(".onnx"), torch.get_num_threads(), type(plain)
    write_onnx(graph, graph.inputs(np.zeros((*plain.size, 3), np.uint8)), onnx)
    openvino = convert_to_openvino(Path(shutil.copy(onnx, path.with_name(f"{path.name}_openvino.onnx"))))
    forms = {
        "eager": Own(plain),
        "optimize()": Own(deepcopy(plain).optimize()),
        "optimize(torch.bfloat16)": Own(deepcopy(plain).optimize(torch.bfloat16), True),
        "ONNX Runtime": Own(cls.from_exported(onnx, threads)),
        "OpenVINO": Own(cls.from_exported(openvino, threads)),
        "OpenVINO bf16": Own(cls.from_exported(openvino, threads, "bf16"), True),
    }
    if typical:
        integers = Path(shutil.copy(onnx, path.with_name(f"{path.name}_int8.onnx")))
        quantize_onnx(integers, [graph.inputs(pixels) for pixels in typical])
        forms["ONNX Runtime int8"] = Own(cls.from_exported(integers, threads), True)
        forms["OpenVINO int8"] = Own(cls.from_exported(convert_to_openvino(integers), threads), True)
    for form in forms.values():
        if isinstance(plain, Detector):
            form.model.head.suppression = plain.head.suppression
    return forms


def _compared(own: Mapping[str, Own], images: Sequence[Path], apart: Callable[[Own, Path, int], "Apart"]) -> str:
    """Says how far results of all forms are from those of the eager one.

    Raises:
        ValueError: by more than rounding.
    """
    texts = []
    for name, form in list(own.items())[1:]:
        found = [apart(form, image, number) for number, image in enumerate(images)]
        worst = Apart(*(max(values) for values in zip(*found, strict=True)))
        if not form.rounded and not worst.is_rounding():
            raise ValueError(f"{name} has other results than eager: {worst}")
        texts.append(f"{name} {worst}")
    return "up to, from eager: " + "; ".join(texts)


class Apart(NamedTuple):
    """Largest differences of two results.

    Attributes:
        pixels: of a side of a box.
        score: of a detection.
        share: pixels of another class, in all pixels.
    """

    pixels: float = 0.0
    score: float = 0.0
    share: float = 0.0

    def is_rounding(self) -> bool:
        """Whether rounding alone explains them."""
        return self.pixels <= PIXELS and self.score <= SCORE and self.share <= SHARE

    def __str__(self) -> str:
        """The differences in words."""
        return f"{self.share:.2%} of the pixels" if self.share else f"{self.pixels:.3f} pixels and {self.score:.1e} of a score"


def _apart(ours: Detections, theirs: Detections, least: float) -> Apart:
    pairs = [_nearest(ours, theirs, least), _nearest(theirs, ours, least)]
    return Apart(max(pair.pixels for pair in pairs), max(pair.score for pair in pairs))


def _nearest(ours: Detections, theirs: Detections, least: float) -> Apart:
    """Differences of our detections that score more than `least`, each from the one most like it among the others."""
    clear = ours.scores > least
    if not clear.any():
        return Apart()
    if not len(theirs.scores):
        return Apart(torch.inf, float(ours.scores.max()))
    pixels = (ours.boxes[clear][:, None] - theirs.boxes).abs().amax(dim=2)
    scores = (ours.scores[clear][:, None] - theirs.scores).abs()
    unlike = (pixels / PIXELS).maximum(scores / SCORE) + 1e9 * (ours.labels[clear][:, None] != theirs.labels)
    nearest = unlike.argmin(dim=1, keepdim=True)
    return Apart(float(pixels.gather(1, nearest).max()), float(scores.gather(1, nearest).max()))


def _share(ours: Tensor, theirs: Tensor) -> Apart:
    return Apart(share=float((ours != theirs).float().mean()))


def _networks(
    title: str,
    size: tuple[int, int],
    batch: int,
    others: Mapping[str, peers.Peer],
    own: Mapping[str, Own],
    peer: str,
    network: Callable[[Any], Callable[[Tensor], Any]],
) -> Race:
    """A race between networks; ours take uint8 pixels and normalise them."""
    floats = torch.rand(batch, 3, *size)
    pixels = torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    calls: dict[str, Callable[[], Any]] = {name: _bound(other.network, floats) for name, other in others.items()}
    calls |= {name: _bound(network(form.model), pixels) for name, form in own.items()}
    title = f"{title}, {size[0]} x {size[1]}"
    return _warm(title, [()] * (TURN // batch), batch, peer, calls, "as in the race below from files")


def _results(
    title: str, images: Sequence[Path], others: Mapping[str, Callable[[Path], Any]], own: Mapping[str, Own], peer: str, equal: str
) -> Iterator[Race]:
    """Two races: from each file by itself to its result, and from all files to theirs, for which peers have no function of their own."""
    singly = dict(others) | {name: form.model.predict for name, form in own.items()}
    yield _warm(title, [(image,) for image in images], 1, peer, singly, equal)

    together: dict[str, Callable[[Sequence[Path]], Any]] = {name: _one_by_one(result) for name, result in others.items()}
    together |= {name: _listed(form.model.predict_each) for name, form in own.items()}
    title, equal = f"{title}, ours by predict_each", "as in the race above"
    yield _warm(title, [(images,)], len(images), peer, together, equal)._replace(prepare=lambda name: together[name](images[:1]))


def _one_by_one(result: Callable[[Path], Any]) -> Callable[[Sequence[Path]], Any]:
    return lambda images: [result(image) for image in images]


def _listed(each: Callable[[Sequence[Path]], Iterator[Any]]) -> Callable[[Sequence[Path]], Any]:
    return lambda images: list(each(images))


def _bound(network: Callable[[Tensor], Any], images: Tensor) -> Callable[[], Any]:
    return lambda: network(images)
