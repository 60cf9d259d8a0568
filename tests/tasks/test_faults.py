"""The collector of faults, and what readers leave out under `skip`."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tasks.coco import read_coco
from tasks.command import run_command
from tasks.detect import annotations as boxes
from tasks.faults import EXAMPLES, KINDS, NOTES, UNUSABLE, Fault, FaultError, Faults, shown
from tasks.segment import annotations as masks
from tests.tasks import faulty


def endless(kind: str) -> Iterator[Fault]:
    while True:
        yield Fault(kind, "a.jpg: is odd")


def test_only_the_first_examples_are_asked_for() -> None:
    faults = Faults("skip")
    faults.note("box_empty", 10**6, endless("box_empty"))
    faults.refuse("missing_image", 10**6, endless("missing_image"), images=7)
    assert faults.total == 2 * 10**6
    assert {kind: len(examples) for kind, examples in faults.examples.items()} == {"box_empty": EXAMPLES, "missing_image": EXAMPLES}
    assert (faults.images, faults.dropped) == (7, {"missing_image": 10**6})


def test_error_raises_what_cannot_be_used_and_nothing_else() -> None:
    faults = Faults()
    faults.note("box_empty", 1, endless("box_empty"))
    faults.refuse("missing_image", 0, endless("missing_image"))
    with pytest.raises(ValueError, match=r"^a\.jpg: is odd$"):
        faults.refuse("missing_image", 3, endless("missing_image"))
    assert faults.counts == {"box_empty": 1}


def test_notes_are_no_faults() -> None:
    faults = Faults("report")
    for kind in NOTES:
        faults.note(kind, 5, endless(kind))
    assert faults.total == 0
    assert set(NOTES) < set(KINDS)
    assert set(UNUSABLE) < set(KINDS)


def test_what_was_left_out_is_said_once_with_counts_and_examples(caplog: pytest.LogCaptureFixture) -> None:
    for policy in ("skip", "report"):
        faults = Faults(policy)  # type: ignore[arg-type]
        faults.refuse("unknown_image", 2, endless("unknown_image"))
        faults.refuse("missing_image", 3, endless("missing_image"), images=3)
        with caplog.at_level(logging.WARNING, "lightning.pytorch"):
            faults.warn_of_dropped("train", 10)
    (record,) = caplog.records
    assert record.getMessage() == (
        "on_fault skip leaves out 3 of the 10 images of the train split; images that are not there: 3, such as a.jpg: is odd; "
        "objects of images that are not listed: 2, such as a.jpg: is odd"
    )


class Faulty(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise FaultError("a.png: has the values 7", "mask_values")


def test_errors_of_loader_workers_end_in_their_sentence() -> None:
    with pytest.raises(SystemExit, match=r"^error: a\.png: has the values 7$"):
        run_command(lambda: list(DataLoader(Faulty(), num_workers=1)))


def test_json_has_only_json() -> None:
    faults = Faults("report")
    faults.note("box_not_finite", 1, [Fault("box_not_finite", "a", "a.jpg", 3, float("nan"), (1.0, 2.0, 3.0, 4.0))])
    assert json.loads(json.dumps(faults.to_json(), allow_nan=False)) == {
        "box_not_finite": {"count": 1, "examples": [{"message": "a", "file": "a.jpg", "annotation": 3, "value": "nan"}]}
    }
    assert len(shown("x" * 1000)) == 80


def test_coco_reader_leaves_out_images_with_their_objects_and_single_objects(tmp_path: Path) -> None:
    faulty.write_faulty_boxes(tmp_path)
    faults = Faults("skip")
    found = boxes.from_coco(tmp_path / "train.json", tmp_path / "train", faults=faults)
    names = [Path(file).stem for file in found.files]
    assert names == ["1", "2", "3", "4", "6", *faulty.SPOILERS, "30", "31", "32", "4"]
    assert faults.images == 7  # four broken entries, the second of 6, and both of 5
    assert [found.boxes[found.of_image(n)].tolist() for n in range(5)] == [
        [[0, 0, 30, 20]],
        [[10, 10, 30, 30]],
        [[50, 30, 60, 40], [0, 0, 8, 8], [0, 0, pytest.approx(9.6), 10]],
        [[0, 0, 30, 20]],
        [[0, 0, 30, 20]],
    ]
    assert found.class_names == ("cat", "dog", "dog", "horse")
    data = read_coco(tmp_path / "train.json", Faults("report"))
    assert len(data["annotations"]) == len(data["annotation_ids"])
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))


def test_the_same_file_raises_under_error(tmp_path: Path) -> None:
    faulty.write_faulty_boxes(tmp_path)
    with pytest.raises(ValueError, match=r"train\.json: entry 15 of 'images' has no 'file_name'$"):
        boxes.from_coco(tmp_path / "train.json", tmp_path / "train")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"images": [],\n "annotations" []}', "Expecting ':' delimiter: line 2 column 16 (char 30)"),
        (b'{"images": [],\n "annota', "line 2 column 2 (char 16)"),
        (b"", "Expecting value: line 1 column 1 (char 0); the file ends there"),
        (b'{"images": [{},\n', "line 2 column 1 (char 16); the file ends there"),
        (b'{"images":\n\xff[]}', "it is no text at line 2 column 1 (invalid start byte)"),
        (b'{"images": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_malformed_json_is_named_with_line_and_column(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: is not valid JSON: ") as refused:
        read_coco(tmp_path / "a.json", Faults("skip"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**30, True, 1.0, None, [1], {}])
def test_ids_that_are_no_numbers_of_64_bits_are_refused(tmp_path: Path, number: Any) -> None:
    faulty.write_coco(tmp_path, "val", [faulty.image(number, "a.jpg")], [])
    with pytest.raises(ValueError, match=r"entry 0 of 'images' has id .*; accepted: whole numbers"):
        read_coco(tmp_path / "val.json")
    faulty.write_coco(tmp_path, "val", [faulty.image(1, "a.jpg")], [{"image_id": number, "category_id": number, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(ValueError, match=r"val\.json: "):
        read_coco(tmp_path / "val.json")


def write_voc(root: Path, xml: dict[str, str | None]) -> None:
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / "VOC2012" / folder).mkdir(parents=True)
    (root / "VOC2012/ImageSets/Main/train.txt").write_text("\n".join(xml))
    for name, content in xml.items():
        if content is not None:
            (root / f"VOC2012/Annotations/{name}.xml").write_text(content)


def voc(*objects: str, size: str = "<width>60</width><height>40</height>") -> str:
    return f"<annotation><size>{size}</size>{''.join(objects)}</annotation>"


def voc_object(name: str, *corners: object) -> str:
    values = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False))
    return f"<object><name>{name}</name><bndbox>{values}</bndbox></object>"


def test_voc_reader_leaves_out_images_and_objects(tmp_path: Path) -> None:
    good = voc_object("cat", 1, 1, 30, 20)
    write_voc(
        tmp_path,
        {
            "good": voc(good, good),
            "class": voc(good, voc_object("unicorn", 1, 1, 2, 2)),
            "corner": voc(voc_object("dog", 1, "x", 2, 2), voc_object("dog", 1, 1), good),
            "outside": voc(good, voc_object("dog", 70, 1, 80, 9), voc_object("dog", 9, 9, 5, 9), voc_object("dog", "nan", 1, 2, 3)),
            "torn": voc(good)[:-20],
            "absent": None,
            "size": voc(good, size="<width>-5</width><height>40</height>"),
        },
    )
    faults = Faults("skip")
    found = boxes.from_voc(tmp_path, [("2012", "train")], faults)
    assert [Path(file).stem for file in found.files] == ["good", "class", "corner", "outside"]
    assert found.offsets.tolist() == [0, 2, 3, 4, 5]
    assert found.boxes.tolist() == [[0, 0, 30, 20]] * 5
    assert found.image_ids.tolist() == [1, 2, 3, 4]
    assert faults.images == 3
    assert faults.counts == {
        "unknown_category": 1,
        "broken_box": 2,
        "broken_annotation": 2,
        "missing_annotation": 1,
        "box_outside": 1,
        "box_reversed": 1,
        "box_not_finite": 1,
    }
    assert "torn.xml: is not a VOC annotation with VOC's 20 classes: " in faults.examples["broken_annotation"][0].message
    assert "line 1, column" in faults.examples["broken_annotation"][0].message


def test_mask_readers_leave_out_images(tmp_path: Path) -> None:
    faulty.write_faulty_polygons(tmp_path / "coco")
    faults = Faults("skip")
    found = masks.from_coco(tmp_path / "coco/train.json", tmp_path / "coco/train", voc_labels=False, faults=faults)
    assert [Path(file).stem for file in found.files] == ["1", "2", "3", "4", "6", "7"]
    assert (faults.images, faults.counts["missing_segmentation"], faults.counts["broken_entry"]) == (2, 2, 1)
    (tmp_path / "folders").mkdir()
    faulty.write_faulty_masks(tmp_path / "folders")
    faults = Faults("skip")
    pairs = masks.from_folders(tmp_path / "folders/train_images", tmp_path / "folders/train_masks", ["background", "cat"], faults)
    assert faults.images == 2
    assert len(pairs) == 17
    assert all(Path(image).stem == Path(mask).stem for image, mask in zip(pairs.files, pairs.masks, strict=True))


def test_selected_annotations_are_those_of_the_images(tmp_path: Path) -> None:
    faulty.write_faulty_boxes(tmp_path)
    found = boxes.from_coco(tmp_path / "train.json", tmp_path / "train", faults=Faults("skip"))
    kept = np.array([0, 2, 4, 13])
    chosen = found.select(kept)
    assert chosen.files.tolist() == found.files[kept].tolist()
    assert chosen.image_ids.tolist() == found.image_ids[kept].tolist()
    for new, old in enumerate(kept.tolist()):
        for name in ("boxes", "labels", "ignored"):
            assert np.array_equal(getattr(chosen, name)[chosen.of_image(new)], getattr(found, name)[found.of_image(old)])
    assert found.select(np.array([], dtype=np.int64)).boxes.shape == (0, 4)
