"""From an experiment to its runs: one flat config for every task, backbone and seed."""

import copy
import hashlib
import importlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from backbones import Backbone
from tasks.swap.settings import Plain, Tasks, TaskSettings

# What a backbone of an experiment may say.
BACKBONE_KEYS = ("name", "class_path", "init_args", "overrides")
# What does not change a run's results, and so is left out of its hash.
UNHASHED = ("name", "runs")


class Network(NamedTuple):
    """A backbone of an experiment.

    Attributes:
        name: in tables, and of run folders.
        class_path: of the class.
        init_args: its arguments.
        overrides: values by dotted key of every task's config.
    """

    name: str
    class_path: str
    init_args: dict[str, Any]
    overrides: dict[str, Any]


class Run(NamedTuple):
    """One training.

    Attributes:
        task: `detect`, `segment` or `classify`.
        backbone: name of the backbone.
        seed: of everything random in it.
        config: the whole config.
    """

    task: str
    backbone: str
    seed: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.backbone}_seed{self.seed}"

    @property
    def key(self) -> str:
        """Name of its files beside the run folders."""
        return f"{self.task}_{self.name}"

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with whatever changes results."""
        counted = {key: value for key, value in self.config.items() if key not in UNHASHED}
        return hashlib.sha256(json.dumps(counted, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Plan(NamedTuple):
    """All runs of an experiment.

    Attributes:
        folder: of the experiment.
        networks: its backbones.
        bases: the config of each task before anything was changed.
        runs: in the order in which they are started: all backbones with the first seed, then with the next.
    """

    folder: Path
    networks: tuple[Network, ...]
    bases: dict[str, dict[str, Any]]
    runs: tuple[Run, ...]

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the experiment file."""
        return list(self.bases)


def make_plan(name: str, tasks: Tasks, backbones: Sequence[str | Plain], seeds: Sequence[int], runs: str | Path) -> Plan:
    """Makes the runs of an experiment; builds nothing.

    Args:
        name: of the experiment, and of its folder.
        tasks: their base configs and overrides.
        backbones: class paths, or mappings of `name`, `class_path`, `init_args` and `overrides`.
        seeds: one run each.
        runs: folder of the runs of all tasks.

    Raises:
        ValueError: something is wrong with it; all that is wrong is said, a line each.
    """
    wrong: list[str] = []
    if not re.fullmatch(r"\w[\w.-]*", name):
        wrong.append(f"name {name!r} is not possible; accepted: letters, digits, '_', '.' and '-'")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        wrong.append(f"seeds {list(seeds)} are not possible; accepted: one or more different whole numbers of at least 0")
    networks = _networks(backbones, wrong)
    chosen = {task: settings for task, settings in vars(tasks).items() if settings.config}
    if not chosen:
        wrong.append("no task is chosen; accepted: a config for one or more of tasks.detect, tasks.segment and tasks.classify")
    bases = {task: base for task, settings in chosen.items() if (base := _read_base(task, settings, wrong)) is not None}
    classes = {network.class_path: cls for network in networks if (cls := _class_of(network, wrong)) is not None}
    made = []
    for seed in seeds:
        for task, base in bases.items():
            made += [
                Run(task, network.name, seed, _config(base, chosen[task], network, classes[network.class_path], seed))
                for network in networks
                if network.class_path in classes
            ]
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return Plan(Path(runs) / "swap" / name, tuple(networks), bases, tuple(made))


def _networks(backbones: Sequence[str | Plain], wrong: list[str]) -> list[Network]:
    specs = [{"class_path": given} if isinstance(given, str) else given.values for given in backbones]
    networks = []
    for spec in specs:
        unknown = [key for key in spec if key not in BACKBONE_KEYS]
        class_path, init_args, overrides = spec.get("class_path"), spec.get("init_args") or {}, spec.get("overrides") or {}
        if unknown or not isinstance(class_path, str) or not isinstance(init_args, Mapping) or not isinstance(overrides, Mapping):
            wrong.append(f"backbone {spec} is not possible; accepted: a class path, or a mapping of {', '.join(BACKBONE_KEYS)}")
            continue
        class_path = class_path if "." in class_path else f"backbones.{class_path}"  # bare names, as on the tasks' command lines
        name = str(spec.get("name") or class_path.rpartition(".")[2])
        if not re.fullmatch(r"\w[\w.-]*", name):
            wrong.append(f"backbone name {name!r} is not possible; accepted: letters, digits, '_', '.' and '-'")
        networks.append(Network(name, class_path, dict(init_args), dict(overrides)))
    repeated = [name for name, count in Counter(network.name for network in networks).items() if count > 1]
    if repeated:
        wrong.append(f"the backbone name {', '.join(repeated)} is given more than once; accepted: another name for each")
    if not backbones:
        wrong.append("no backbone is given; accepted: one or more in backbones")
    return networks


def _class_of(network: Network, wrong: list[str]) -> type[Backbone] | None:
    module, _, name = network.class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's own may raise anything
        wrong.append(f"{network.name}: cannot import {network.class_path!r}: {error}")
        return None
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        wrong.append(f"{network.name}: {network.class_path!r} is no Backbone; accepted: class paths such as backbones.MobileNetV2")
        return None
    return found


def _read_base(task: str, settings: TaskSettings, wrong: list[str]) -> dict[str, Any] | None:
    path = Path(settings.config)
    if not path.is_file():
        wrong.append(f"{task}: {path}: no such config, neither beside the experiment file nor in the working directory")
        return None
    try:
        base = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        wrong.append(f"{task}: {path}: cannot be read as YAML")
        return None
    data = base.get("data") if isinstance(base, dict) else None
    kind = data.get("class_path") if isinstance(data, dict) else None
    if not isinstance(kind, str) or not isinstance(base.get("model"), dict):
        wrong.append(f"{task}: {path} is no config of a task; accepted: files such as those in configs/{task}")
        return None
    if kind.startswith("tasks.") and not kind.startswith(f"tasks.{task}."):
        wrong.append(f"{task}: {path} is of another task, for its data is {kind}; accepted: a config of tasks.{task}")
        return None
    return dict(base)


def _config(base: dict[str, Any], settings: TaskSettings, network: Network, cls: type[Backbone], seed: int) -> dict[str, Any]:
    config = copy.deepcopy(base)
    for key, value in settings.overrides.values.items():
        override(config, str(key), value)
    if not isinstance(config["model"], dict):
        raise ValueError(f"overrides set model to {config['model']!r}; accepted: keys within it, such as model.optimizer.lr")
    config["model"]["backbone"] = _backbone(config["model"].get("backbone"), network, cls)
    for key, value in network.overrides.items():
        override(config, str(key), value)
    # Names are of the run, not of the base.
    return {"name": f"{network.name}_seed{seed}", "seed_everything": seed} | {
        key: value for key, value in config.items() if key not in ("name", "seed_everything", "runs", "ckpt_path")
    }


def _backbone(base: Any, network: Network, cls: type[Backbone]) -> dict[str, Any]:
    """The network's own description; of the base's arguments only the output stride is kept, for it belongs to the task."""
    init_args = copy.deepcopy(network.init_args)
    theirs = (base.get("init_args") or {}) if isinstance(base, dict) else {}
    if "output_stride" in theirs and "output_stride" in inspect.signature(cls).parameters:
        init_args.setdefault("output_stride", theirs["output_stride"])
    return {"class_path": network.class_path, "init_args": init_args}


def override(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets a value in a config.

    Args:
        config: is changed.
        key: dotted; `init_args` may be left out, as on the command line.
        value: a mapping is set key by key, unless it names a class.
    """
    if isinstance(value, Mapping) and value and "class_path" not in value:
        for inner, inner_value in value.items():
            override(config, f"{key}.{inner}", inner_value)
        return
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = _inside(place, parent)
        if not isinstance(place.get(parent), dict):
            place[parent] = {"class_path": place[parent]} if isinstance(place.get(parent), str) else {}
        place = place[parent]
    _inside(place, last)[last] = copy.deepcopy(value)


def _inside(place: dict[str, Any], key: str) -> dict[str, Any]:
    """The arguments of what a class path describes, or the mapping itself."""
    if "class_path" in place and key not in ("class_path", "init_args", "dict_kwargs"):
        if not isinstance(place.get("init_args"), dict):
            place["init_args"] = {}
        return place["init_args"]  # type: ignore[no-any-return]
    return place
