"""The folder of a run, and its metrics.csv."""

import csv
import glob
import io
import time
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tasks.files import write_whole

# The history is written anew at most this often.
SAVE_SECONDS = 5.0


def new_run_folder(base: Path) -> Path:
    """Returns `base`, or `base-2`, `base-3`, ... after the latest run of that name, so that no run overwrites another."""
    latest = _latest_number(base)
    return base.with_name(f"{base.name}-{latest + 1}") if latest else base


def latest_run_folder(base: Path) -> Path:
    """Returns the one of `base`, `base-2`, `base-3`, ... with the highest number."""
    latest = _latest_number(base)
    return base.with_name(f"{base.name}-{latest}") if latest > 1 else base


def _latest_number(base: Path) -> int:
    """The highest number of a run of that name, 1 for `base` itself, 0 where there is none."""
    endings = [path.name.removeprefix(f"{base.name}-") for path in base.parent.glob(f"{glob.escape(base.name)}-*")]
    return max((int(ending) for ending in endings if ending.isdecimal()), default=int(_holds_run(base)))


def _holds_run(folder: Path) -> bool:
    """Whether there is more than what `check` wrote before the first run."""
    return folder.is_dir() and (not any(folder.iterdir()) or any(path.name != "check" for path in folder.iterdir()))


def run_folder_of(checkpoint: Path) -> Path | None:
    """Returns the run that a checkpoint belongs to (`<run>/checkpoints/x.ckpt` beside `<run>/config.yaml`), if any."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


class CsvHistory(Logger):
    """Writes all logged figures to one `metrics.csv`, a row a step; a continued run goes on in the same file.

    Lightning's CSVLogger deletes the file that it finds. A checkpoint holds the last row before it, so that rows that a killed run wrote
    after it are left out and done again.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.file = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.saved = 0.0

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.file.parent.name

    @property
    def version(self) -> str:
        """Runs are told apart by their folders, not by versions."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "CsvHistory":
        """The writer itself."""
        return self

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds figures to the row of a step."""
        step = step or 0
        if not self.rows or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= {name: float(value) for name, value in metrics.items()}

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, but not more often than every few seconds: Lightning calls this after each row."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Puts all rows on the disk and returns what `load_state_dict` needs to cut the file off after them."""
        self._write()
        return {"last_row": dict(self.rows[-1]) if self.rows else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the rows of the file up to those of a checkpoint."""
        last = state["last_row"]
        if last is None or not self.file.is_file():
            self.rows = [dict(last)] if last else []
            return
        with self.file.open(newline="") as file:
            rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
        self.rows = [*(row for row in rows if int(row["step"]) < last["step"]), dict(last)]

    @rank_zero_only
    def _write(self) -> None:
        self.saved = time.monotonic()
        if self.rows:
            names = sorted({name for row in self.rows for name in row} - {"step", "epoch"})
            content = io.StringIO(newline="")
            writer = csv.DictWriter(content, ["step", "epoch", *names])
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self.file, content.getvalue().encode())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the last rows."""
        self._write()
