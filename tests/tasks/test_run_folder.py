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


def test_continued_run_keeps_the_rows_up_to_the_checkpoint(tmp_path: Path) -> None:
    history = CsvHistory(tmp_path)
    history.log_metrics({"loss": 3.0}, 9)
    history.log_metrics({"loss": 2.0, "epoch": 1}, 19)
    state = history.state_dict()
    assert len(rows_of(tmp_path)) == 2  # whatever happens then
    history.log_metrics({"val/AP": 0.5}, 19)
    history.log_metrics({"loss": 99.0}, 29)
    history.finalize("failed")
    assert len(rows_of(tmp_path)) == 3
    continued = CsvHistory(tmp_path)
    continued.load_state_dict(state)
    continued.log_metrics({"val/AP": 0.5}, 19)
    continued.log_metrics({"loss": 1.0, "new": 7.0}, 29)
    continued.finalize("success")
    assert rows_of(tmp_path) == [
        {"step": "9", "epoch": "", "loss": "3.0", "new": "", "val/AP": ""},
        {"step": "19", "epoch": "1.0", "loss": "2.0", "new": "", "val/AP": "0.5"},
        {"step": "29", "epoch": "", "loss": "1.0", "new": "7.0", "val/AP": ""},
    ]


def test_checkpoint_before_all_rows_and_lost_files(tmp_path: Path) -> None:
    nothing = CsvHistory(tmp_path).state_dict()
    log(tmp_path, {0: {"a": 1.0}})
    continued = CsvHistory(tmp_path)
    continued.load_state_dict(nothing)
    assert continued.rows == []
    elsewhere = CsvHistory(tmp_path / "elsewhere")
    elsewhere.load_state_dict({"last_row": {"step": 3, "a": 2.0}})
    assert elsewhere.rows == [{"step": 3, "a": 2.0}]


def test_run_without_figures_writes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    CsvHistory(tmp_path / "run").finalize("success")
    assert not (tmp_path / "run").exists()
    log(tmp_path, {3: {"a": 1.0}})
    before = (tmp_path / "metrics.csv").read_bytes()
    CsvHistory(tmp_path).finalize("failed")  # stopped before its checkpoint was read
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_history_is_named_after_its_folder(tmp_path: Path) -> None:
    history = CsvHistory(str(tmp_path / "mine"))
    history.log_hyperparams({"lr": 1})
    assert (history.name, history.version, history.experiment) == ("mine", "", history)
    assert history.rows == []
