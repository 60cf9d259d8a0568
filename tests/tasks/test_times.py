"""The training log tells waiting for data from steps."""

import csv
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tasks.times
from tasks.times import StepTimes
from tests.tasks.nursery import FLAGS, OWN, run_of

BATCH = SimpleNamespace(indices=[0, 1, 2])


class Rows:
    """A logger."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows[step] = metrics


def trained(monkeypatch: pytest.MonkeyPatch, waits: list[float], works: list[float], every: int = 2, **data: Any) -> dict[int, Any]:
    """A training by a clock of its own, with a validation of an hour after each step."""
    now, rows, times = [0.0], Rows(), StepTimes()
    monkeypatch.setattr(tasks.times.time, "perf_counter", lambda: now[0])
    loop, connector = SimpleNamespace(_batches_that_stepped=0), SimpleNamespace(should_update_logs=False)
    trainer: Any = SimpleNamespace(
        world_size=2,
        is_global_zero=True,
        loggers=[rows],
        fit_loop=SimpleNamespace(epoch_loop=loop),
        _logger_connector=connector,
        datamodule=SimpleNamespace(num_workers=1, **data),
    )
    times.on_train_epoch_start(trainer, None)
    for number, (wait, work) in enumerate(zip(waits, works, strict=True)):
        loop._batches_that_stepped, connector.should_update_logs = number, (number + 1) % every == 0
        now[0] += wait
        times.on_train_batch_start(trainer, None, BATCH, number)
        now[0] += work
        times.on_train_batch_end(trainer, None, None, BATCH, number)  # type: ignore[arg-type]
        now[0] += 3600
        times.on_validation_end(trainer, None)
    times.on_train_end(trainer, None)  # type: ignore[arg-type]
    return rows.rows


def test_means_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = trained(monkeypatch, [1, 2, 0, 0], [1, 4, 3, 5])
    assert rows[1] == pytest.approx({"time/data": 1.5, "time/step": 2.5, "time/images_per_second": 12 / 8})
    assert rows[3] == pytest.approx({"time/data": 0, "time/step": 4, "time/images_per_second": 12 / 8})
    assert list(rows) == [1, 3]


@pytest.mark.parametrize(
    ("wait", "work", "data", "said"),
    [
        (
            37,
            63,
            {"cache": None},
            "37 % of the time of training was spent waiting for data; more of --data.num_workers (now 1), or --data.cache",
        ),
        (37, 63, {"cache": "kept"}, "waiting for data; more of --data.num_workers (now 1) may help"),
        (37, 63, {}, "waiting for data; more of --data.num_workers (now 1) may help"),
        (10, 90, {}, ""),
        (3, 6, {}, ""),
    ],
)
def test_said_where_it_is_notable(
    wait: float, work: float, data: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lightning.pytorch"):
        trained(monkeypatch, [wait], [work], **data)
    assert (said in caplog.text) if said else not caplog.text


def test_history_of_a_run_has_times(shapes_root: Path, tmp_path: Path) -> None:
    from tasks.detect.__main__ import main

    flags = [*FLAGS, *OWN["detect"], "--trainer.max_steps=4", "--trainer.log_every_n_steps=2", "--trainer.limit_val_batches=0"]
    flags.append("--trainer.enable_checkpointing=false")
    main(["fit", *flags, f"--data.root={shapes_root}", f"--runs={tmp_path}", f"--data.cache={tmp_path / 'cache'}"])
    rows = list(csv.DictReader((run_of(tmp_path, "detect") / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["time/step"]] == ["1", "3"]
    assert all(float(row["time/step"]) > 0 and float(row["time/data"]) > 0 and float(row["time/images_per_second"]) > 0 for row in rows)
