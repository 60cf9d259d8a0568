"""What the subcommands `export` share: a file is compared with the model that it came from before it is put in its place."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasks.export.differences import differences
from tasks.export.engines import imported, load_engine
from tasks.export.files import Graph, convert_to_openvino, write_onnx
from tasks.export.quantize import quantize_onnx
from tasks.files import write_whole
from tasks.images import RGBImage, find_images, read_image
from tasks.shapes import draw_picture

Format = Literal["onnx", "openvino"]
Stored = Literal["fp32", "int8"]
Inputs = tuple[Tensor, ...]

ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}

# Images that outputs are compared on, and that ranges of values for int8 are taken from (as many as NNCF's default).
COMPARED, CALIBRATING = 16, 300
# Largest differences that rounding explains, of values (seen are 1e-6 to 1e-5, and with int8 up to .2) and of detections: some score alike
# or overlap just so that the least rounding makes them others, all of them with int8.
TOLERANCES = {"fp32": (1e-3, 0.1), "int8": (0.5, 1.0)}


def export_graph(
    graph: Graph, output: str, form: Format, images: Sequence[str] | None = None, precision: Stored = "fp32"
) -> dict[str, float]:
    """Writes a graph, runs the file on images, and says how far its outputs are from torch's.

    Args:
        graph: what to write.
        output: the file.
        form: the file's format.
        images: files, folders and patterns; by default pictures of shapes.
        precision: of the file's weights and convolutions.

    Returns:
        The differences, see `tasks.export.differences`.

    Raises:
        ValueError: the file's ending is another one, a package is not installed, an image cannot be read, int8 is wanted without images,
            or the file computes something else than the model (it is then not written).
    """
    path = Path(output)
    if path.suffix != ENDINGS[form]:
        raise ValueError(f"output {output} has the ending {path.suffix or 'of no file'!r}; accepted for format {form}: {ENDINGS[form]}")
    if precision == "int8" and images is None:
        raise ValueError("precision int8 needs --images: a hundred or more like those that the model will see, but none that judges it")
    for package in ("onnx", "onnxscript", "onnxruntime", *(["openvino"] if form == "openvino" else [])):
        imported(package)
    inputs = [graph.inputs(pixels) for pixels in samples(images, CALIBRATING if precision == "int8" else COMPARED)]
    graph.eval()
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.with_suffix(".onnx").name
        write_onnx(graph, inputs[0], draft)
        if precision == "int8":
            quantize_onnx(draft, inputs)
        if form == "openvino":
            draft = convert_to_openvino(draft)
        worst = compare(graph, spread(inputs, COMPARED), draft)
        text = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
        of_values, of_detections = TOLERANCES[precision]
        if any(value > (of_detections if name == "detections" else of_values) for name, value in worst.items()):
            raise ValueError(f"{path}: would compute something else than the checkpoint (largest differences: {text}) and was not written")
        written = sorted(Path(folder).iterdir())  # .bin before the .xml that reads it
        for part in written:
            write_whole(path.with_name(part.name), part.read_bytes())
        size = sum(part.stat().st_size for part in written)
    print(
        f"{path} ({size / 1e6:.1f} MB) was compared with the checkpoint on {min(len(inputs), COMPARED)} images; largest differences: {text}"
    )
    return worst


def samples(images: Sequence[str] | None, most: int) -> Iterator[RGBImage]:
    """Yields images evenly spread over those that are there, or pictures of shapes.

    Raises:
        ValueError: there are none, or one cannot be read.
    """
    if images is None:
        for number in range(COMPARED):
            yield np.array(draw_picture(np.random.default_rng(number))[0])
    else:
        for file in spread(find_images(images), most):
            yield read_image(file)


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """Returns at most so many of the values, evenly spread."""
    count = min(len(values), most)
    return [values[number * len(values) // count] for number in range(count)]


def compare(graph: Graph, inputs: Sequence[Inputs], path: Path) -> dict[str, float]:
    """Returns the largest differences between a graph and its file, see `tasks.export.differences`."""
    engine = load_engine(path)
    worst: dict[str, float] = {}
    for batch in inputs:
        with torch.no_grad():
            found: Any = graph(*batch)
        ours = [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]
        theirs = engine(*(part.contiguous().numpy() for part in batch))
        for name, value in differences(graph.names, ours, theirs).items():
            worst[name] = max(worst.get(name, 0.0), value)
    return worst
