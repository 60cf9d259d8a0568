"""The folder of a run, and its metrics.csv."""

import csv
import glob
import time
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

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
    return max((int(ending) for ending in endings if ending.isdecimal()), default=int(base.exists()))


def run_folder_of(checkpoint: Path) -> Path | None:
    """Returns the run that a checkpoint belongs to (`<run>/checkpoints/x.ckpt` beside `<run>/config.yaml`), if any."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


class CsvHistory(Logger):
    """Writes all logged figures to one `metrics.csv`, a row a step; a continued run goes on in the same file.

    Lightning's CSVLogger deletes the file that it finds.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.file = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.saved = 0.0
        self.continues = self.file.is_file()
        if self.continues:
            with self.file.open(newline="") as file:
                self.rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]

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
        if self.continues:  # the steps after the checkpoint are done again
            self.rows = [row for row in self.rows if int(row["step"]) < step]
            self.continues = False
        if not self.rows or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= {name: float(value) for name, value in metrics.items()}

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, but not more often than every few seconds: Lightning calls this after each row."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._write()

    def _write(self) -> None:
        self.saved = time.monotonic()
        if self.rows:
            names = sorted({name for row in self.rows for name in row} - {"step", "epoch"})
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.file.with_suffix(".part")
            with unfinished.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["step", "epoch", *names])
                writer.writeheader()
                writer.writerows(self.rows)
            unfinished.replace(self.file)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the last rows."""
        self._write()
