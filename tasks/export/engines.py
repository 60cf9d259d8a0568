"""Running exported files."""

import contextlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]
Precision = Literal["f32", "bf16"]

# Under this key a file says what it holds: the model's description, its kind of outputs and its sizes, as JSON.
METADATA = "mobiletap"

# Endings of ONNX Runtime's and OpenVINO's files.
EXPORTED = (".onnx", ".xml")


class Engine(ABC):
    """Runs one exported file on the CPU.

    Attributes:
        path: the file.
        metadata: what it says of itself, see `tasks.export.files.metadata_of`.
        size: bytes of the file, and of the one beside it that holds its weights.
    """

    path: Path
    metadata: dict[str, Any]
    size: int

    @abstractmethod
    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Takes the graph's inputs, returns its outputs, see `tasks.export.graphs`."""

    def _read(self, text: str | None) -> None:
        """Takes the metadata.

        Raises:
            ValueError: there is none, as in files that others wrote.
        """
        try:
            self.metadata = {key: json.loads(text or "")[key] for key in ("kind", "outputs", "model")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: does not say what it holds; accepted: files of the subcommand export") from error


class OnnxEngine(Engine):
    """Runs an .onnx file with ONNX Runtime.

    Args:
        path: the file.
        threads: threads of one operator; 0 for one a core.

    Raises:
        ValueError: the file cannot be read, or ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        runtime = imported("onnxruntime")
        self.path = path
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class of its own for each reason
            raise ValueError(f"{path}: cannot be read by ONNX Runtime: {first_line(error)}") from error
        self.size = path.stat().st_size
        self.inputs = [node.name for node in self.session.get_inputs()]
        self._read(self.session.get_modelmeta().custom_metadata_map.get(METADATA))

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Runs the graph."""
        found: Arrays = self.session.run(None, dict(zip(self.inputs, inputs, strict=True)))
        return found


class OpenVinoEngine(Engine):
    """Runs an .xml file, with its .bin beside it, with OpenVINO.

    Args:
        path: the file.
        threads: threads; 0 for one a core.
        precision: `bf16` computes in bfloat16 where the processor can, which moves results by about a hundredth of a score.

    Raises:
        ValueError: the file cannot be read, or OpenVINO is not installed.
    """

    def __init__(self, path: Path, threads: int = 0, precision: Precision = "f32") -> None:
        openvino = imported("openvino")
        self.path = path
        self.settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self.settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self.requests: dict[Any, Any] = {}
        try:
            self.core = openvino.Core()
            self.model = self.core.read_model(path)
            self._request(tuple((1, *node.partial_shape.get_max_shape()[1:]) for node in self.model.inputs))
        except RuntimeError as error:
            raise ValueError(f"{path}: cannot be read by OpenVINO: {first_line(error)}") from error
        self.outputs = len(self.model.outputs)
        self.size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
        self._read(self.model.get_rt_info(METADATA).astype(str) if self.model.has_rt_info(METADATA) else None)

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """What runs inputs of these shapes; a graph that knows its shapes takes a fifth of the time less than one for any batch."""
        if shapes not in self.requests:
            self.model.reshape(dict(zip((node.any_name for node in self.model.inputs), map(list, shapes), strict=True)))
            self.requests[shapes] = self.core.compile_model(self.model, "CPU", self.settings).create_infer_request()
        return self.requests[shapes]

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Runs the graph."""
        request = self._request(tuple(array.shape for array in inputs))
        for number, array in enumerate(inputs):
            request.get_input_tensor(number).data[:] = array
        request.infer(share_outputs=True, decode_strings=False)  # with arrays, the call would look at each for a tenth of a millisecond
        return [request.get_output_tensor(number).data.copy() for number in range(self.outputs)]


def load_engine(path: str | Path, threads: int = 0, precision: Precision = "f32") -> Engine:
    """Opens an exported file.

    Args:
        path: .onnx for ONNX Runtime, .xml for OpenVINO.
        threads: threads of one inference; 0 for one a core.
        precision: `f32`, or `bf16` for OpenVINO.

    Raises:
        ValueError: there is no such file, it cannot be read, or its runtime is not installed or cannot compute so.
    """
    path = Path(path)
    if path.suffix not in EXPORTED or not path.is_file():
        raise ValueError(f"{path}: no such exported file; accepted: .onnx, or OpenVINO's .xml")
    if path.suffix == ".xml":
        return OpenVinoEngine(path, threads, precision)
    if precision != "f32":
        raise ValueError(f"precision {precision!r} is not possible with ONNX Runtime; accepted: 'f32', or an OpenVINO file")
    return OnnxEngine(path, threads)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Lets torch compute on the calling thread alone; its others keep cores, for which engines wait, busy for milliseconds afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def imported(package: str) -> Any:
    """Imports a package of the extra `export`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{package} is not installed; pip install 'mobiletap[export]' brings it") from error


def first_line(error: Exception) -> str:
    """Returns the beginning of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def pixels_last(images: Any) -> NDArray[np.uint8]:
    """Returns (B, 3, H, W) uint8 tensors as the (B, H, W, 3) array that graphs take; free for channels_last images."""
    array: NDArray[np.uint8] = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array
