"""Timing in turns, limits of the machine, and the tables made of them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from heads import DeepLabV3
from tasks.bench import peers, report
from tasks.bench.race import Race, Time, run
from tasks.bench.roofline import Rates, Work, convolutions, least_seconds
from tasks.segment.model import Segmenter

RATES = Rates({"float32": 100.0, "bfloat16": 400.0}, 10.0)


def race(calls: list[str]) -> Race:
    candidates = {name: lambda name=name: calls.append(name) for name in ("theirs", "ours")}
    work = {"ours": [Work(200, 10), Work(400, 30, "bfloat16")]}
    return Race("a race", "images", 8, "theirs", candidates, "all of it", work, lambda name: calls.append(f"prepare {name}"))


def test_candidates_run_in_turns_each_prepared() -> None:
    calls: list[str] = []
    times = run(race(calls), repeats=2)
    assert calls == ["prepare theirs", "theirs", "prepare ours", "ours"] * 3
    assert times["theirs"].ratio == 1.0
    assert all(0 < time.low <= time.median <= time.high for time in times.values())
    with pytest.raises(ValueError, match=r"^repeats 0 is not possible; accepted: at least 1$"):
        run(race(calls), repeats=0)


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_untrained_peer_finds_as_much_as_a_trained_detector(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "green").save(tmp_path / "photo.jpg")
    (found,) = peers.torchvision_ssdlite(20, 320).result(tmp_path / "photo.jpg")
    assert len(found["scores"]) > 200
    assert 0.001 < found["scores"].min() < found["scores"].max() < 0.1


def test_each_operator_takes_the_longer_of_computing_and_moving() -> None:
    assert least_seconds([Work(200, 10), Work(400, 30, "bfloat16")], RATES) == 2 + 3


def test_work_of_a_network_is_twice_its_multiply_adds() -> None:
    model = Segmenter(MobileNetV2(["layer18"], width_mult=0.35, output_stride=16), DeepLabV3, ["a", "b"], (64, 64))
    forward, training = convolutions(model, (64, 64), 2), convolutions(model, (64, 64), 2, "bfloat16", passes=3)
    stem = Work(2 * 2 * 32 * 32 * 27 * 16, 4 * (2 * (3 * 64 * 64 + 16 * 32 * 32) + 27 * 16))
    assert forward[0] == stem
    assert training[0] == Work(stem.flops, stem.bytes / 2, "bfloat16")
    assert len(training) == 3 * len(forward)


def test_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {"theirs": Time(2.0, 1.5, 2.5, 1.0), "ours": Time(10.0, 9.0, 11.0, 0.2)}
    result = report.Result(race([]), times, RATES)
    report.show(result)
    report.write("train", [result], 7, tmp_path)
    shown = capsys.readouterr().out
    assert "Equal: all of it." in shown
    lines = (tmp_path / "train.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert cells[0] == ["", "median ms", "quartiles", "images/s", "x theirs", "of the limit"]
    assert cells[2:] == [
        ["theirs", "2,000", "1,500 - 2,500", "4", "1.00", "-"],
        ["ours", "10,000", "9,000 - 11,000", "0.8", "0.20", "50 %"],
    ]
    stored = json.loads((tmp_path / "train.json").read_text())
    assert stored["races"][0]["candidates"]["ours"] == {"median": 10.0, "low": 9.0, "high": 11.0, "ratio": 0.2, "least": 5}
    assert stored["conditions"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert stored["conditions"]["GFLOP/s"] == {"float32": 0, "bfloat16": 0}
