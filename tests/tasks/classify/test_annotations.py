"""Labels from folders and from data sets of torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.classify.annotations import LabelledSet, from_folders


def write(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number, 0, 0)).save(root / name)


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "dog/b.png", "dog/a.jpg", "cat/deep/er/c.PNG", "Zebra/d.png", ".cache/e.png")
    (tmp_path / "dog" / "notes.txt").touch()
    (tmp_path / "stray.txt").touch()
    found = from_folders(tmp_path)
    assert found.class_names == ("Zebra", "cat", "dog")
    assert [Path(file).relative_to(tmp_path).as_posix() for file in found.files] == [
        "Zebra/d.png",
        "cat/deep/er/c.PNG",
        "dog/a.jpg",
        "dog/b.png",
    ]
    assert found.labels.tolist() == [0, 1, 2, 2]
    pixels, label = found.read(1)
    assert (pixels.shape, pixels.dtype, pixels[0, 0].tolist(), label) == ((10, 20, 3), np.uint8, [2, 0, 0], 1)


def test_class_without_images_keeps_its_place(tmp_path: Path) -> None:
    write(tmp_path, "a/x.png", "c/x.png")
    (tmp_path / "b").mkdir()
    found = from_folders(str(tmp_path))
    assert (found.class_names, found.labels.tolist(), len(found)) == (("a", "b", "c"), [0, 2], 2)


def test_names_come_from_a_file(tmp_path: Path) -> None:
    write(tmp_path / "val", "n01/x.png", "n02/x.png", "n03/x.png")
    (tmp_path / "words.txt").write_text("crane\nkite, a bird\ncrane\n\n")
    assert from_folders(tmp_path / "val", tmp_path / "words.txt").class_names == ("crane (1)", "kite, a bird", "crane (2)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("one\n", r"words\.txt: has 1 names, but .*val has 2 folders of classes; accepted: one name a line for each"),
        (None, r"words\.txt: no such file of class names"),
    ],
)
def test_wrong_names_are_one_sentence(words: str | None, message: str, tmp_path: Path) -> None:
    write(tmp_path / "val", "n01/x.png", "n02/x.png")
    if words is not None:
        (tmp_path / "words.txt").write_text(words)
    with pytest.raises(ValueError, match=message):
        from_folders(tmp_path / "val", tmp_path / "words.txt")


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent: no such folder; images are looked for in .*absent/<class>/$"):
        from_folders(tmp_path / "absent")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"holds no images; accepted: .*/<class>/ with files of \.jpg, "):
        from_folders(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "cat/x.png")
    with pytest.raises(ValueError, match=r"has 1 classes; accepted: 2 or more"):
        from_folders(tmp_path)


def test_truncated_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    write(tmp_path, "cat/x.png", "dog/y.png")
    Image.fromarray(noise).save(tmp_path / "cat" / "cut.jpg")
    whole = (tmp_path / "cat" / "cut.jpg").read_bytes()
    (tmp_path / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg: cannot be read as an image: .*truncated"):
        from_folders(tmp_path).read(0)


def test_images_of_a_set_become_colour() -> None:
    found = LabelledSet([(Image.new("L", (6, 4), 7), 1), (Image.new("RGB", (5, 5)), np.int64(0))], ["zero", "one"], "Digits test")
    pixels, label = found.read(0)
    assert (pixels.shape, pixels.dtype, pixels.max(), label) == ((4, 6, 3), np.uint8, 7, 1)
    assert found.read(1)[1] == 0
    assert (found.files[1], len(found)) == ("image 1 of Digits test", 2)


@pytest.mark.parametrize(("label", "said"), [(2, "2"), (-1, "-1"), ((0, 1), r"\(0, 1\)"), (torch.tensor([1, 0]), "tensor")])
def test_labels_that_are_no_class_are_refused(label: object, said: str) -> None:
    found = LabelledSet([(Image.new("L", (6, 4)), label)], ["zero", "one"], "Attributes test")
    with pytest.raises(ValueError, match=rf"image 0 of Attributes test: has the label {said}.*; accepted: 0 to 1"):
        found.read(0)


def test_broken_image_of_a_set_is_named() -> None:
    class Broken:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            raise OSError("image file is truncated")

    with pytest.raises(ValueError, match=r"^image 2 of Food101 test: cannot be read as an image with a label: image file is truncated"):
        LabelledSet(Broken(), ["zero", "one"], "Food101 test").read(2)
