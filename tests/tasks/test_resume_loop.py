"""Training stopped at every single moment and continued equals training that was not, with a network of a few numbers."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import Tensor, nn

from tasks.checkpoint import CheckpointFiles, newest_checkpoint
from tasks.ema import EMA
from tasks.resume import LastCheckpoint
from tasks.run_folder import CsvHistory
from tests.tasks.nursery import differences
from tests.tasks.test_data import Data


class Killed(BaseException):
    """Stands for SIGKILL."""


class Moments:
    """Counts the moments at which a run can be killed, and leaves the disk as it was at one of them."""

    def __init__(self, folder: Path, last: int | None = None) -> None:
        self.folder, self.last, self.count = folder, last, 0

    def pass_one(self) -> None:
        self.count += 1
        if self.count == self.last:
            shutil.copytree(self.folder, self.folder.with_name("kept"), dirs_exist_ok=True)
            raise Killed


class Toy(L.LightningModule):
    """Draws random numbers in training, has a batch norm and momentum, and logs all that it sees."""

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.moments = moments
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 1))

    def batch(self, batch: list[tuple[int, int, int]]) -> Tensor:
        return torch.tensor([[position / 10, seed % 97 / 97] for position, seed, _ in batch])

    def training_step(self, batch: list[tuple[int, int, int]], batch_idx: int) -> Tensor:
        self.moments.pass_one()
        images = self.batch(batch)
        loss: Tensor = (self.layers(images) - images.sum(1, keepdim=True) + torch.rand(1)).square().mean()
        self.log_dict({"train/loss": loss, "train/images": images.sum(), "train/random": torch.rand(())}, batch_size=len(batch))
        self.moments.pass_one()
        return loss

    def validation_step(self, batch: list[tuple[int, int, int]], batch_idx: int) -> None:
        self.moments.pass_one()
        self.log("val/score", -self.layers(self.batch(batch)).square().mean(), batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (2 * steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(folder: Path, moments: Moments, workers: int = 0, every: int | None = None, **options: Any) -> None:
    """Trains, from the newest checkpoint where there is one."""
    L.seed_everything(3, verbose=False)
    newest = newest_checkpoint(folder / "checkpoints")
    best = ModelCheckpoint(folder / "checkpoints", "best", monitor="val/score", mode="max", enable_version_counter=False)
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[EMA(0.9), LearningRateMonitor("step"), best, LastCheckpoint(folder / "checkpoints", 1000, every)],
        logger=CsvHistory(folder),
        plugins=[CheckpointFiles()],
        default_root_dir=folder,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "num_sanity_val_steps": 1} | options,
    )
    trainer.fit(Toy(moments), datamodule=Data(length=10, batch_size=2, num_workers=workers), ckpt_path=newest if newest.is_file() else None)


@pytest.fixture(autouse=True)
def _patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        Writing.moments.pass_one()
        sync(descriptor)

    def rename(*names: Any) -> None:
        Writing.moments.pass_one()
        replace(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Writing:
    """What the patched functions of the system count in."""

    moments: Moments


def stopped_and_continued(folder: Path, at: int, **options: Any) -> bool:
    """Trains up to a moment, then to the end; says whether the moment came."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    Writing.moments = Moments(folder, at)
    try:
        train(folder, Writing.moments, **options)
    except Killed:
        shutil.rmtree(folder)
        folder.with_name("kept").rename(folder)
        Writing.moments = Moments(folder)
        train(folder, Writing.moments, **options)
        return True
    return False


CASES: dict[str, dict[str, Any]] = {
    "epochs": {"every": 1},
    "validation every other epoch": {"check_val_every_n_epoch": 2, "every": 2},
    "validations within epochs": {"val_check_interval": 2, "every": 1},
    "accumulated gradients": {"val_check_interval": 2, "accumulate_grad_batches": 2, "every": 1},
    "accumulated over three, validation amid them": {"val_check_interval": 2, "accumulate_grad_batches": 3, "every": 1},
    "steps": {"max_epochs": -1, "max_steps": 12, "every": 3},
    "steps, validations over epochs": {
        "max_epochs": -1,
        "max_steps": 13,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "every": 1,
    },
    "part of the batches": {"limit_train_batches": 3, "every": 1},
}


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str, int], None]:
    """Compares runs stopped at about so many moments, spread over the run, with one that was not."""

    def run(case: str, moments: int) -> None:
        options, whole, other = CASES[case], tmp_path / "whole", tmp_path / "runs" / "other"
        whole.mkdir()
        Writing.moments = Moments(whole)
        train(whole, Writing.moments, **options)
        total = Writing.moments.count
        step = max(1, total // moments)
        for at in range(1 + len(case) % step, total + 1, step):
            assert stopped_and_continued(other, at, **options)
            assert differences(other, whole) == [], f"moment {at} of {total}"

    return run


@pytest.mark.parametrize("case", CASES)
def test_some_moments(case: str, check: Callable[[str, int], None]) -> None:
    check(case, 3)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_moment(case: str, check: Callable[[str, int], None]) -> None:
    check(case, 10**6)


@pytest.mark.slow
def test_every_moment_with_loader_workers(check: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES["epochs"], "workers", 2)
    check("epochs", 10**6)
