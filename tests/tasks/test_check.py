"""`check`: every fault that is put into a data set is found, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.classify.__main__ import main as classify
from tasks.detect.__main__ import main as detect
from tasks.faults import KINDS
from tasks.segment.__main__ import main as segment
from tests.tasks import faulty

Main = Callable[[list[str]], None]


def run(main: Main, folder: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """Returns the exit code and check.json."""
    with pytest.raises(SystemExit) as stopped:
        main(["check", f"--runs={folder / 'runs'}", "--name=mine", *flags])
    assert isinstance(stopped.value.code, int)
    (found,) = (folder / "runs").glob("*/mine/check/check.json")
    return stopped.value.code, json.loads(found.read_text())


def counts(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {split: {kind: entry["count"] for kind, entry in kinds.items()} for split, kinds in found["faults"].items()}


CASES = {
    "boxes": (detect, faulty.write_faulty_boxes, lambda f: ["--data=tasks.detect.data.Coco", *faulty.coco_flags(f)]),
    "masks": (segment, faulty.write_faulty_masks, faulty.mask_flags),
    "polygons": (
        segment,
        faulty.write_faulty_polygons,
        lambda f: ["--data=tasks.segment.data.Coco", *faulty.coco_flags(f), "--data.voc_labels=false", "--data.min_pixels=0"],
    ),
    "folders": (classify, faulty.write_faulty_folders, lambda f: ["--data=tasks.classify.data.ImageFolder", f"--data.root={f}"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_counted_exactly(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, write, flags = CASES[case]
    (tmp_path / "data").mkdir()
    expected = write(tmp_path / "data")
    code, found = run(main, tmp_path, *flags(tmp_path / "data"))
    assert code == 1
    assert counts(found) == expected
    notes = {"wrong_ending", "unused_mask", "class_without_images"}
    total = sum(count for kinds in expected.values() for kind, count in kinds.items() if kind not in notes)
    assert found["total"] == total
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{total} faults of ")
    for kinds in found["faults"].values():
        for kind, entry in kinds.items():
            assert kind in KINDS
            assert 1 <= len(entry["examples"]) <= min(entry["count"], 20)
            assert all(str(tmp_path) in example["message"] for example in entry["examples"])
    (picture,) = tmp_path.glob("runs/*/mine/check/pictures/faults.png")
    with Image.open(picture) as image:
        assert image.width > 600


@pytest.mark.parametrize(("main", "task"), [(detect, "detect"), (segment, "segment"), (classify, "classify")])
def test_clean_shapes_have_no_faults(main: Main, task: str, shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(main, tmp_path, f"--data.root={shapes_root}", "--data.train_images=15", "--data.val_images=5")
    assert (code, found["total"], counts(found)) == (0, 0, {"train": {}, "val": {}, "both": {}})
    assert found["tables"]["Data set"][0] == {"count of": "images", "train": 15, "val": 5}
    assert capsys.readouterr().out.splitlines()[-1] == f"no faults; the report is in {tmp_path / 'runs' / task / 'mine' / 'check'}"
    assert not (tmp_path / "runs" / task / "mine" / "check" / "pictures" / "faults.png").exists()


def test_weights_of_a_config_need_not_be_there_and_a_first_run_keeps_its_name(shapes_root: Path, tmp_path: Path) -> None:
    from tasks.run_folder import new_run_folder

    data = (f"--data.root={shapes_root}", "--data.train_images=15", "--data.val_images=5")
    assert run(detect, tmp_path, *data, "--model.backbone.weights=absent.pth", "--model.weights=absent.ckpt")[0] == 0
    base = tmp_path / "runs" / "detect" / "mine"
    assert new_run_folder(base) == base
    (base / "config.yaml").touch()
    assert new_run_folder(base).name == "mine-2"


def test_wrong_flags_end_with_2(tmp_path: Path) -> None:
    for flags in (["--data.nothing=1"], ["--data.on_fault=never"]):
        with pytest.raises(SystemExit) as stopped:
            detect(["check", f"--runs={tmp_path}", *flags])
        assert stopped.value.code == 2


def test_a_split_that_cannot_be_read_does_not_hide_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty.picture(tmp_path / "train" / "1.jpg", 1)
    faulty.write_coco(tmp_path, "train", [faulty.image(1, "1.jpg")], [faulty.box(1, 1, [50, 30, 20, 20])])
    faulty.write_coco(tmp_path, "val", [], [])
    (tmp_path / "val.json").write_text('{"images": [],\n "annotations" []}')
    code, found = run(detect, tmp_path, "--data=tasks.detect.data.Coco", *faulty.coco_flags(tmp_path))
    assert (code, found["total"]) == (1, 3 - 1)
    assert found["faults"]["val"]["unreadable_annotations"]["examples"][0]["message"].endswith("line 2 column 16 (char 30)")
    assert counts(found)["train"]["box_beyond"] == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 faults of 2 kinds, listed in ")


def test_share_of_boxes_that_anchors_fit(tmp_path: Path) -> None:
    """Boxes that are anchors of the default config at 160 x 160 fit wholly, thin ones not at all."""
    faulty.picture(tmp_path / "train" / "1.jpg", 1, (160, 160))
    faulty.picture(tmp_path / "val" / "2.jpg", 2, (160, 160))
    exact = [80 + 4 - 8, 80 + 4 - 8, 16, 16]  # at stride 8, scale .1
    boxes = [faulty.box(1, 1, exact), faulty.box(2, 1, exact), faulty.box(3, 1, [0, 0, 160, 2], 2)]
    image = faulty.image(1, "1.jpg") | {"height": 160, "width": 160}
    faulty.write_coco(tmp_path, "train", [image], boxes)
    faulty.write_coco(tmp_path, "val", [image | {"file_name": "2.jpg"}], boxes[:1])
    code, found = run(detect, tmp_path, "--data=tasks.detect.data.Coco", *faulty.coco_flags(tmp_path), "--data.size=[160,160]")
    assert code == 0
    rows = {row["boxes"]: row for row in found["tables"]["Anchors of SSDLite at 160 x 160 (train)"]}
    assert rows["all"]["count"] == 3
    assert rows["all"]["share with IoU >= 0.5"] == pytest.approx(2 / 3, abs=1e-4)
    assert [row["class"] for row in found["tables"]["Classes that the anchors fit worst"]] == ["dog", "cat"]
    assert found["tables"]["Classes that the anchors fit worst"][1]["mean best IoU"] == 1.0


def test_real_data_has_few_faults(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "coco"
    files = [f"--data.{s}_images={folder / s}" for s in ("train", "val")]
    files += [f"--data.{s}_annotations={folder / 'annotations' / f'instances_{s}.json'}" for s in ("train", "val")]
    _, found = run(detect, tmp_path, "--data=tasks.detect.data.Coco", *files)
    assert found["tables"]["Data set"][0] == {"count of": "images", "train": 843, "val": 206}
    assert counts(found)["val"] == {}


def test_data_sets_of_torchvision_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.check import check
    from tasks.classify.check import describe
    from tasks.classify.data import Torchvision

    pictures = [(Image.new("RGB", (8, 8)), n % 2) for n in range(5)] + [(None, 1)]
    data = Torchvision("CIFAR10", size=(8, 8), num_workers=0, names=["cat", "dog", "hen"])
    monkeypatch.setattr(data, "_build", lambda split: pictures)
    assert check(data, None, tmp_path, describe) == 2
    found = json.loads((tmp_path / "check.json").read_text())
    assert counts(found)["val"] == {"broken_image": 1}
    assert [(row["class"], row["train"]) for row in found["tables"]["Classes (images)"]] == [("cat", 3), ("dog", 2), ("hen", 0)]


def test_config_of_a_run_is_taken(shapes_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "name: own\ndata: {class_path: tasks.detect.data.Shapes, init_args: "
        f"{{root: '{shapes_root}', train_images: 15, val_images: 5}}}}\n"
        "model: {backbone: {class_path: backbones.MobileNetV2}}\nckpt_path: null\n"
    )
    with pytest.raises(SystemExit) as stopped:
        detect(["check", "--config", str(config), f"--runs={tmp_path}"])
    assert stopped.value.code == 0
    assert (tmp_path / "detect" / "own" / "check" / "check.json").is_file()
