"""The command line and latency."""

import csv
from pathlib import Path

import pytest
import torch

from backbones import MobileNetV2
from heads import ClassifierHead
from tasks.classify.model import Classifier
from tasks.cli import CONFIGS
from tasks.cost import latency
from tasks.cost.__main__ import main
from tasks.cost.count import parts, trace

IMAGENET = str(CONFIGS / "classify" / "mobilenet_v2_imagenet.yaml")
SHAPES = str(CONFIGS / "detect" / "ssdlite_mobilenet_v2_shapes.yaml")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("number", range(1, 8))
def test_tables_of_the_paper_print_within_120_columns(number: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["--table", str(number), "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert f"Table {number}: " in out
    assert "…" not in out
    assert max(len(line) for line in out.splitlines() if "written to" not in line) <= 120
    assert (tmp_path / f"table_{number}.csv").is_file()


def test_without_sources_all_configs_are_one_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tasks.cost.sources.MODULES", {"segment": "SegmentationModule"})  # all are built in test_sources.py
    main([])
    out = capsys.readouterr().out
    assert out.count("Cost of one image") == 1
    assert all(path.stem in out for path in (CONFIGS / "segment").rglob("*.yaml"))
    assert "…" not in out


def test_layer_table_is_keras_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([IMAGENET, "--layers", "true", "--memory", "true", "--output", str(tmp_path)])
    assert "3,538,984" in capsys.readouterr().out
    layers = {row["layer"]: int(row["parameters"]) for row in rows(tmp_path / "layers_mobilenet_v2_imagenet.csv")}
    names = ("features.0.0", "features.0.1", "features.1.conv.0.0", "features.1.conv.1", "features.14.conv.3", "features.18.0")
    assert [layers[f"backbone.{name}"] for name in names] == [864, 128, 288, 512, 640, 409_600]
    assert layers["head.linear"] == 1_281_000
    assert [layers.pop(name) for name in ("total", "trainable", "not trainable")] == [3_538_984, 3_504_872, 34_112]
    assert sum(layers.values()) == 3_538_984
    (cost, backbone, head), memory = rows(tmp_path / "cost.csv"), rows(tmp_path / "memory.csv")
    assert (cost["parameters"], cost["multiply-adds"], cost["held kB"]) == ("3504872", "300774272", "802.816")
    assert (backbone["model"], backbone["multiply-adds"]) == ("mobilenet_v2_imagenet backbone", "299494272")
    assert (head["parameters"], head["held kB"]) == ("1281000", "")
    assert [(row["resolution"], row["channels"]) for row in memory][0::5] == [("112x112", "32"), ("1x1", "1280")]


def test_size_and_classes_can_be_changed(tmp_path: Path) -> None:
    main([SHAPES, "--size", "[96, 64]", "--num_classes", "2", "--output", str(tmp_path)])
    row = rows(tmp_path / "cost.csv")[0]
    assert (row["input"], row["classes"]) == ("96x64", "2")


def test_latency_says_how_it_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    flags = ["--latency", "true", "--repeats", "4", "--threads", "1", "--precision", "bf16", "--size", "[64, 64]"]
    main([SHAPES, *flags, "--output", str(tmp_path)])
    out = " ".join(capsys.readouterr().out.split())
    for text in ("median of 4 runs after 3 others", "1 thread of", "bfloat16 where autocast", "1 image a run", torch.__version__):
        assert text in out
    assert torch.get_num_threads() == threads
    whole, *others = [{key: float(row[f"ms {key}"]) for key in ("median", "25 %", "75 %")} for row in rows(tmp_path / "cost.csv")]
    assert len(others) == 3
    assert all(0 < row["25 %"] <= row["median"] <= row["75 %"] for row in (whole, *others))
    assert whole["median"] >= max(row["median"] for row in others)


def test_clock_is_taken_off_again() -> None:
    model = Classifier(MobileNetV2(["layer4"], 0.35), ClassifierHead, ["a", "b"])
    found = latency.measure(model, (32, 32), {part.name: part.modules for part in parts(trace(model, (32, 32)))}, latency.Settings(1, 2))
    assert list(found) == ["whole", "backbone", "head"]
    assert found["whole"].low == found["whole"].median == found["whole"].high
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_processor_has_a_name() -> None:
    assert latency.processor()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--table", "8"], r"table 8 is not in the paper; accepted: 1 to 7"),
        (["--table", "5", "--layers", "true"], "--table is of the paper's own networks; it takes no sources"),
        (["--table", "5", SHAPES], "--table is of the paper's own networks; it takes no sources"),
        (["absent.yaml"], "absent.yaml: no such config"),
        ([SHAPES, "--size", "[0, 96]"], r"size \[0, 96\] is not possible; accepted: a height and a width of at least 1"),
        (
            [SHAPES, "--latency", "true", "--repeats", "0"],
            "repeats 0, batch_size 1 and threads [0-9]+ are not possible; accepted: at least 1 of each",
        ),
        (
            [SHAPES, "--latency", "true", "--threads", "0"],
            "repeats 20, batch_size 1 and threads 0 are not possible; accepted: at least 1 of each",
        ),
    ],
    ids=["table", "flag", "source", "absent", "size", "repeats", "threads"],
)
def test_what_a_user_got_wrong_is_one_sentence(args: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=rf"^error: {message}"):
        main(args)
