"""Downloads with progress, checksum and resume, and unpacking that stays in its folder."""

import hashlib
import http.client
import logging
import lzma
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

log = logging.getLogger("lightning.pytorch")

CHUNK = 1 << 20
# Photos hardly get smaller by packing, COCO's annotations get six times smaller; zeros do a thousand times.
MOST_INFLATED = 100


class Archive(NamedTuple):
    """A file to fetch.

    Attributes:
        url: where it is (any scheme that urllib opens).
        md5: its checksum.
        unpacks: a path, relative to where it is unpacked, that exists only once it has been unpacked.
    """

    url: str
    md5: str
    unpacks: str


def fetch(archives: Iterable[Archive], root: str | Path) -> None:
    """Downloads and unpacks what is not there yet; an interrupted download goes on where it stopped.

    Args:
        archives: .zip and .tar files.
        root: folder to unpack into; archives are kept there until unpacked.

    Raises:
        ValueError: an address cannot be reached, or a file's checksum is wrong (the file is then deleted).
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):  # the processes of one run may all come here
        _fetch_missing(archives, root)


def _fetch_missing(archives: Iterable[Archive], root: Path) -> None:
    for archive in archives:
        path = root / archive.url.rsplit("/", 1)[-1]
        unfinished = path.with_name(path.name + ".unpacking")
        if (root / archive.unpacks).exists() and not unfinished.exists():
            continue
        if not path.exists():
            _download(archive.url, path)
        _verify(path, archive)
        log.info("unpacking %s", path)
        unfinished.touch()
        _unpack(path, root)
        unfinished.unlink()
        path.unlink()


def _download(url: str, path: Path) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            resumed = start > 0 and getattr(reply, "status", None) == 206 and _begins_at(reply.headers, start)
            length = reply.headers.get("Content-Length") or ""
            total = int(length) + (start if resumed else 0) if length.isdecimal() else 0
            columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            with Progress(*columns) as progress, part.open("ab" if resumed else "wb") as file:
                bar = progress.add_task(path.name, total=total or None, completed=start if resumed else 0)
                while chunk := reply.read(CHUNK):
                    file.write(chunk)
                    progress.advance(bar, len(chunk))
            if part.stat().st_size < total:  # read() does not tell a closed connection from the end
                raise OSError("the connection was closed early")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part already holds the whole file
            raise ValueError(f"{url} cannot be downloaded: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{url} cannot be downloaded: {error}; the same command goes on from {part}") from error
    part.rename(path)


def _begins_at(headers: Message, start: int) -> bool:
    """Whether a reply says that it is the part that was asked for.

    Raises:
        OSError: it is another part.
    """
    if (given := headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
        return True
    raise OSError(f"asked for the bytes from {start} on, the server sent {given or 'others'}")


def _verify(path: Path, archive: Archive) -> None:
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != archive.md5:
        path.unlink()
        raise ValueError(f"{archive.url}: the download has MD5 {digest.hexdigest()}, not {archive.md5}, and was deleted; try again")


def _unpack(path: Path, root: Path) -> None:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not (root / member.filename).resolve().is_relative_to(root.resolve()):
                        raise ValueError(f"{path}: refuses to unpack {member.filename!r}, which lies outside {root}")
                archive.extractall(root, list(_limited(path, archive.infolist(), "file_size")))
        else:
            with tarfile.open(path) as archive:
                archive.extractall(root, _limited(path, archive, "size"), filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: refuses to unpack: {(str(error) or type(error).__name__).splitlines()[0].rstrip(':')}") from error


def _limited(path: Path, members: Iterable[Any], size: str) -> Iterator[Any]:
    """Hands the members on as long as what they unpack to is in proportion to the archive."""
    total, most = 0, MOST_INFLATED * path.stat().st_size
    for member in members:
        total += getattr(member, size)
        if total > most:
            raise ValueError(f"{path}: refuses to unpack: its files would have over {MOST_INFLATED} times the bytes of the archive")
        yield member


COCO_URL = "http://images.cocodataset.org"
COCO_ARCHIVES = (
    Archive(
        f"{COCO_URL}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    Archive(f"{COCO_URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017"),
    Archive(f"{COCO_URL}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017"),
)
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
VOC_ARCHIVES = (
    Archive(
        f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar",
        "c52e279531787c972589f7e41ab4ae64",
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar",
        "b6e924de25625d8de591ea690078ad9f",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
    ),
)
SBD_ARCHIVE = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
    "benchmark_RELEASE/dataset/train.txt",
)
