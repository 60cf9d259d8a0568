"""Writing files whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes beside the place, waits for the disk, then renames: whenever it is cut short, what was there before is still there.

    Raises:
        OSError: the disk is full or refuses; says which file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a rename may outlive a power cut and the content not
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error}); what was there before is untouched") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Waits until a renaming in the folder is on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
