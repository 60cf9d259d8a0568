"""Splits, loaders and workers of any task."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from tasks.data import TaskData, check_same_classes, stack_images


class Annotations(NamedTuple):
    class_names: tuple[str, ...]
    source: str | Path | None


class Pipeline:
    """Notes its seed and draws from it."""

    def set_random_seed(self, seed: int) -> None:
        self.seed = seed
        self.random = np.random.default_rng(seed)


class Numbers(torch.utils.data.Dataset[tuple[int, int, int]]):
    def __init__(self, length: int, names: tuple[str, ...], source: str | None) -> None:
        self.length, self.annotations, self.pipeline = length, Annotations(names, source), Pipeline()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        return index, getattr(self.pipeline, "seed", -1), cv2.getNumThreads()


class Data(TaskData):
    """Counts which splits were built."""

    collate = staticmethod(list)
    class_names = ("cat",)

    def __init__(self, length: int = 10, batch_size: int = 4, num_workers: int = 0, source: str | None = "train.json") -> None:
        super().__init__((8, 8), batch_size, num_workers)
        self.length, self.source = length, source
        self.names = {"train": ("cat",), "val": ("cat",)}
        self.built: list[str] = []

    def dataset(self, split: str) -> Numbers:
        self.built.append(split)
        return Numbers(self.length if split == "train" else 5, self.names[split], self.source if split == "train" else "val.json")


def ready(**options: Any) -> Data:
    data = Data(**options)
    data.setup("fit")
    return data


def test_splits_are_built_once_and_only_where_needed() -> None:
    data = Data()
    data.setup("validate")
    assert data.built == ["val"]
    for stage in ("fit", "fit", "test"):
        data.setup(stage)
    assert data.built == ["val", "train"]


def test_empty_training_split_is_refused() -> None:
    Data(length=0).setup("validate")
    with pytest.raises(ValueError, match=r"^train\.json: holds no images to train on"):
        ready(length=0)
    with pytest.raises(ValueError, match=r"^the training split: holds no images to train on"):
        ready(length=0, source=None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "dog"), r"train\.json and val\.json differ in the classes dog; both need the same categories"),
        (("cow", "dog"), r"differ in the classes cat, cow, dog"),
    ],
)
def test_different_classes_of_the_splits_are_refused(names: tuple[str, ...], message: str) -> None:
    data = Data()
    data.names["train"] = names
    data.setup("validate")
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_order_of_the_classes_counts() -> None:
    check_same_classes(Annotations(("a", "b"), None), Annotations(("a", "b"), None))
    with pytest.raises(ValueError, match="differ in the order of the classes"):
        check_same_classes(Annotations(("a", "b"), "x"), Annotations(("b", "a"), "y"))


@pytest.mark.parametrize(
    ("size", "batch_size", "num_workers"),
    [((0, 8), 1, 0), ((8, -8), 1, 0), ((8, 8), 0, 0), ((8, 8), 1, -1)],
)
def test_arguments_out_of_range_are_refused(size: tuple[int, int], batch_size: int, num_workers: int) -> None:
    with pytest.raises(ValueError, match="sizes and batches are at least 1, workers at least 0") as refused:
        TaskData.__init__(Data(), size, batch_size, num_workers)
    assert f"size {size}, batch_size {batch_size}, num_workers {num_workers}" in str(refused.value)


@pytest.mark.parametrize(("length", "world_size", "dropped"), [(10, 1, True), (4, 1, True), (3, 1, False), (8, 2, True), (7, 2, False)])
def test_last_batch_is_left_out_where_each_process_has_a_full_one(length: int, world_size: int, dropped: bool) -> None:
    data = ready(length=length)
    data.trainer = SimpleNamespace(world_size=world_size, global_rank=0)  # type: ignore[assignment]
    assert data.train_dataloader().drop_last is dropped
    assert data.val_dataloader().drop_last is False


def test_evaluation_keeps_order_and_training_does_not() -> None:
    data = ready(length=100, batch_size=100)
    assert [index for batch in data.val_dataloader() for index, *_ in batch] == list(range(5))
    assert [index for batch in data.test_dataloader() for index, *_ in batch] == list(range(5))
    (batch,) = data.train_dataloader()
    assert sorted(index for index, *_ in batch) == list(range(100))
    assert [index for index, *_ in batch] != list(range(100))


def drawn(seed: int = 0, epoch: int = 0, world_size: int = 1, **options: Any) -> list[tuple[int, int]]:
    """Positions and augmentation seeds of an epoch, all processes one after another."""
    found = []
    for rank in range(world_size):
        torch.manual_seed(seed)
        data = ready(**{"length": 12, **options})
        data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank)  # type: ignore[assignment]
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        torch.rand(rank + 5)  # what a network draws for its weights changes nothing
        found += [(index, seed) for batch in loader for index, seed, _ in batch]
    return found


def test_order_and_augmentation_follow_from_seed_and_epoch() -> None:
    assert drawn() == drawn()
    assert len({tuple(order) for order in (drawn(), drawn(seed=1), drawn(epoch=1), drawn(seed=2**40 + 11))}) == 4
    assert len({seed for epoch in range(3) for _, seed in drawn(epoch=epoch)}) == 36
    assert all(0 <= seed < 2**32 for _, seed in drawn(seed=2**40 + 11))


def test_workers_and_processes_draw_the_same_augmentation_for_an_image() -> None:
    assert drawn(num_workers=2) == drawn()
    assert sorted(drawn(world_size=3)) == sorted(drawn())
    assert sorted(index for index, _ in drawn(world_size=3)) == list(range(12))


@pytest.mark.parametrize(("num_workers", "world_size"), [(0, 1), (2, 1), (0, 3)])
def test_loader_begins_where_training_was(num_workers: int, world_size: int) -> None:
    def passes(position: dict[str, int]) -> tuple[list[Any], list[Any]]:
        torch.manual_seed(0)
        data = ready(length=24, batch_size=2, num_workers=num_workers)
        data.trainer = stub(TrainerFn.FITTING, world_size)  # type: ignore[assignment]
        data.load_state_dict(position)
        loader = data.train_dataloader()
        assert len(loader) == 12 // world_size
        return list(loader), list(loader)

    whole, following = passes({"epoch": 4, "batches": 0})
    assert passes({"epoch": 4, "batches": 3}) == (whole[3:], following)
    assert passes({"epoch": 4, "batches": 12}) == ([], following)


def test_loaders_leave_the_randomness_of_training_alone() -> None:
    data, state = ready(num_workers=0), torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_have_one_opencv_thread() -> None:
    assert {threads for batch in ready(length=8, num_workers=2).train_dataloader() for *_, threads in batch} <= {0, 1}


def stub(function: TrainerFn, world_size: int = 1) -> Any:
    return SimpleNamespace(world_size=world_size, global_rank=world_size - 1, state=SimpleNamespace(fn=function))


def test_the_place_is_taken_once_and_only_by_training() -> None:
    data = ready(length=24, batch_size=2)
    data.trainer = stub(TrainerFn.VALIDATING)
    data.load_state_dict({"epoch": 4, "batches": 3})
    assert len(list(data.train_dataloader())) == 12
    data.trainer = stub(TrainerFn.FITTING)
    data.load_state_dict({"epoch": 0, "batches": 3})
    assert [len(list(data.train_dataloader())) for _ in range(2)] == [9, 12]


@pytest.mark.parametrize(
    ("changed", "warned"),
    [
        ({}, ""),
        ({"images": 25}, "25 images, 2 batch_size, 1 processes, and goes on with 24 images"),
        ({"processes": 2}, "2 processes, and"),
    ],
)
def test_another_epoch_than_the_one_that_was_stopped_is_said(
    changed: dict[str, int], warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = ready(length=24, batch_size=2)
    data.trainer = stub(TrainerFn.FITTING)
    data.load_state_dict({"epoch": 1, "batches": 3, "images": 24, "batch_size": 2, "processes": 1} | changed)
    data.train_dataloader()
    assert (warned in caplog.text) if warned else not caplog.text


def test_a_sampler_of_plain_positions_can_be_put_in() -> None:
    data = ready(length=3, batch_size=1)
    assert [data.train_dataloader().dataset[position][0] for position in range(3)] == [0, 1, 2]


def test_images_are_stacked_in_the_order_of_channels_last() -> None:
    images = [torch.randint(256, (3, 4, 5), dtype=torch.uint8) for _ in range(2)]
    stacked = stack_images(images)
    assert torch.equal(stacked, torch.stack(images))
    assert stacked.is_contiguous(memory_format=torch.channels_last)
