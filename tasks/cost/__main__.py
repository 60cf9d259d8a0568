"""`python -m tasks.cost`: parameters, multiply-adds, memory and latency of models, and the paper's tables beside them."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from tasks.cli import CONFIGS
from tasks.command import run_command
from tasks.cost.latency import Precision, Settings

if TYPE_CHECKING:
    from tasks.cost.report import Table


def cost(
    sources: list[str],
    table: int | None = None,
    layers: bool = False,
    memory: bool = False,
    latency: bool = False,
    size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    precision: Precision = "32",
    threads: int | None = None,
    repeats: int = 20,
    batch_size: int = 1,
    output: str | None = None,
) -> None:
    """Counts what models and their parts cost, or compares a table of the MobileNetV2 paper with the networks built here.

    Args:
        sources: configs of any task, or checkpoints; all shipped configs where none is given.
        table: number of one of the paper's tables, 1 to 7; no sources then.
        layers: list every layer too, with parameters as Keras counts them.
        memory: list the most channels that must be held at each resolution too.
        latency: measure the time of an image on the CPU too.
        size: height and width of the input in pixels, if not that of the data.
        num_classes: number of classes (in detection without the background), if not that of the data.
        precision: of the measured runs: `32` for float32, `bf16` for bfloat16 where autocast allows it.
        threads: of the measured runs; by default as many as torch takes.
        repeats: number of measured runs.
        batch_size: images of a measured run.
        output: folder for `cost.md` and a CSV of each table.

    Raises:
        ValueError: a source or a value cannot be used.
    """
    from tasks.cost import report

    if table is not None:
        from tasks.cost.compare import paper_table

        if sources or layers or memory or latency or size or num_classes:
            raise ValueError("--table is of the paper's own networks; it takes no sources, and --output alone beside it")
        tables = [paper_table(table)]
    else:
        settings = Settings(repeats, batch_size, precision, threads) if latency else None
        tables = _cost(sources, size, num_classes, settings, layers, memory)
    report.show(tables)
    if output:
        report.write(tables, output)
        print(f"written to {output}")


def _cost(
    paths: Sequence[str],
    size: tuple[int, int] | None,
    num_classes: int | None,
    settings: Settings | None,
    layers: bool,
    memory: bool,
) -> "list[Table]":
    from tasks.cost.count import parts, trace
    from tasks.cost.latency import conditions, measure
    from tasks.cost.sources import MODULES, load
    from tasks.cost.tables import cost_table, layer_table, memory_table

    paths = paths or [str(path) for task in sorted(MODULES) for path in sorted((CONFIGS / task).glob("*.yaml"))]
    sources = [load(path, "cpu" if settings else "meta", num_classes) for path in paths]
    traces = [trace(source.model, size or source.model.size) for source in sources]
    pairs = list(zip(sources, traces, strict=True))
    if settings:
        modules = [{part.name: part.modules for part in parts(traced)} for traced in traces]
        times = [measure(source.model, traced.size, names, settings) for (source, traced), names in zip(pairs, modules, strict=True)]
        tables = [cost_table(sources, traces, times, (conditions(settings),))]
    else:
        tables = [cost_table(sources, traces)]
    tables += [memory_table(sources, traces)] if memory else []
    return tables + ([layer_table(source, traced) for source, traced in pairs] if layers else [])


def make_parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = ArgumentParser(prog="python -m tasks.cost", description=(cost.__doc__ or "").splitlines()[0])
    parser.add_argument("sources", nargs="*", default=[], help="Configs of any task, or checkpoints; without any, all shipped configs.")
    parser.add_function_arguments(cost, skip={"sources"})
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_command(lambda: cost(**make_parser().parse_args(list(sys.argv[1:] if args is None else args)).as_dict()))


if __name__ == "__main__":
    main()
