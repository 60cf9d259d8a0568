"""`python -m tasks.bench`: how fast training, inference, data and evaluation are beside the peers, in one run each."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from tasks.bench.race import run
from tasks.command import run_command

PARTS = ("train", "infer", "postprocess", "masks", "evaluate", "data")


def make_parser() -> ArgumentParser:
    """Returns the parser of the command line: a subcommand for each part, with the arguments of its `races`."""
    parser = ArgumentParser(prog="python -m tasks.bench", description=__doc__)
    actions = parser.add_subcommands()
    for part in PARTS:
        module = _module(part)
        own = ArgumentParser(description=module.__doc__)
        own.add_function_arguments(module.races)
        own.add_argument("--repeats", type=int, default=7, help="Measured turns of each candidate.")
        own.add_argument("--threads", type=int | None, default=None, help="Threads of one operator; by default one a core.")
        own.add_argument("--output", type=str | None, default=None, help="Folder for PART.md and PART.json.")
        actions.add_subcommand(part, own, help=(module.__doc__ or "").splitlines()[0])
    return parser


def bench(part: str, settings: dict[str, Any], repeats: int, threads: int | None, output: str | None) -> None:
    """Runs the races of a part, shows a table as each ends, and writes them.

    Raises:
        ValueError: a number is below 1, or results differ.
    """
    from tasks.bench import report
    from tasks.bench.roofline import measure_rates

    if repeats < 1 or (threads is not None and threads < 1):
        raise ValueError(f"repeats {repeats}, threads {threads}: accepted: at least 1")
    if threads is not None:
        torch.set_num_threads(threads)
    rates = measure_rates()
    finished: list[report.Result] = []
    for race in _module(part).races(**settings):
        with Console(stderr=True).status(race.title, refresh_per_second=1) as status:
            times = run(race, repeats, announce=lambda name, title=race.title: status.update(f"{title}: {name}"))  # type: ignore[misc]
        finished.append(report.Result(race, times, rates))
        report.show(finished[-1])
    if output:
        report.write(part, finished, repeats, output)


def _module(part: str) -> Any:
    from importlib import import_module

    return import_module(f"tasks.bench.parts.{part}")


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""

    def command() -> None:
        config: Namespace = make_parser().parse_args(list(sys.argv[1:] if args is None else args))
        part = config.subcommand
        settings = config[part].as_dict()
        bench(part, {key: settings.pop(key) for key in list(settings) if key not in ("repeats", "threads", "output")}, **settings)

    run_command(command)


if __name__ == "__main__":
    main()
