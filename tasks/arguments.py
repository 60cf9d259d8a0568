"""Looking at a command line before it is parsed, and at a config before its classes are built."""

import importlib
import inspect
import json
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace

from backbones.spec import NO_WEIGHTS

# The one argument of a config's backbone that belongs to the task, and so is kept for another backbone.
KEPT = "output_stride"
# What a config is that ends Python's stack, and what a file is that is no text.
TOO_DEEP = "the config is nested too deep, or an anchor of it contains itself"
NO_TEXT = "is no config in UTF-8"

# How lines of a parser's message begin that do not say what is wrong.
SAYS_NOTHING = (
    "Given value",
    "Expected a <class 'NoneType'>",
    "Subtypes:",
    "Errors:",
    "Does not validate against any",
    "Problem with given class_path",
)


def value_of(args: list[str], option: str) -> str | None:
    """Returns what an option is set to, as `--option value` or `--option=value`; None where it is not given."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        if arg == option or arg.startswith(option + "="):
            return arg.partition("=")[2] or following
    return None


def reset_backbone(args: list[str], config: Path) -> list[str]:
    """Returns arguments by which a backbone of another class than the config's takes none of its settings but the output stride.

    Without them the parser keeps every setting that both classes have: taps, weights and widths of another network.
    """
    named = value_of(args, "--model.backbone") or value_of(args, "--model.backbone.class_path")
    if named is None or named.startswith("{"):
        return []
    module, _, name = named.rpartition(".")
    try:
        theirs = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["backbone"]
        parameters = inspect.signature(getattr(importlib.import_module(module or "backbones"), name)).parameters
        if theirs["class_path"].rpartition(".")[2] == name:
            return []
        left = [key for key in theirs.get("init_args") or {} if key in parameters and key != KEPT]
        defaults = {key: json.dumps(parameters[key].default) for key in left if parameters[key].default is not inspect.Parameter.empty}
    except Exception:  # whatever is wrong with the config or the class, the parser says it
        return []
    given = [key for key in defaults for way in ("", "init_args.") if value_of(args, f"--model.backbone.{way}{key}") is not None]
    return [f"--model.backbone.{key}={value}" for key, value in defaults.items() if key not in given]


def reason_of(text: str) -> str:
    """Returns the line of a parser's message that says what is wrong."""
    lines = [line.strip().removeprefix("- ") for line in text.rpartition("error:")[2].splitlines()]
    keys = [line for line in lines if line.startswith("Parser key")][:1]
    said = [line for line in lines if line and not line.startswith((*SAYS_NOTHING, "Parser key"))]
    said.sort(key=lambda line: line.startswith("Expected "))  # of a choice of types, what the one that was meant says
    return " ".join((keys + said[:1]) or lines[:1])


def leave_out_weights(config: Namespace) -> None:
    """Lets a config build its model without the files of weights that training starts from."""
    for part in (config.model, config.model.backbone.init_args):
        for name in NO_WEIGHTS.keys() & vars(part).keys():
            part[name] = NO_WEIGHTS[name]
