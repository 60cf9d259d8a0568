"""Faults of a data set: what readers find wrong, counted, with examples."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger("lightning.pytorch")

OnFault = Literal["error", "skip"]
# `report` is what `check` asks for: everything is collected and nothing said before the end.
Policy = Literal["error", "skip", "report"]

# Examples kept of each kind; further ones are counted only.
EXAMPLES = 20
# Longest value in a message.
SHOWN_LETTERS = 80

# Every kind of fault and what it counts, the worst first.
KINDS = {
    "unreadable_annotations": "splits that cannot be read",
    "missing_image": "images that are not there",
    "empty_image": "image files of zero bytes",
    "not_an_image": "files that are no images",
    "truncated_image": "truncated images",
    "broken_image": "images that cannot be decoded",
    "huge_image": "images of too many pixels",
    "wrong_size": "images of another size than annotated",
    "missing_annotation": "images without their annotation file",
    "broken_annotation": "annotation files that cannot be read",
    "missing_mask": "images without a mask",
    "broken_mask": "masks that cannot be read",
    "colour_mask": "masks of colours instead of class indices",
    "mask_values": "masks with values that are no class",
    "mask_size": "masks of another size than their image",
    "mask_convention": "splits whose masks hold no object but void",
    "broken_entry": "entries that lack something or have it in another type",
    "duplicate_image_id": "images whose id another one has",
    "duplicate_category_id": "categories whose id another one has",
    "duplicate_category_name": "categories whose name another one has",
    "duplicate_annotation_id": "objects whose id another one has",
    "duplicate_file_name": "images whose file name another one has",
    "unknown_image": "objects of images that are not listed",
    "unknown_category": "objects of classes that are not listed",
    "broken_box": "boxes that are not four numbers",
    "box_not_finite": "boxes of NaN or infinity",
    "box_huge": "boxes far beyond any image",
    "box_reversed": "boxes of negative width or height",
    "box_empty": "boxes of zero width or height",
    "box_outside": "boxes outside their image",
    "box_beyond": "boxes that reach beyond their image",
    "missing_segmentation": "objects without a segmentation",
    "broken_polygon": "objects with a broken polygon",
    "broken_run_lengths": "objects with broken run lengths",
    "differing_classes": "classes that only one split has or has elsewhere in the order",
    "shared_image": "validation images that are in the training split too",
    "wrong_ending": "images of another format than their ending says",
    "unused_mask": "masks without an image",
    "class_without_images": "classes without a training example",
}
# What keeps an image from being used.
UNUSABLE = (
    *("missing_image", "empty_image", "not_an_image", "truncated_image", "broken_image", "huge_image", "wrong_size"),
    *("missing_mask", "broken_mask", "colour_mask", "mask_values", "mask_size", "broken_polygon", "broken_run_lengths"),
)
# What harms nothing and is only mentioned.
NOTES = ("wrong_ending", "unused_mask", "class_without_images")


class FaultError(ValueError):
    """A fault that is met while reading.

    Args:
        message: one sentence that names the file.
        kind: one of `KINDS`; torch leaves it out where it hands on the error of a loader worker.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        message: one sentence that names the file.
        file: the image that it concerns, where there is one.
        annotation: id of the object in its annotation file.
        value: what was found.
        box: x1 y1 x2 y2 in pixels, of objects with a box of numbers.
        mask: the mask file that it concerns.
    """

    kind: str
    message: str
    file: str | None = None
    annotation: Any = None
    value: Any = None
    box: tuple[float, ...] | None = None
    mask: str | None = None


class Faults:
    """Collects the faults of a split.

    Args:
        policy: `error` raises what cannot be used at once, `skip` counts it and says it once (see `warn`), `report` counts only.
    """

    def __init__(self, policy: Policy = "error") -> None:
        self.policy = policy
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Fault]] = {}
        self.dropped: Counter[str] = Counter()
        self.images = 0

    def note(self, kind: str, count: int, examples: Iterable[Fault]) -> None:
        """Counts what training can live with.

        Args:
            kind: one of `KINDS`.
            count: how many there are.
            examples: all of them, of which only the first are asked for.
        """
        if count:
            self.counts[kind] += count
            kept = self.examples.setdefault(kind, [])
            kept += islice(examples, EXAMPLES - len(kept))

    def refuse(self, kind: str, count: int, examples: Iterable[Fault], images: int = 0) -> None:
        """Counts what cannot be used, and which the reader leaves out unless this raises.

        Args:
            kind: one of `KINDS`.
            count: how many there are.
            examples: all of them, of which only the first are asked for.
            images: how many images are left out with them.

        Raises:
            FaultError: the policy is `error`; a ValueError with the message of the first one.
        """
        if not count:
            return
        found = list(islice(examples, EXAMPLES))
        if self.policy == "error":
            raise FaultError(found[0].message, kind)
        self.note(kind, count, found)
        self.dropped[kind] += count
        self.images += images

    def warn(self, message: str, *values: object) -> None:
        """Logs a warning in the first process, unless faults are reported at the end."""
        if self.policy != "report" and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            log.warning(message, *values)

    def warn_of_dropped(self, split: str, images: int) -> None:
        """Says once what was left out of a split of so many images."""
        if self.dropped:
            kinds = [kind for kind in KINDS if kind in self.dropped]
            listed = "; ".join(f"{KINDS[kind]}: {self.dropped[kind]}, such as {self.examples[kind][0].message}" for kind in kinds)
            self.warn("on_fault skip leaves out %d of the %d images of the %s split; %s", self.images, images, split, listed)

    @property
    def total(self) -> int:
        """How many faults there are; notes do not count."""
        return sum(count for kind, count in self.counts.items() if kind not in NOTES)

    def to_json(self) -> dict[str, Any]:
        """Returns counts and examples by kind as plain values, the worst kinds first."""
        known = [kind for kind in KINDS if kind in self.counts]
        return {kind: {"count": self.counts[kind], "examples": [_plain(fault) for fault in self.examples[kind]]} for kind in known}


def shown(value: object) -> str:
    """Returns a value as it is written in messages: cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS - 3]}..."


def _plain(fault: Fault) -> dict[str, Any]:
    """What is known of a fault, without its kind; values that JSON does not have as text."""
    found = {key: value for key, value in asdict(fault).items() if value is not None and key not in ("kind", "box")}
    if "value" in found:
        found["value"] = found["value"] if isinstance(found["value"], (int, str)) else shown(found["value"])
    return found
