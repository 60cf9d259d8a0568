"""What a sweep shows while it goes on."""

import csv
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tasks.swap.plan import Plan, Run
from tasks.swap.records import place_of, read_json
from tasks.swap.results import show_seconds
from tasks.swap.runner import Job, Work

# Seconds between two looks at what the runs have written.
REFRESH_SECONDS = 2.0


class Progress:
    """Says which runs begin and end, a line each; on a terminal the runs that go on stand below.

    Args:
        plan: all runs.
        waiting: what is to be run.
        together: how many runs go on at once.
    """

    def __init__(self, plan: Plan, waiting: list[Work], together: int) -> None:
        self.plan, self.together = plan, together
        self.left = {work.run.key: work.run for work in waiting}
        self.total, self.done = len(plan.runs), len(plan.runs) - len(waiting)
        self.active: list[Job] = []
        self.shown = 0.0
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        self.say(f"{self.total} runs in {self.plan.folder}, {self.done} of them ended before; {self.together} at once")
        return self

    def __exit__(self, *args: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """Prints a line, with the time."""
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True, highlight=False, markup=False)

    def started(self, job: Job) -> None:
        """A run has begun."""
        self.active.append(job)
        self.say(f"{'continues' if job.record['continued'] else 'begins'}: {_title(job.run)}")

    def ended(self, job: Job) -> None:
        """A run has ended."""
        self.active = [other for other in self.active if other is not job]
        self.ended_run(job.run)

    def ended_run(self, run: Run) -> None:
        """A run has ended and left its record."""
        record = read_json(place_of(self.plan.folder, run).record)
        self.left.pop(run.key, None)
        self.done += 1
        how = "done" if record.get("state") == "done" else f"FAILED ({record.get('error')})"
        rest = f"; {text} left" if (text := _words(self.seconds_left())) and self.left else ""
        self.say(f"{how}: {_title(run)} in {_words(record.get('seconds'))}; {self.done} of {self.total}{rest}")

    def look(self, active: list[Job]) -> None:
        """Shows how far the runs are that go on."""
        if self.live and time.monotonic() - self.shown > REFRESH_SECONDS:
            self.shown = time.monotonic()
            self.live.update(self._table(active), refresh=True)

    def _table(self, active: list[Job]) -> Table:
        left = _words(self.seconds_left())
        table = Table(title=f"{self.done} of {self.total} runs{f', {left} left' if left else ''}", title_justify="left")
        for column in ("run", "epoch", "step", "time"):
            table.add_column(column, justify="left" if column == "run" else "right")
        for job in active:
            epoch, step = last_row(job.place.folder / "metrics.csv")
            epochs = (job.run.config.get("trainer") or {}).get("max_epochs")
            table.add_row(_title(job.run), f"{epoch} of {epochs}" if epochs else epoch, step, _words(job.seconds))
        return table

    def seconds_left(self) -> float | None:
        """How long the rest takes, judged by the runs of the same task that are done; None where none is."""
        spent: dict[str, list[float]] = {}
        for run in self.plan.runs:
            record = read_json(place_of(self.plan.folder, run).record)
            if record.get("state") == "done" and record.get("hash") == run.hash:
                for key in (f"{run.task} {run.backbone}", run.task, ""):
                    spent.setdefault(key, []).append(record["seconds"])
        if not spent:
            return None
        gone = {job.run.key: job.seconds for job in self.active}
        rest = 0.0
        for run in self.left.values():
            known = next(spent[key] for key in (f"{run.task} {run.backbone}", run.task, "") if key in spent)
            rest += max(0.0, sum(known) / len(known) - gone.get(run.key, 0.0))
        return rest / max(1, min(self.together, len(self.left)))


def last_row(history: Path) -> tuple[str, str]:
    """Returns the epoch (counted from 1) and the step of the last row of a metrics.csv, as text; empty where there is none."""
    try:
        with history.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return "", ""
    epochs = [row["epoch"] for row in rows if row.get("epoch")]
    return str(int(float(epochs[-1])) + 1) if epochs else "", rows[-1]["step"] if rows else ""


def _title(run: Run) -> str:
    return f"{run.task} {run.backbone} seed {run.seed}"


def _words(seconds: float | None) -> str:
    return "" if seconds is None else show_seconds(seconds)
