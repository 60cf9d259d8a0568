"""`check`: every fault that is put into a data set is found, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tasks import faulty
import pytest
from PIL import Image

from tasks.classify.__main__ import main as classify
from tasks.detect.__main__ import main as detect
from tasks.faults import KINDS
from tasks.segment.__main__ import main as segment

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
