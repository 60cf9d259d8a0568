"""Tables, files and pictures of finished runs."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.cost.report import markdown
from tasks.swap.costs import Cost, count, measure_all
from tasks.swap.notes import common_notes, task_notes
from tasks.swap.pictures import draw
from tasks.swap.plan import Plan, make_plan
from tasks.swap.records import place_of, state_of, write_json
from tasks.swap.report import comma_separated, make_table, show_count, write_report
from tasks.swap.results import Entry, collect, show_seconds
from tasks.swap.settings import Plain, Tasks, TaskSettings, Timing

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
APS = {"small": (0.20, 0.24), "large": (0.30, 0.36), "worse": (0.10, 0.12)}
COSTS = {"small": (1_000_000, 100e6), "large": (2_000_000, 1200e6), "worse": (3_000_000, 300e6)}


def backbone(name: str, **more: Any) -> Plain:
    return Plain({"name": name, "class_path": "backbones.MobileNetV2", "init_args": {"width_mult": 0.1}} | more)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three backbones with two seeds; those of `small` and `large` are done, and one of `worse` has failed."""
    weights = {"width_mult": 0.1, "weights": "imagenet"}
    backbones = [backbone("small"), backbone("large", init_args=weights), backbone("worse", overrides={"model.optimizer.lr": 0.5})]
    made = make_plan(
        "trial", Tasks(detect=TaskSettings(str(CONFIGS / "detect/ssdlite_mobilenet_v2_shapes.yaml"))), backbones, [0, 1], tmp_path
    )
    for run in made.runs:
        place = place_of(made.folder, run)
        record = {"hash": run.hash, "state": "done", "seconds": 60.0 + run.seed, "threads": 1, "cpus": 2, "processor": "P", "together": 2}
        if run.name == "worse_seed1":
            write_json(place.record, record | {"state": "failed", "error": "out of memory"})
            continue
        write_json(place.record, record | {"versions": {"torch": "2"}, "continued": int(run.name == "small_seed1")})
        write_json(place.folder / "metrics.json", {"val/AP": APS[run.backbone][run.seed], "val/AP50": 0.5})
        (place.folder / "metrics.csv").write_text("step,epoch,train/loss,val/AP\n0,0,3.5,\n9,0,2.5,0.1\n19,1,1.5,0.3\n")
    return made


@pytest.fixture
def found(plan: Plan) -> dict[str, list[Entry]]:
    latency = {"milliseconds": [5.0, 4.0, 6.0], "conditions": "Latency: so.", "busy": 0.5}
    taps = {"layer15_expand": (96, 16), "layer19": (1280, 32)}
    costs = {("detect", n): Cost(p, 1000, int(m), (160, 160), taps, 200, latency) for n, (p, m) in COSTS.items()}
    return collect(plan, costs)


def test_table_has_the_form_of_the_papers_table_6(plan: Plan, found: dict[str, list[Entry]]) -> None:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown(make_table(plan, "detect", found["detect"])).splitlines()
    ]
    assert lines[2] == ["Network", "AP", "AP50", "Params", "MAdd", "CPU", "training", "runs", "note"]
    assert lines[4] == ["small", "22.0 ± 2.8", "50.0 ± 0.0", "1.00M", "100.0M", "5.0 ms", "1.0 min", "2 of 2", ""]
    assert lines[5][4] == "1.20B"
    assert lines[6] == ["worse", "10.0", "50.0", "3.00M", "300.0M", "5.0 ms", "1.0 min", "1 of 2", "1"]


def test_notes_name_every_difference_beyond_the_backbone(plan: Plan, found: dict[str, list[Entry]]) -> None:
    notes = "\n".join([*task_notes(plan, "detect", found["detect"]), *common_notes(found)])
    for said in (
        "model.optimizer.init_args.lr is 0.003 for small, 0.003 for large, 0.5 for worse",
        "trained weights: large (weights imagenet)",
        "random weights: small, worse",
        "dropped: taps ['layer8_expand', 'layer15_expand', 'layer19'], width_mult 0.5",
        "layer15_expand (96 channels, stride 16), layer19 (1280 channels, stride 32); 200 anchors",
        "may have come in another order: small seed 1",
        "not quiet when latency was measured: others used up to 50%",
        "large has 11.0 ± 1.4 more than small (n = 2",
        "small has 10.0 more than worse with one seed; nothing can be said",
    ):
        assert said in notes, said
    assert notes.count("Differs beyond the backbone") == 1


def test_files_hold_the_same_numbers(plan: Plan, found: dict[str, list[Entry]], capsys: pytest.CaptureFixture[str]) -> None:
    write_report(plan, found)
    assert "22.0 ± 2.8" in capsys.readouterr().out
    text = (plan.folder / "table.md").read_text()
    assert "worse: seed 1 failed: out of memory" in text
    for picture in ("detect_costs", "detect_curves"):
        assert f"![{picture}](pictures/{picture}.png)" in text
        with Image.open(plan.folder / "pictures" / f"{picture}.png") as image:
            assert image.width > 1000
    rows = list(csv.DictReader((plan.folder / "table.csv").read_text().splitlines()))
    assert [row["backbone"] for row in rows] == ["small", "large", "worse"]
    assert float(rows[1]["AP"]) == pytest.approx(0.33)
    assert (rows[2]["AP_deviation"], rows[2]["runs_done"], rows[0]["latency_ms"]) == ("", "1", "5.0")
    results = json.loads((plan.folder / "results.json").read_text())["tasks"]["detect"]
    assert results["backbones"][0]["AP"]["mean"] == pytest.approx(0.22)
    assert results["backbones"][0]["runs"][1]["hash"] == plan.runs[3].hash
    pairs = [(pair["first"], pair["second"]) for pair in results["comparisons"]]
    assert sorted(pairs) == [("large", "small"), ("large", "worse"), ("small", "worse")]


def test_plans_without_a_finished_run_draw_nothing(plan: Plan, found: dict[str, list[Entry]]) -> None:
    empty = [entry._replace(results=tuple(r._replace(state="changed", metrics={}) for r in entry.results)) for entry in found["detect"]]
    assert draw(plan, "detect", empty) == []
    assert comma_separated({"detect": empty}).count("other settings") == 6


def test_figures_of_other_settings_are_never_mixed_in(plan: Plan, found: dict[str, list[Entry]], tmp_path: Path) -> None:
    base = TaskSettings(str(CONFIGS / "detect/ssdlite_mobilenet_v2_shapes.yaml"), Plain({"trainer.max_epochs": 1}))
    other = make_plan("trial", Tasks(detect=base), [backbone("small")], [0, 1], tmp_path)
    assert [state_of(other.folder, run) for run in other.runs] == ["changed", "changed"]
    entries = collect(other, {("detect", "small"): found["detect"][0].cost})["detect"]
    assert entries[0].spread("AP") is None


def test_counts_are_those_of_the_cost_command_and_latency_is_measured_once(tmp_path: Path) -> None:
    overrides = Plain({"data.size": [65, 65], "data.crop_size": [65, 65]})
    tasks = Tasks(segment=TaskSettings(str(CONFIGS / "segment/deeplabv3_mobilenet_v2_voc.yaml"), overrides))
    plan = make_plan("trial", tasks, ["backbones.MobileNetV2"], [0], tmp_path)
    timing = Timing(threads=1, repeats=2)
    assert count(plan, timing)["segment", "MobileNetV2"].latency == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_all(plan, timing)
    cost = count(plan, timing)["segment", "MobileNetV2"]
    assert cost.parameters == 2_113_557  # the paper's Mobile DeepLabv3
    assert cost.taps == {"layer18": (320, 16)}
    assert cost.anchors is None
    low, median, high = (cost.latency["milliseconds"][place] for place in (1, 0, 2))
    assert 0 < low <= median <= high
    before = (plan.folder / "latency.json").read_text()
    measure_all(plan, timing)
    assert (plan.folder / "latency.json").read_text() == before
    assert count(plan, Timing(threads=2, repeats=2))["segment", "MobileNetV2"].latency == {}  # of other conditions


def test_numbers_are_shown_in_their_units() -> None:
    assert [show_count(value) for value in (7_300_000, 0.789e9, 1.25e9)] == ["7.3M", "789.0M", "1.25B"]
    assert [show_seconds(value) for value in (42, 90, 9000)] == ["42 s", "1.5 min", "2.5 h"]
