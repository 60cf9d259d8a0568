"""What the data of all tasks share: splits, loaders and their workers."""

import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from tasks.faults import Fault, Faults, OnFault, Policy
from tasks.readable import readable

log = logging.getLogger("lightning.pytorch")

# For how long a loader worker outlives a SIGTERM.
WORKER_SECONDS = 30


class TaskData(L.LightningDataModule, ABC):
    """A data set with a training and a validation split.

    Its data sets have `annotations` (`class_names`, `source` and `files`) and a `pipeline` that can be seeded.

    Args:
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.

    Raises:
        ValueError: an argument is out of range.
    """

    # What the model takes over from the data: arguments of the training module that the command line fills in.
    linked: ClassVar[tuple[str, ...]] = ("class_names", "size")
    # The data set that messages name.
    example: ClassVar[str] = "Voc"
    # Joins samples to a batch.
    collate: Callable[[Any], Any]
    # Reads the annotations of a split, with `new_faults` of it.
    annotations: Callable[[str], Any]

    def __init__(self, size: tuple[int, int], batch_size: int, num_workers: int, on_fault: OnFault = "error") -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0 or min(size) < 1:
            raise ValueError(
                f"size {size}, batch_size {batch_size}, num_workers {num_workers}: sizes and batches are at least 1, workers at least 0"
            )
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.position = {"epoch": 0, "batches": 0}
        self.policy: Policy = on_fault
        self.faults: dict[str, Faults] = {}

    def new_faults(self, split: str) -> Faults:
        """Starts the list of what is wrong with a split."""
        self.faults[split] = Faults(self.policy)
        return self.faults[split]

    def usable(self, split: str) -> Any:
        """Returns the annotations of the images that can be used, see `tasks.readable`, and warns of what was left out.

        Raises:
            ValueError: something cannot be used and `on_fault` is `error`, or nothing is left.
        """
        annotations, faults = self.annotations(split), self.faults[split]
        images = len(annotations) + faults.images
        kept = readable(annotations, faults, split)
        faults.warn_of_dropped(split, images)
        if faults.images and not len(kept):
            raise ValueError(f"{annotations.source or f'the {split} split'}: none of its images can be used")
        return annotations if len(kept) == len(annotations) else annotations.select(kept)

    @property
    def images_left_out(self) -> int:
        """How many validation images are left out because they cannot be used."""
        return self.faults["val"].images if "val" in self.faults else 0

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, see `tasks.labels`."""

    @abstractmethod
    def dataset(self, split: str) -> Any:
        """Builds the data set of `train`, augmented, or of `val`."""

    def setup(self, stage: str) -> None:
        """Reads the annotations.

        Raises:
            ValueError: they cannot be read, or the splits have different classes.
        """
        if not hasattr(self, "val_set"):
            self.val_set = self.dataset("val")
        if stage == "fit" and not hasattr(self, "train_set"):
            self.train_set = self.dataset("train")
            if not len(self.train_set):
                raise ValueError(f"{self.train_set.annotations.source or 'the training split'}: holds no images to train on")
            check_same_classes(self.train_set.annotations, self.val_set.annotations)

    def state_dict(self) -> dict[str, int]:
        """Where training is: the epoch, and how many of its batches the network has seen, whatever loader workers have fetched since."""
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        epoch, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        done = batches.processed if epoch.started > epoch.processed else 0
        return {"epoch": epoch.processed, "batches": done, **self._epoch_shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the training loader of a continued run begin there."""
        trainer: Any = self.trainer
        if trainer.state.fn == TrainerFn.FITTING:
            self.position = state

    def _epoch_shape(self) -> dict[str, int]:
        """What the place of a batch in an epoch depends on."""
        processes = self.trainer.world_size if self.trainer else 1
        return {"images": len(self.train_set), "batch_size": self.batch_size, "processes": processes}

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled; the last, smaller batch is left out where there is a full one.

        Order and augmentation follow from the run's seed, the epoch and the image alone: neither the network, nor the number of workers,
        nor what was drawn before changes them.
        """
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        seed = torch.initial_seed() % 2**32
        sampler = EpochSampler(self.train_set, world_size, rank, seed=seed)
        then, now = self.position, self._epoch_shape()
        self.position = {"epoch": 0, "batches": 0}  # another training with this data begins anew
        if then["batches"] and any(then.get(key, value) != value for key, value in now.items()):
            was, is_now = (", ".join(f"{shape[key]} {key}" for key in now) for shape in (then, now))
            log.warning("the run was stopped within an epoch of %s, and goes on with %s: some of its images come twice or not", was, is_now)
        sampler.begin_at(then["epoch"], then["batches"] * self.batch_size)
        return self._loader(AugmentedByEpoch(self.train_set, seed), sampler, len(self.train_set) // world_size >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every image once, in order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation images: none of these data sets has public test annotations."""
        return self._loader(self.val_set)

    def _loader(self, dataset: Any, sampler: "EpochSampler | None" = None, drop_last: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            worker_init_fn=_start_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(
                torch.initial_seed()
            ),  # else each pass over a loader draws from the randomness of training
        )


class EpochSampler(DistributedSampler[Any]):
    """Draws (epoch, position) pairs, shuffled anew each epoch; Lightning sets the epoch, else it counts on by itself."""

    begun = (0, 0)

    def begin_at(self, epoch: int, skipped: int) -> None:
        """Starts in an epoch of which the first images of this process are done."""
        self.begun, self.epoch = (epoch, skipped), epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Returns the pairs of this process."""
        pairs = [(self.epoch, position) for position in super().__iter__()]
        epoch, skipped = self.begun
        skipped = skipped if self.epoch == epoch else 0
        self.epoch += 1
        return iter(pairs[skipped:])


class AugmentedByEpoch(Dataset[Any]):
    """Seeds the augmentation of each image by run, epoch and position.

    Args:
        dataset: has a `pipeline` with `set_random_seed`.
        seed: of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, drawn: tuple[int, int] | int) -> Any:
        # Lightning's overfit_batches puts a sampler of plain positions in.
        epoch, position = drawn if isinstance(drawn, tuple) else (0, drawn)
        self.dataset.pipeline.set_random_seed(int(np.random.SeedSequence((self.seed, epoch, position)).generate_state(1)[0]))
        return self.dataset[position]


def _start_worker(number: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # else every worker starts as many threads as there are cores
    # A terminal and `timeout` send their signals to the workers too, without which training could not finish its step and save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: Any) -> None:
    """Leaves a worker some seconds; a second SIGTERM ends it at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(WORKER_SECONDS)


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Stacks (3, H, W) images of one size to (B, 3, H, W); memory stays in the order of channels_last."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def check_same_classes(train: Any, val: Any) -> None:
    """Refuses annotations with different classes, which would train and score 0 in silence.

    Raises:
        ValueError: names the classes that only one split has, or says that their order differs.
    """
    differing_classes(train, val, Faults())


def differing_classes(train: Any, val: Any, faults: Faults) -> None:
    """Lets `faults` refuse annotations with different classes; they count by class, another order once."""
    if train.class_names != val.class_names:
        differing = set(train.class_names) ^ set(val.class_names)
        what = f"the classes {', '.join(sorted(differing))}" if differing else "the order of the classes"
        said = f"{train.source} and {val.source} differ in {what}; both need the same categories"
        faults.refuse("differing_classes", len(differing) or 1, [Fault("differing_classes", said)])
