"""What is to be said beside the figures: what was equal, and every difference beyond the backbone's class."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.swap.costs import QUIET
from tasks.swap.plan import Network, Plan, Run
from tasks.swap.results import FIGURES, Entry, comparisons
from tasks.swap.statistics import sentence

EQUAL = (
    "Equal by construction: data and its order, augmentation (both follow from the seed alone), loss, optimizer, schedule, epochs, "
    "batch size, input size and the head's settings, but for what is named here."
)
SPREAD = (
    "± is the standard deviation over the seeds, which change the new weights, the order and the augmentation; the validation images are "
    "always the same."
)


def common_notes(found: Mapping[str, list[Entry]]) -> list[str]:
    """Returns the notes that concern all tasks: what is equal, versions, machines, and how latency was measured."""
    entries = [entry for entries in found.values() for entry in entries]
    records = [result.record for entry in entries for result in entry.results if result.state == "done"]
    return [EQUAL, SPREAD, *_sets(records), *_latency(entries)]


def _sets(records: list[dict[str, Any]]) -> Iterator[str]:
    versions = Counter(", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items()) for record in records)
    if versions:
        yield f"Versions: {'; or '.join(versions)}."
    if len(versions) > 1:
        yield "The runs did not all use the same versions: what they differ in is not the backbone alone."
    machines = Counter(_machine(record) for record in records)
    if machines:
        yield f"Training time is that of a whole run, start and evaluation included, on {'; or '.join(machines)}."


def _machine(record: dict[str, Any]) -> str:
    where = f"CUDA device, {record.get('processor')}" if record.get("device") else str(record.get("processor"))
    threads, together = record.get("threads"), record.get("together")
    return f"{where} ({record.get('cpus')} CPUs), {threads} thread{'' if threads == 1 else 's'} a run, {together} at once"


def _latency(entries: list[Entry]) -> Iterator[str]:
    measured = [entry.cost.latency for entry in entries if entry.cost.latency]
    yield from dict.fromkeys(latency["conditions"] for latency in measured)
    busy = max((latency["busy"] or 0.0 for latency in measured), default=0.0)
    if busy > QUIET:
        yield f"The machine was not quiet when latency was measured: others used up to {busy:.0%} of its CPUs."


def task_notes(plan: Plan, task: str, entries: list[Entry]) -> list[str]:
    """Returns the notes of one task: its terms, the differences between backbones, and their comparison."""
    runs = {entry.network.name: entry.results[0].run for entry in entries}
    first = FIGURES[task][0]
    return [
        f"Terms: {_terms(next(iter(runs.values())))}; figures are of the checkpoint that is best on the validation images by {first}.",
        *_replaced(plan, task, runs),
        *_differences(runs),
        *_weights(entries),
        *_warnings(entries),
        *_mixing(next(iter(runs.values()))),
        *(_features(entry) for entry in entries),
        *_continued(entries),
        *comparison_notes(task, entries),
    ]


def comparison_notes(task: str, entries: list[Entry]) -> list[str]:
    """Says of every pair of backbones what the seeds allow to say."""
    pairs = comparisons(task, entries)
    return [sentence(pair, FIGURES[task][0], len(pairs)) + "." for pair in pairs]


def _terms(run: Run) -> str:
    data, trainer = run.config["data"].get("init_args") or {}, run.config.get("trainer") or {}
    wanted = {name: data[name] for name in ("train_images", "val_images", "size", "crop_size", "batch_size") if name in data}
    wanted |= {name: trainer[name] for name in ("max_epochs", "max_steps", "precision") if name in trainer}
    return ", ".join([str(run.config["data"].get("class_path")), *(f"{name} {value}" for name, value in wanted.items())])


def _replaced(plan: Plan, task: str, runs: Mapping[str, Run]) -> Iterator[str]:
    base = plan.bases[task]["model"].get("backbone")
    init_args = (base.get("init_args") or {}) if isinstance(base, dict) else {}
    dropped = [f"{name} {value}" for name, value in init_args.items() if name != "output_stride"]
    if dropped:
        yield f"Of the config's own backbone, {base['class_path']}, these arguments were dropped: {', '.join(dropped)}."
    strides = {name: (run.config["model"]["backbone"]["init_args"]).get("output_stride", "its default") for name, run in runs.items()}
    if len(set(map(str, strides.values()))) > 1:
        yield f"output_stride differs: {', '.join(f'{name} {value}' for name, value in strides.items())}."


def _differences(runs: Mapping[str, Run]) -> Iterator[str]:
    """Every value outside the backbone that is not the same for all."""
    flat = {name: dict(_flat(run.config)) for name, run in runs.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    for key in keys:
        values = {name: values.get(key, "not set") for name, values in flat.items()}
        if key != "name" and not key.startswith("model.backbone") and len(set(map(str, values.values()))) > 1:
            yield f"Differs beyond the backbone: {key} is {', '.join(f'{value} for {name}' for name, value in values.items())}."


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def _weights(entries: list[Entry]) -> Iterator[str]:
    given = {entry.network.name: start for entry in entries if (start := start_of(entry.network))}
    others = [entry.network.name for entry in entries if entry.network.name not in given]
    if not given:
        yield "All backbones start from random weights."
        return
    yield f"Start from trained weights: {', '.join(f'{name} ({start})' for name, start in given.items())}."
    if others:
        yield f"Start from random weights: {', '.join(others)}; these are no equal terms with those above."


def _warnings(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        for warning in entry.results[0].record.get("warnings", ()):
            yield f"{entry.network.name}: {warning}."


def _mixing(run: Run) -> Iterator[str]:
    if run.config["model"].get("mixup") or run.config["model"].get("cutmix"):
        yield "Which images mixup and CutMix mix also depends on the network, for they draw after its initialisation and dropout."


def start_of(network: Network) -> str:
    """Returns the trained weights that a backbone starts from; empty for random ones."""
    found = [f"{name} {network.init_args[name]}" for name in ("weights", "pretrained") if network.init_args.get(name)]
    return ", ".join(found)


def _features(entry: Entry) -> str:
    taps = ", ".join(f"{name} ({channels} channels, stride {stride})" for name, (channels, stride) in entry.cost.taps.items())
    anchors = f"; {entry.cost.anchors:,} anchors" if entry.cost.anchors else ""
    share = f"{entry.cost.backbone_parameters:,} of {entry.cost.parameters:,} parameters are the backbone's"
    return f"{entry.network.name} ({entry.network.class_path}): the head reads {taps}{anchors}; {share}."


def _continued(entries: list[Entry]) -> Iterator[str]:
    names = [f"{e.network.name} seed {r.run.seed}" for e in entries for r in e.results if r.state == "done" and r.record.get("continued")]
    if names:
        yield f"Interrupted and continued, so that the images after the interruption may have come in another order: {', '.join(names)}."
