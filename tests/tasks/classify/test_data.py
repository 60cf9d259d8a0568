"""Batches of folders, of torchvision's sets, and of shapes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tasks.augment import cut_window
from tasks.classify.data import ImageData, ImageFolder, Shapes, Torchvision
from tasks.classify.model import Classifier, central_window
from tasks.classify.transforms import InceptionAugmentation
from tasks.shapes import SHAPE_CLASSES

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Four images of two classes in each split."""
    for split in ("train", "val"):
        for number in range(4):
            path = tmp_path / split / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 40 + number, 3), dtype=np.uint8)).save(path)
    return tmp_path


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's files with four pictures a batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [number, 1, 9, 0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR_NAMES)}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    return tmp_path


def ready(data: ImageData, stage: str = "fit") -> Any:
    data.prepare_data()
    data.setup(stage)
    return data


def small(kind: type[ImageData], **options: Any) -> Any:
    return ready(kind(**{"size": (16, 24), "batch_size": 2, "num_workers": 0} | options))


def test_batches_of_folders(folders: Path) -> None:
    data = small(ImageFolder, root=str(folders))
    assert data.class_names == ("cat", "dog")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert len(batches) == 2
        for batch in batches:
            assert (batch.images.shape, batch.images.dtype) == ((2, 3, 16, 24), torch.uint8)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert (batch.labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 1, 1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2, 3]


def test_evaluation_looks_at_what_prediction_looks_at(folders: Path) -> None:
    data = small(ImageFolder, root=str(folders), crop=0.5)
    image, label, position = data.val_set[3]
    pixels = np.array(Image.open(data.val_set.annotations.files[3]))
    expected = cut_window(pixels, central_window(pixels.shape[:2], (16, 24), 0.5), (16, 24))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert (label, position) == (1, 3)


def test_folders_of_splits_can_be_anywhere(folders: Path) -> None:
    swapped = small(ImageFolder, train_images=str(folders / "val"), val_images=str(folders / "train"))
    assert "/train/" in swapped.val_set.annotations.files[0]
    assert "/val/" in swapped.train_set.annotations.files[0]


def test_splits_with_different_classes_are_refused(folders: Path) -> None:
    (folders / "train" / "owl").mkdir()
    with pytest.raises(ValueError, match=r"train and .*val differ in the classes owl; both need the same categories"):
        small(ImageFolder, root=str(folders))


def test_missing_root_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent/val: no such folder; images are looked for in .*absent/val/<class>/$"):
        _ = ImageFolder(str(tmp_path / "absent")).class_names


@pytest.mark.parametrize("options", [{"crop": 0.0}, {"crop": 1.5}])
def test_crop_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"crop .* is not possible; accepted: over 0 to 1"):
        ImageFolder(**options)


def test_cifar_from_torchvisions_files(cifar: Path) -> None:
    data = small(Torchvision, name="CIFAR10", root=str(cifar), size=(32, 32), crop=1.0)
    assert data.class_names == CIFAR_NAMES
    assert (len(data.train_set), len(data.val_set)) == (20, 4)
    (first, second) = data.val_dataloader()
    assert torch.cat([first.labels, second.labels]).tolist() == [5, 1, 9, 0]
    pixels = np.random.default_rng(5).integers(0, 256, (4, 3072), dtype=np.uint8).reshape(4, 3, 32, 32)
    assert np.array_equal(first.images.numpy(), pixels[:2])
    assert data.train_set.annotations.files[7] == "image 7 of CIFAR10 train"


class Flowers:
    """A data set of torchvision's other kind, with splits and without names."""

    def __init__(self, root: str, split: str = "train", transform: Any = None, download: bool = False) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {{'train', 'val', 'test'}}.")
        self.split, self._labels, self.download = split, [2, 0, 1], download
        made.append((split, download))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (30, 20)), self._labels[index]


made: list[tuple[str, bool]] = []


@pytest.fixture
def flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    monkeypatch.setattr(torchvision.datasets, "Flowers102", Flowers)


@pytest.mark.usefixtures("flowers")
def test_sets_with_splits_and_without_names(tmp_path: Path) -> None:
    data = small(Torchvision, name="Flowers102", root=str(tmp_path), val_split="val")
    assert data.class_names == ("0", "1", "2")
    assert (data.train_set.annotations.dataset.split, data.val_set.annotations.dataset.split) == ("train", "val")
    named = small(Torchvision, name="Flowers102", root=str(tmp_path), names=["rose", "lily", "iris"])
    assert named.class_names == ("rose", "lily", "iris")
    assert {download for _, download in made} == {False}


@pytest.mark.usefixtures("flowers")
def test_download_fetches_both_splits(tmp_path: Path) -> None:
    Torchvision("Flowers102", str(tmp_path / "new"), download=True).prepare_data()
    assert made == [("train", True), ("test", True)]


@pytest.mark.usefixtures("flowers")
def test_split_that_the_set_does_not_have_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Flowers102 'dev' in .* cannot be used: Unknown value 'dev'.*\{'train', 'val', 'test'\}"):
        small(Torchvision, name="Flowers102", root=str(tmp_path), train_split="dev")


def test_split_of_sets_that_know_two_is_one_sentence(cifar: Path) -> None:
    with pytest.raises(ValueError, match=r"CIFAR10 'val' in .* cannot be used: there is no split 'val'; accepted: train, test"):
        small(Torchvision, name="CIFAR10", root=str(cifar), val_split="val")


def test_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CIFAR100 'test' in .* cannot be used: Dataset not found.*--data\.download true fetches it$"):
        _ = Torchvision("CIFAR100", str(tmp_path)).class_names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CIFAR11", r"'CIFAR11' with splits; did you mean CIFAR10"),
        ("FakeData", r"'FakeData' with splits; "),
        ("qqq", r"'qqq' with splits; accepted: .*CIFAR10, CIFAR100, .*Flowers102"),
        ("os", "'os' with splits"),
    ],
)
def test_unknown_names_are_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^torchvision has no data set {said}"):
        Torchvision(name)


def test_set_that_cannot_be_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torchvision cannot download ImageNet; get it by hand"):
        Torchvision("ImageNet", str(tmp_path), val_split="val", download=True).prepare_data()


def test_synonyms_give_their_first_name() -> None:
    from tasks.classify.data.sets import _names

    class Imagenette:
        classes = [("tench", "Tinca tinca"), ("cassette player",)]  # noqa: RUF012 - as torchvision's

    assert _names(Imagenette(), "Imagenette") == ["tench", "cassette player"]
    with pytest.raises(ValueError, match=r"Nameless comes without names of its classes; give them by --data\.names"):
        _names(object(), "Nameless")


def test_shapes(shapes_root: Path) -> None:
    data = small(Shapes, root=str(shapes_root), train_images=8, val_images=4)
    assert data.class_names == data.val_set.annotations.class_names == tuple(sorted(SHAPE_CLASSES))
    assert sorted(Path(file).parent.name for file in data.val_set.annotations.files) == sorted(SHAPE_CLASSES[:4])
    (batch, *_) = data.train_dataloader()
    assert batch.images.shape == (2, 3, 16, 24)


def test_training_is_augmented_and_seeded(folders: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        data = small(ImageFolder, root=str(folders), augmentation=InceptionAugmentation(0.2))
        drawn.append(data.train_dataloader().dataset[0, 0].image)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_probabilities_of_a_file_are_those_of_its_sample(folders: Path) -> None:
    from backbones import MobileNetV2
    from heads import ClassifierHead

    data = small(ImageFolder, root=str(folders), crop=0.7)
    classifier = Classifier(MobileNetV2(["layer4"], width_mult=0.35), ClassifierHead, data.class_names, (16, 24), crop=0.7).eval()
    torch.nn.init.normal_(classifier.head.linear.weight)
    with torch.no_grad():
        expected = classifier(data.val_set[2].image[None]).softmax(dim=1)[0]
    torch.testing.assert_close(classifier.predict(data.val_set.annotations.files[2]), expected, rtol=1e-4, atol=1e-5)
