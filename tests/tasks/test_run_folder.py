"""Folders of runs, and metrics.csv."""

import csv
from pathlib import Path

import torch

from tasks.run_folder import CsvHistory, latest_run_folder, new_run_folder, run_folder_of


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def log(folder: Path, steps: dict[int, dict[str, float]]) -> None:
    history = CsvHistory(folder)
    for step, metrics in steps.items():
        history.log_metrics(metrics, step)
    history.finalize("success")


def test_runs_are_numbered_and_none_is_taken_twice(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder = new_run_folder(tmp_path / "detect" / "shapes")
        assert latest_run_folder(tmp_path / "detect" / "shapes") == (tmp_path / "detect" / names[-1] if names else folder)
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names == ["shapes", "shapes-2", "shapes-3"]
    assert latest_run_folder(tmp_path / "detect" / "shapes").name == "shapes-3"


def test_newest_run_is_found_where_an_earlier_one_was_deleted(tmp_path: Path) -> None:
    for name in ("shapes", "shapes-3", "shapes-10"):
        (tmp_path / name).mkdir()
    (tmp_path / "shapes-large").mkdir()
    assert latest_run_folder(tmp_path / "shapes") == tmp_path / "shapes-10"


def test_run_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert run_folder_of(checkpoint) is None
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    assert run_folder_of(checkpoint) == tmp_path / "run"
    assert run_folder_of(tmp_path / "run" / "elsewhere" / "best.ckpt") is None
    assert run_folder_of(Path("best.ckpt")) is None


def test_figures_of_a_step_share_a_row(tmp_path: Path) -> None:
    history = CsvHistory(tmp_path / "new" / "run")
    history.log_metrics({"train/loss": 3.5, "epoch": 0}, 9)
    history.log_metrics({"lr": 0.1}, 9)
    history.log_metrics({"val/AP": torch.tensor(0.25), "epoch": 0}, 19)
    history.save()
    assert rows_of(tmp_path / "new" / "run") == [
        {"step": "9", "epoch": "0.0", "lr": "0.1", "train/loss": "3.5", "val/AP": ""},
        {"step": "19", "epoch": "0.0", "lr": "", "train/loss": "", "val/AP": "0.25"},
    ]
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["metrics.csv"]


def test_figures_without_a_step_belong_to_the_first(tmp_path: Path) -> None:
    history = CsvHistory(tmp_path)
    history.log_metrics({"a": 1.0})
    history.save()
    assert rows_of(tmp_path) == [{"step": "0", "epoch": "", "a": "1.0"}]


def test_continued_run_keeps_earlier_rows_and_drops_those_done_again(tmp_path: Path) -> None:
    log(tmp_path, {9: {"loss": 3.0}, 19: {"loss": 2.0}, 29: {"loss": 99.0}})
    log(tmp_path, {19: {"loss": 1.0}, 39: {"loss": 0.5}})
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == [("9", "3.0"), ("19", "1.0"), ("39", "0.5")]


def test_continued_run_may_log_new_columns(tmp_path: Path) -> None:
    log(tmp_path, {0: {"b": 1.0}})
    log(tmp_path, {1: {"a": 2.0, "epoch": 1}})
    log(tmp_path, {2: {"c": 3.0}})
    assert rows_of(tmp_path) == [
        {"step": "0", "epoch": "", "a": "", "b": "1.0", "c": ""},
        {"step": "1", "epoch": "1.0", "a": "2.0", "b": "", "c": ""},
        {"step": "2", "epoch": "", "a": "", "b": "", "c": "3.0"},
    ]


def test_run_without_figures_writes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    CsvHistory(tmp_path / "run").finalize("success")
    assert not (tmp_path / "run").exists()
    log(tmp_path, {3: {"a": 1.0}})
    before = (tmp_path / "metrics.csv").read_bytes()
    CsvHistory(tmp_path).finalize("failed")
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_history_is_named_after_its_folder(tmp_path: Path) -> None:
    history = CsvHistory(str(tmp_path / "mine"))
    history.log_hyperparams({"lr": 1})
    assert (history.name, history.version, history.experiment) == ("mine", "", history)
    assert history.rows == []
