"""Which images of a data set can be used: a look at all files before training, or all of them decoded once."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from tasks.faults import Fault, Faults
from tasks.files import write_whole
from tasks.probe import Inspection, silenced
from tasks.shapes import default_root

log = logging.getLogger("lightning.pytorch")

# Images whose beginnings are looked at before training.
SAMPLE = 32
# Work is dealt out in parts, so that a million images need no million waiting jobs.
PART = 64
THREADS = min(32, 4 * (os.cpu_count() or 1))
# A change of what counts as readable changes this number, so that old verdicts are not taken for new ones.
VERSION = 1


class Inspected(Protocol):
    """Annotations whose images can be looked at one by one."""

    files: NDArray[np.str_]
    source: Any

    def __len__(self) -> int: ...

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """The files that reading needs: (I,) paths of `image` and, where there are any, of `mask`."""

    def facts(self) -> bytes:
        """What a verdict on the images depends on beside their files."""

    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Finds what is wrong with image `index`; without `decode`, at its beginning."""


def readable(annotations: Inspected, faults: Faults, split: str) -> NDArray[np.int64]:
    """Returns the indices of the images that can be used.

    With the policy `error` all files are looked for and the beginnings of some are read; otherwise all images are decoded in threads,
    once: the verdict is kept in the user's cache folder until a file changes.

    Raises:
        ValueError: with the policy `error`, a file is missing, empty or no image.
    """
    stats = {kind: stat_all(paths) for kind, paths in annotations.paths().items()}
    if faults.policy == "error":
        _refuse_missing(annotations, stats, faults, split)
        sample = np.unique(np.linspace(0, len(annotations) - 1, min(SAMPLE, len(annotations))).astype(int)).tolist()
        with silenced():
            for worst in filter(None, (annotations.inspect(index, decode=False).worst for index in sample)):
                faults.refuse(worst.kind, 1, [worst], images=1)
        return np.arange(len(annotations))
    verdict = _kept_verdict(annotations, stats, split)
    for _, fault in verdict:
        faults.refuse(fault.kind, 1, [fault], images=1)
    return np.setdiff1d(np.arange(len(annotations)), [index for index, _ in verdict])


def _refuse_missing(annotations: Inspected, stats: dict[str, NDArray[np.int64]], faults: Faults, split: str) -> None:
    lost = {kind: np.flatnonzero(found[:, 0] <= 0) for kind, found in stats.items()}
    total, whole = sum(map(len, lost.values())), sum(map(len, stats.values()))
    for kind, rows in lost.items():
        if len(rows):
            path, is_there = annotations.paths()[kind][rows[0]], stats[kind][rows[0], 0] == 0
            reason = "the file is empty" if is_there else "no such file"
            article = {"image": "an image", "mask": "a mask"}[kind]
            said = f"{path}: cannot be read as {article}: {reason} ({total} of the {whole} files of the {split} split are missing or empty)"
            found = {"image": "empty_image", "mask": "broken_mask"}[kind] if is_there else f"missing_{kind}"
            faults.refuse(found, len(rows), [Fault(found, said, str(path))])


def _kept_verdict(annotations: Inspected, stats: dict[str, NDArray[np.int64]], split: str) -> list[tuple[int, Fault]]:
    """The images that cannot be used, from the cache or by decoding all; of several processes one decodes and the others wait."""
    if not stats:
        return _decode_all(annotations, split)
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__} {type(annotations).__name__}".encode())
    for kind, paths in annotations.paths().items():
        digest.update("\0".join(paths.tolist()).encode("utf-8", "surrogateescape") + stats[kind].tobytes())
    digest.update(annotations.facts())
    place = default_root().parent / "checked" / f"{digest.hexdigest()[:32]}.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if (known := _load_verdict(place, len(annotations))) is None:
                known = _decode_all(annotations, split)
                write_whole(place, json.dumps([[index, fault.kind, fault.message, fault.file] for index, fault in known]).encode())
        return known
    except OSError as error:  # a cache that cannot be written costs time only
        log.warning("%s: cannot be written, so the next run decodes all images again (%s)", place, error)
        return _decode_all(annotations, split)


def _load_verdict(place: Path, images: int) -> list[tuple[int, Fault]] | None:
    try:
        found = [(int(index), Fault(kind, message, file)) for index, kind, message, file in json.loads(place.read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):  # not there yet, or damaged
        return None
    return found if all(0 <= index < images for index, _ in found) else None


def _decode_all(annotations: Inspected, split: str) -> list[tuple[int, Fault]]:
    inspected = enumerate(inspect_all(annotations, f"decoding all images of the {split} split"))
    return [(index, found.worst) for index, found in inspected if found.worst]


def inspect_all(annotations: Inspected, description: str) -> Iterator[Inspection]:
    """Inspects all images in threads, in order, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with silenced(), Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=len(annotations))
        for found in in_threads(annotations.inspect, len(annotations)):
            progress.advance(task)
            yield found


def stat_all(paths: NDArray[np.str_]) -> NDArray[np.int64]:
    """Returns (N, 2) sizes in bytes, -1 where there is no such file, and times of change in nanoseconds."""
    found = in_threads(lambda number: _stat(str(paths[number])), len(paths))
    return np.array(list(found), dtype=np.int64).reshape(-1, 2)


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # names with null bytes
        return -1, 0
    return found.st_size, found.st_mtime_ns


def in_threads(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Yields function(0), function(1), ... function(count - 1), computed by threads."""

    def work(start: int) -> list[Any]:
        return [function(number) for number in range(start, min(start + PART, count))]

    pool = ThreadPoolExecutor(THREADS)
    try:
        for part in pool.map(work, range(0, count, PART)):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)
