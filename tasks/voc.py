"""The folders of a VOCdevkit."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.download import Archive, fetch


def split_pairs(splits: Sequence[str]) -> list[tuple[str, str]]:
    """Turns year/split, such as 2012/trainval, into pairs.

    Raises:
        ValueError: one is not written so.
    """
    wrong = [split for split in splits if split.count("/") != 1]
    if wrong:
        raise ValueError(f"split {wrong[0]!r} is not possible; accepted: year/split, such as 2012/trainval")
    return [(year, name) for year, _, name in (split.partition("/") for split in splits)]


def fetch_devkit(root: Path, archives: Iterable[Archive]) -> None:
    """Downloads archives that unpack to a folder VOCdevkit.

    Raises:
        ValueError: `root` is no such folder, or see `fetch`.
    """
    if root.name != "VOCdevkit":
        raise ValueError(f"root {root} cannot be downloaded to; accepted: a folder named VOCdevkit, as in the archives")
    fetch(archives, root.parent)


def read_split(root: str | Path, year: str, kind: str, split: str) -> tuple[Path, list[str]]:
    """Reads the image names of a split.

    Args:
        root: the VOCdevkit folder.
        year: of the challenge, such as 2012.
        kind: the folder under `ImageSets`: Main or Segmentation.
        split: such as trainval.

    Returns:
        The folder of that year, and the names without ending.

    Raises:
        ValueError: there is no such list.
    """
    folder = Path(root) / f"VOC{year}"
    list_file = folder / "ImageSets" / kind / f"{split}.txt"
    if not list_file.is_file():
        known = ", ".join(sorted(path.stem for path in list_file.parent.glob("*.txt")))
        accepted = f"accepted: {known}" if known else f"root must be a VOCdevkit folder that holds VOC{year}"
        raise ValueError(f"{list_file}: no such file; {accepted}")
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{list_file}: is not a list of image names in UTF-8: {error}") from error
    return folder, [line.split()[0] for line in lines if line.strip()]
