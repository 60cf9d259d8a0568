"""Files of named tensors, each read without running code from it."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

# Ending of the averaged copy of a variable in TensorFlow, which published checkpoints were evaluated with.
TF_AVERAGE = "/ExponentialMovingAverage"
# Times that a file's bytes may unpack to; new weights, of which many are zero, get some ten times smaller.
MOST_INFLATED = 100
# What Keras 3 numbers from 0 in a layer and in a batch norm.
KERAS_LAYER, KERAS_NORM = ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of named tensors.

    Args:
        path: a .safetensors, .npz, .h5 or .keras (Keras) or .tflite file, a TensorFlow checkpoint (`model.ckpt`, of which
            `model.ckpt.index` exists), or a torch file (.pth, .pt, .ckpt) that holds tensors and plain values only.

    Returns:
        The tensors by name; of a torch checkpoint with a `state_dict` or `model`, those in it. Weights from .tflite are dequantised, laid
        out as in torch (out, in, height, width) and named `scope/weights` and `scope/biases` after the operation.

    Raises:
        ValueError: the file does not exist, cannot be read, or holds something else, or a package that reads it is not installed.
    """
    path = Path(path)
    exists = path.is_file()
    is_tf = path.suffix == ".index" if exists else Path(f"{path}.index").is_file()
    if not exists and not is_tf:
        raise ValueError(f"{path}: no such weights file")
    reader = _read_tf_checkpoint if is_tf else READERS.get(path.suffix.lower(), _read_torch)
    try:
        found = reader(path)
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: reading it needs {error.name}; install it by: pip install 'mobiletap[convert]'") from error
    except Exception as error:  # each reader raises its own kinds of error, pickle's among them
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as weights: {type(error).__name__} {reason}") from error
    if isinstance(found, dict):  # `model` in torchvision's reference scripts
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: holds no dictionary of tensors")
    odd = [name for name, value in found.items() if not isinstance(name, str) or value.layout != torch.strided or value.is_complex()]
    if odd:
        raise ValueError(f"{path}: its tensor {odd[0]} is sparse, complex or without a name; accepted: named tensors of real numbers")
    return found


def load_torch(path: Path) -> Any:
    """Loads a torch file of tensors and plain values to the CPU.

    Raises:
        ValueError: it would take more memory than it has bytes: torch writes its archives uncompressed.
        Exception: whatever torch raises for damaged files and those that hold objects.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("its archive is compressed, which torch never does, and so would take more memory than it has bytes")
        file: Path | IO[bytes] = path
    else:  # of torch before 1.6: a damaged length would make room for as many bytes in reading the file, but not in reading bytes
        file = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # before it refuses the file
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_torch(path: Path) -> Any:
    try:
        return load_torch(path)
    except (pickle.UnpicklingError, RuntimeError) as error:  # torch's own words say how to run the code
        raise ValueError("it is damaged, or holds objects, which could run code") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        _check_inflation(sum(member.file_size for member in archive.infolist()), path.stat().st_size)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # numpy leaves a damaged file open
        return {_plain_name(name): torch.from_numpy(arrays[name]) for name in arrays}


def _read_keras(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        _check_inflation(member.file_size, path.stat().st_size)
        return _in_h5(io.BytesIO(archive.read(member)), member.file_size)


def _read_h5(path: Path) -> dict[str, Tensor]:
    return _in_h5(path, path.stat().st_size)


def _in_h5(file: Path | IO[bytes], size: int) -> dict[str, Tensor]:
    import h5py

    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            _check_inflation(item.nbytes, size)
        if isinstance(item, h5py.Dataset) and np.issubdtype(item.dtype, np.number):
            # The optimizer's copies of weights may end in the weights' names.
            found[name if "optimizer" in name else _plain_name(name)] = torch.from_numpy(np.asarray(item[()]))

    with h5py.File(file, "r") as content:
        content.visititems(visit)
    return found


def _check_inflation(unpacked: int, size: int) -> None:
    """Refuses what would fill the memory: weights are noise, which packing makes hardly smaller."""
    if unpacked > MOST_INFLATED * size:
        raise ValueError(f"would take {unpacked} bytes of memory, over {MOST_INFLATED} times its size")


def _plain_name(name: str) -> str:
    """Keras's `model/Conv1/Conv1/kernel:0`, `Conv1|Conv1|kernel:0` and `layers/Conv1/vars/0` as `Conv1/kernel`; others as they are."""
    parts = name.replace("|", "/").split("/")
    if len(parts) > 2 and parts[-2] == "vars" and parts[-1].isdecimal():
        kinds = KERAS_NORM if "bn" in parts[-3].lower() or "batch_norm" in parts[-3] else KERAS_LAYER
        number = int(parts[-1])
        return f"{parts[-3]}/{kinds[number] if number < len(kinds) else number}"
    doubled = len(parts) > 2 and parts[-2] == parts[-3]  # as Keras 3 has it without the number
    return "/".join(parts[-2:]).partition(":")[0] if doubled or ":" in parts[-1] else name


def _read_tf_checkpoint(path: Path) -> dict[str, Tensor]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(path).removesuffix(".index"))
    found = {}
    for name, kind in sorted(reader.get_variable_to_dtype_map().items()):
        if name.endswith(TF_AVERAGE) or not (kind.is_floating or kind.is_integer):
            continue
        chosen = name + TF_AVERAGE if reader.has_tensor(name + TF_AVERAGE) else name
        found[name] = torch.from_numpy(np.array(reader.get_tensor(chosen)))
    return found


def _read_tflite(path: Path) -> dict[str, Tensor]:
    from backbones.weights.tflite import read_tflite

    return read_tflite(path.read_bytes())


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".keras": _read_keras,
    ".tflite": _read_tflite,
}
