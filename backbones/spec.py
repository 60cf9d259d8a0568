"""Plain descriptions of built objects, so that checkpoints rebuild models without pickling code."""

import ast
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# Arguments by which an object takes weights from elsewhere, with the values that leave it as initialised.
NO_WEIGHTS: dict[str, Any] = {"weights": None, "pretrained": False}
# What no description of ours comes near: deeper ones end Python's stack, larger numbers take all memory.
DEEPEST, LARGEST = 16, 1e6
# Arguments that are class paths themselves.
CLASS_PATHS = ("class_path", "network")


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
        check_class_path(spec["class_path"], base.__name__)
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"cannot import {spec['class_path']!r}, which the checkpoint was built with: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(f"the checkpoint names {spec['class_path']!r}, which is not a {base.__name__}")
    init_args = {key: NO_WEIGHTS[key] if key in NO_WEIGHTS else _rebuild_nested(value) for key, value in spec["init_args"].items()}
    try:
        return cls(*args, **init_args)
    except ValueError:
        raise
    except Exception as error:  # whatever arguments of the wrong kind lead to
        raise ValueError(f"the checkpoint's {name} cannot be built: {type(error).__name__} {error}".splitlines()[0]) from error


def check_description(value: Any, depth: int = 0) -> None:
    """Refuses a description from a file that is none of ours, before anything of it is imported or built.

    Raises:
        ValueError: it holds other than plain values, or too large numbers, is nested too deep, or names what is no class of a network's.
    """
    if depth > DEEPEST:
        raise ValueError(f"the checkpoint's description is nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        if "class_path" in value and not (set(value) == {"class_path", "init_args"} and isinstance(value["init_args"], Mapping)):
            raise ValueError("the checkpoint describes a part otherwise than by class_path and init_args")
        for key, part in value.items():
            if key in CLASS_PATHS:
                check_class_path(part)
            check_description(part, depth + 1)
    elif isinstance(value, list | tuple):
        for part in value:
            check_description(part, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError(f"the checkpoint's description has the number {value!r}; accepted: up to {LARGEST:.0f}")
    elif not (value is None or isinstance(value, int | float | str)):
        raise ValueError(f"the checkpoint's description has a {type(value).__name__}; accepted: plain values")


def check_class_path(class_path: Any, wanted: str = "part of a network") -> None:
    """Refuses to import what cannot be the wanted class, as importing runs a module: those of Python itself, and those without such a name.

    Raises:
        ValueError: it is no such class path.
        ImportError: there is no such module.
    """
    names = class_path.split(".") if isinstance(class_path, str) else []
    if not names or not all(name.isidentifier() for name in names) or names[0] in sys.stdlib_module_names or "__main__" in names[:-1]:
        raise ValueError(f"the checkpoint names {class_path!r}, which is not a {wanted}")
    module = ".".join(names[:-1])
    if module in sys.modules:
        return
    source = _source(module) if module else None
    if source is None:
        raise ImportError(f"cannot import {class_path!r}: there is no module {module!r}")
    known = {name for node in ast.walk(ast.parse(source)) for name in _names(node)}
    if names[-1] not in known:
        raise ValueError(f"the checkpoint names {class_path!r}, but {module} has no such class")


def _source(module: str) -> str | None:
    """The source of a module, without importing it or the packages around it."""
    names, path, found = module.split("."), None, None
    for count in range(1, len(names) + 1):
        full = ".".join(names[:count])
        found = next((spec for finder in sys.meta_path if (spec := finder.find_spec(full, path)) is not None), None)
        if found is None:
            return None
        path = found.submodule_search_locations
    source: str | None = getattr(found.loader, "get_source", lambda name: None)(module) if found else None
    return source


def _names(node: ast.AST) -> list[str]:
    """The classes that a statement may define or import."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [alias.asname or alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


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
