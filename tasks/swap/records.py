"""What is known of each run: a small JSON file beside the run folders, written whole or not at all."""

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.swap.plan import Plan, Run

# Packages whose versions can change a result.
PACKAGES = ("torch", "torchvision", "lightning", "mobiletap", "timm", "segmentation-models-pytorch", "numpy", "opencv-python-headless")

State = Literal["missing", "changed", "unfinished", "failed", "done"]


class Place(NamedTuple):
    """Where the files of a run are.

    Attributes:
        folder: of the run itself.
        config: its whole config.
        log: what it printed.
        record: what is known of it.
    """

    folder: Path
    config: Path
    log: Path
    record: Path


def place_of(root: Path, run: Run) -> Place:
    """Returns where the files of a run of the experiment in the folder `root` are."""
    key = run.key
    return Place(
        root / run.task / run.name, root / "configs" / f"{key}.yaml", root / "logs" / f"{key}.log", root / "records" / f"{key}.json"
    )


def write_json(path: Path, content: Any) -> None:
    """Writes beside the place and renames, so that no half of it is ever read; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the content of a file that `write_json` wrote, or nothing where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def state_of(root: Path, run: Run) -> State:
    """Says how far a run is.

    Returns:
        `missing`: it never began; `changed`: there is one of another plan; `unfinished`: it was stopped or killed; `failed` or `done`.
    """
    place = place_of(root, run)
    record = read_json(place.record)
    if not record or (not place.folder.exists() and record.get("state") != "failed"):
        return "missing"
    if record.get("hash") != run.hash:
        return "changed"
    if record.get("state") == "done":
        return "done" if (place.folder / "metrics.json").is_file() else "unfinished"
    return "failed" if record.get("state") == "failed" else "unfinished"


def check_foreign(plan: Plan) -> None:
    """Refuses folders in the places of runs that no swap experiment made.

    Raises:
        ValueError: names them.
    """
    places = [place_of(plan.folder, run) for run in plan.runs]
    foreign = [str(place.folder) for place in places if place.folder.exists() and not read_json(place.record)]
    if foreign:
        raise ValueError(f"{', '.join(foreign)}: not made by this experiment; move it away, or give the experiment another name")


def last_checkpoint(place: Place) -> Path | None:
    """Returns the checkpoint that a stopped run continues from, if it got so far."""
    path = place.folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() and (place.folder / "config.yaml").is_file() else None


def clear(root: Path, run: Run) -> None:
    """Makes room for a run that starts anew: what belongs to another plan is moved to `replaced/`, and a run without checkpoint deleted."""
    place = place_of(root, run)
    record = read_json(place.record)
    if not place.folder.exists() or not record:
        return
    if record.get("hash") == run.hash:
        shutil.rmtree(place.folder)
        return
    kept = root / "replaced" / f"{run.key}_{record.get('hash')}"
    number = 1
    while kept.exists():
        number += 1
        kept = kept.with_name(f"{run.key}_{record.get('hash')}-{number}")
    kept.mkdir(parents=True)
    place.folder.rename(kept / run.name)
    write_json(kept / "record.json", record)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of what results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
