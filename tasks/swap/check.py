"""Looks at every run of a plan before the first one starts."""

import contextlib
import importlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from backbones import Backbone
from backbones.spec import rebuild
from tasks.arguments import reason_of
from tasks.cost.sources import Source, load
from tasks.swap.plan import Plan, Run


def check_plan(plan: Plan) -> None:
    """Parses the config of every task and backbone, builds its model without memory, and each backbone with its weights.

    So a missing file is said and a download made once, before the first run. The data are not looked at.

    Raises:
        ValueError: something is wrong; all that is wrong is said, a line each.
    """
    wrong: dict[str, None] = {}
    first = {(run.task, run.backbone): run for run in plan.runs}
    for run in first.values():
        for check in (_parse, _start_weights, build):
            try:
                check(run)
            except (ValueError, OSError) as error:
                wrong[f"{run.task} with {run.backbone}: {error}"] = None
                break
    started: set[str] = set()
    for run in () if wrong else first.values():
        spec = run.config["model"]["backbone"]
        if (key := json.dumps(spec, sort_keys=True, default=str)) not in started:
            started.add(key)
            try:
                rebuild({"init_args": {}} | spec, Backbone)
            except (ValueError, TypeError, OSError) as error:
                wrong[f"{run.task} with {run.backbone}: {error}"] = None
    if wrong:
        raise ValueError("\n".join(wrong))


def build(run: Run, device: str = "meta") -> Source:
    """Builds the model of a run with new weights.

    Args:
        run: the run.
        device: `meta` needs neither time nor memory.

    Raises:
        ValueError: the backbone cannot be built, or the head does not fit it.
    """
    with _written(run.config, run) as path:
        try:
            return load(path, device)
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{path}: ").removeprefix("cannot be built: ")) from error


def _parse(run: Run) -> None:
    """Has the task's own command line read the config."""
    main = importlib.import_module(f"tasks.{run.task}.__main__").main
    said = io.StringIO()
    with _written(run.config, run) as path, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(["fit", "--config", str(path), "--print_config"])
        except SystemExit as stopped:
            if stopped.code not in (0, None):
                raise ValueError(reason_of(said.getvalue() or str(stopped.code))) from stopped


def _start_weights(run: Run) -> None:
    model = run.config["model"]
    if model.get("weights") and model.get("strict_weights", True):
        raise ValueError(
            f"model.weights {model['weights']} is of one backbone; accepted in overrides: model.weights null, or model.strict_weights false"
        )


@contextlib.contextmanager
def _written(config: dict[str, Any], run: Run) -> Any:
    """The config as a file for a moment, in a folder named as the task, which tells it where the data does not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / run.task / f"{run.key}.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        yield path
