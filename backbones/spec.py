"""Plain descriptions of built objects, so that checkpoints rebuild models without pickling code."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

# Arguments by which an object takes weights from elsewhere, with the values that leave it as initialised.
NO_WEIGHTS: dict[str, Any] = {"weights": None, "pretrained": False}


class Described:
    """Mixin that remembers the arguments an object was built with (see `describe` and `rebuild`)."""

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Described":
        """Records the arguments before `__init__` gets them."""
        self = super().__new__(cls)
        # Copying and unpickling call __new__ without arguments, hence the partial binding.
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(self, *args, **kwargs)
        bound.apply_defaults()  # a later change of a default must not change old checkpoints
        # Not self._init_args = ...: nn.Module.__setattr__ needs __init__ to have run.
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # those of object.__init__
        named = [name for name, parameter in list(signature.parameters.items())[1:] if parameter.kind not in variadic]
        recorded = {name: bound.arguments[name] for name in named if name in bound.arguments}
        object.__setattr__(self, "_init_args", recorded)
        return self


def describe(built: Described, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Returns `{"class_path": ..., "init_args": {...}}` of plain values from which `rebuild` makes an equal object.

    Args:
        built: the object to describe.
        skip: arguments to leave out, because `rebuild` gets them from elsewhere.

    Raises:
        ValueError: an argument is neither plain data nor itself describable.
    """
    cls = type(built)
    args = {name: _plain(value, f"{cls.__name__}.{name}") for name, value in built._init_args.items()}
    # A rebuilt model takes its weights from the checkpoint, never again from the first file.
    kept = {name: NO_WEIGHTS.get(name, value) for name, value in args.items() if name not in skip}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": kept}


def rebuild(spec: Mapping[str, Any], base: type, *args: Any) -> Any:
    """Builds what `describe` described.

    Args:
        spec: a description made by `describe`.
        base: the class that the result must be an instance of; nothing else is ever called.
        args: positional arguments put before the described ones.

    Raises:
        ValueError: the class cannot be imported or is not a subclass of `base`.
    """
    module, _, name = spec["class_path"].rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import {spec['class_path']!r}, which the checkpoint was built with: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(f"the checkpoint names {spec['class_path']!r}, which is not a {base.__name__}")
    init_args = {key: _rebuild_nested(value) for key, value in spec["init_args"].items()}
    return cls(*args, **init_args)


def _plain(value: Any, where: str) -> Any:
    if value is None:
        return None
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # numpy's floats and the like are subclasses that a safe checkpoint cannot hold
    if isinstance(value, Described):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, where) for item in value]
    raise ValueError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; use plain values")


def _rebuild_nested(value: Any) -> Any:
    is_spec = isinstance(value, dict) and set(value) == {"class_path", "init_args"}
    return rebuild(value, Described) if is_spec else value
