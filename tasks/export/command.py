"""The subcommand `export`: writes a file, and compares it with the model that it came from before it calls it done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.export.engines import Engine, load_engine
from tasks.export.files import Graph, write_onnx, write_openvino

Format = Literal["onnx", "openvino"]
WRITERS: dict[str, tuple[str, Callable[..., None]]] = {"onnx": (".onnx", write_onnx), "openvino": (".xml", write_openvino)}

# Largest difference of any output that rounding explains, as a share of the output's largest value; seen are 1e-6 to 1e-5.
TOLERANCE = 1e-3


def export_graph(graph: Graph, batches: Sequence[tuple[Tensor, ...]], path: Path, form: Format) -> None:
    """Writes a graph, runs it on images, and says how far its outputs are from torch's.

    Args:
        graph: what to write.
        batches: inputs of the graph, from real images.
        path: the file.
        form: the file's format.

    Raises:
        ValueError: the runtime is not installed, or the file computes something else (it is then deleted).
    """
    ending, write = WRITERS[form]
    if path.suffix != ending:
        raise ValueError(f"output {path} has another ending; accepted for {form}: {ending}")
    graph.eval()
    write(graph, batches[0], path)
    engine = load_engine(path)
    worst = dict.fromkeys(graph.names, 0.0)
    for batch in batches:
        with torch.no_grad():
            found: Any = graph(*batch)
        expected = [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]
        for name, ours, theirs in zip(graph.names, expected, _run(engine, batch), strict=True):
            worst[name] = max(worst[name], difference(ours, theirs))
    text = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    if max(worst.values()) > TOLERANCE:
        path.unlink()
        path.with_suffix(".bin").unlink(missing_ok=True)
        raise ValueError(f"{path}: computes something else than the checkpoint (largest differences: {text}) and was deleted")
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    print(f"{path} ({size / 1e6:.1f} MB) computes what the checkpoint does on {len(batches)} images; largest differences: {text}")


def _run(engine: Engine, batch: tuple[Tensor, ...]) -> list[NDArray[Any]]:
    return engine(*(part.contiguous().numpy() for part in batch))


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Returns the largest difference of two outputs as a share of the largest value, of class indices the share that differs.

    Outputs of different lengths, as of detections, are compared as far as both go, and each that only one has counts as 1 in the length.
    """
    count = min(len(ours), len(theirs))
    alone = abs(len(ours) - len(theirs)) / max(len(ours), len(theirs), 1)
    if not count:
        return alone
    if ours.dtype.kind in "iu":
        return max(alone, float((ours[:count] != theirs[:count]).mean()))
    apart = np.abs(ours[:count].astype(np.float64) - theirs[:count]).max()
    return max(alone, float(apart / max(np.abs(ours[:count]).max(), 1e-9)))
