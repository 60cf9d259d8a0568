"""The paper's tables beside our figures."""

from typing import Any

import pytest
import torch

from backbones import MobileNetV2, ShuffleNetV1
from tasks.cost import compare as comparison
from tasks.cost import paper
from tasks.cost.blocks import COUNTED, by_shapes, formula, paper_network
from tasks.cost.compare import NOT_BUILT, compare
from tasks.cost.count import Trace, parts, trace
from tasks.cost.memory import Block, blocks, held, kilobytes, leaving
from tasks.cost.networks import classifier
from tasks.cost.paper import Printed
from tasks.cost.report import Table, headings


@pytest.fixture(scope="module")
def network() -> Trace:
    return paper_network()


def paper_table(number: int) -> Table:
    return comparison.paper_table(number)


def by_name(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(headings(table.columns), row.values, strict=True)) for row in table.rows]


def counts(table: Table) -> dict[str, tuple[int, int]]:
    built = [row for row in by_name(table) if row["parameters ours"]]
    return {row["network"]: (row["parameters ours"].value, row["multiply-adds ours"].value) for row in built}


@pytest.mark.parametrize(("text", "value", "unit"), [("14.8M", 14.8e6, "M"), ("0.35B", 0.35e9, "B"), ("600K", 6e5, "K"), ("62", 62, "")])
def test_printed_figures_are_numbers(text: str, value: float, unit: str) -> None:
    assert (Printed(text).value, Printed(text).unit) == (pytest.approx(value), unit)


def stride(block: Block) -> int:
    return block.input[1] // block.output[1]


def test_formula_of_the_text_holds_for_blocks_of_stride_1(network: Trace) -> None:
    found = blocks(network)
    assert len(found) == 17
    plain = [block for block in found[1:] if stride(block) == 1]
    assert len(plain) == 12
    assert all(formula(block) == block.multiply_adds for block in plain)


def test_shapes_of_table_1_give_all_blocks_that_expand(network: Trace) -> None:
    assert all(by_shapes(block) == block.multiply_adds for block in blocks(network)[1:])


def test_table_1_marks_what_the_formula_leaves_out() -> None:
    rows = paper_table(1).rows
    assert [number for number, row in enumerate(rows, start=2) if row.notes] == [2, 3, 5, 8, 15]
    assert all(row.values[-1] == 0 for row in rows if not row.notes)
    assert rows[13].values[3:7] == ("14x14x96", "14x14x576", "7x7x576", "7x7x160")


def test_table_2_equals_the_network() -> None:
    table = paper_table(2)
    assert len(table.rows) == 11
    assert {row["difference"] for row in by_name(table)} == {"equal"}
    assert "19 bottleneck blocks: table 2 has 17" in table.remarks[0]


def test_every_cell_of_table_3_is_the_memory_of_its_channels() -> None:
    # The print rounds up and down by up to 5 %, and by a fraction of a kB; one cell has twice what it should.
    for name, cells in paper.TABLE_3.items():
        for side, channels, size in cells:
            exact = kilobytes(int(channels.value), (side, side))
            agrees = size.value == pytest.approx(exact, rel=0.05, abs=0.7)
            assert agrees is not (name == "MobileNetV1" and side == 7), (name, side)
            assert bool(size.contradicted) is not agrees
    assert kilobytes(1024, (7, 7)) * 2 == pytest.approx(200.7, abs=0.1)


def test_table_3_by_table_2_and_by_the_rule_of_the_print(network: Trace) -> None:
    ours, by_block = held(network, COUNTED["MobileNetV2"].in_parts), leaving(network)
    assert {size[0]: channels for size, channels in ours.items()} == {112: 16, 56: 24, 28: 32, 14: 96, 7: 320, 1: 1280}
    assert {size[0]: channels for size, channels in by_block.items()} == {112: 24, 56: 32, 28: 64, 14: 160, 7: 320}
    printed = {side: (int(channels.value), bool(channels.contradicted)) for side, channels, _ in paper.TABLE_3["MobileNetV2"]}
    assert printed == {112: (16, False), 56: (32, True), 28: (64, True), 14: (160, True), 7: (320, False), 1: (1280, False)}


def test_table_3_without_the_tricks_holds_the_first_and_the_last_layer(network: Trace) -> None:
    assert (held(network)[112, 112], held(network)[7, 7]) == (32, 1280)


def test_table_3_largest() -> None:
    largest = {row["network"]: (row["paper kB"].value, row["ours kB"]) for row in by_name(paper_table(3)) if row["size"] == "max"}
    assert largest["MobileNetV2"] == (400, pytest.approx(401.4, abs=0.1))
    assert largest["MobileNetV1"] == (1600, pytest.approx(1605.6, abs=0.1))
    assert largest["ShuffleNet (2x, g=3)"] == (600, pytest.approx(752.6, abs=0.1))
    # 32 channels of 112x112 are 800 kB, more than what is printed as the largest.
    assert paper.TABLE_3_LARGEST["ShuffleNet (2x, g=3)"].contradicted


def channels_held(name: str) -> list[int | None]:
    return [row["ours channels"] for row in by_name(paper_table(3)) if row["network"] == name][:-1]


def test_table_3_of_the_other_networks() -> None:
    assert (
        channels_held("MobileNetV1") == [64, 128, 256, 512, 1024, 1024] == [int(cell.value) for _, cell, _ in paper.TABLE_3["MobileNetV1"]]
    )
    assert channels_held("ShuffleNet (2x, g=3)") == [None, 48, 480, 960, 1920, 1920]


def test_table_3_prints_the_channels_of_two_groups() -> None:
    with torch.device("meta"):
        found = held(trace(classifier(ShuffleNetV1(width_mult=2.0, groups=2)), (224, 224)), ("backbone.features.0.0",))
    printed = {side: int(channels.value) for side, channels, _ in paper.TABLE_3["ShuffleNet (2x, g=3)"]}
    assert {size[0]: channels for size, channels in found.items()} == {side: count for side, count in printed.items() if side < 112}


def test_table_4() -> None:
    assert counts(paper_table(4)) == {
        "MobileNetV1": (4_231_976, 568_740_352),
        "ShuffleNet (1.5)": (3_442_168, pytest.approx(292e6, rel=2e-3)),
        "ShuffleNet (x2)": (5_450_776, pytest.approx(524e6, rel=1e-3)),
        "NASNet-A": (5_289_978, pytest.approx(564e6, rel=1e-3)),
        "MobileNetV2": (3_504_872, 300_774_272),
        "MobileNetV2 (1.4)": (6_108_776, 582_195_824),
    }
    assert [row.parameters.text for row in paper.TABLE_4 if row.parameters.contradicted] == ["3.4M", "6.9M"]


def test_range_of_the_text() -> None:
    with torch.device("meta"):
        narrow = classifier(MobileNetV2(["layer19"], 0.35))
    part = parts(trace(narrow, (96, 96)))[0]
    assert (part.parameters, part.multiply_adds) == (1_677_128, 11_934_128)
    assert "11.9 M (not 7, as it prints) to 582.2 M multiply-adds, and 1.68 M to 6.11 M" in paper_table(4).remarks[0]


def test_table_5() -> None:
    found = counts(paper_table(5))
    assert found["SSD"] == (14_776_629, pytest.approx(1.259e9, rel=1e-3))
    assert found["SSDLite"] == (2_113_141, pytest.approx(0.178e9, rel=5e-3))
    assert [bool(row.multiply_adds.contradicted) for row in paper.TABLE_5] == [False, True]


def test_table_5_contradicts_table_6() -> None:
    whole = counts(paper_table(6))["MobileNetV2 + SSDLite"][1]
    backbone = whole - counts(paper_table(5))["SSDLite"][1]
    assert backbone == pytest.approx(0.611e9, rel=1e-3)
    assert backbone + paper.TABLE_5[1].multiply_adds.value > 1.15 * paper.TABLE_6[-1].multiply_adds.value


def test_table_6() -> None:
    assert counts(paper_table(6)) == {
        "MobileNetV1 + SSDLite": (5_100_661, pytest.approx(1.309e9, rel=1e-3)),
        "MobileNetV2 + SSDLite": (4_337_013, pytest.approx(0.789e9, rel=1e-3)),
    }


def test_table_7() -> None:
    rows = by_name(paper_table(7))
    found = [(row["network"], row["parameters ours"].value, row["multiply-adds ours"].value / 1e9) for row in rows]
    assert found == [
        ("MobileNetV1", 11_145_301, pytest.approx(12.761, rel=1e-3)),
        ("MobileNetV1", 11_145_301, pytest.approx(800.75, rel=1e-3)),
        ("MobileNetV2", 4_523_541, pytest.approx(5.364, rel=1e-3)),
        ("MobileNetV2", 4_523_541, pytest.approx(327.93, rel=1e-3)),
        ("MobileNetV2", 2_113_557, pytest.approx(2.741, rel=1e-3)),
        ("MobileNetV2", 2_113_557, pytest.approx(152.33, rel=1e-3)),
        ("ResNet-101", 58_040_661, pytest.approx(71.06, rel=1e-3)),
        ("ResNet-101", 58_040_661, pytest.approx(4248.5, rel=1e-3)),
    ]


def test_table_7_counts_what_tensorflow_computes() -> None:
    rows = by_name(paper_table(7))
    assert [round(row["multiply-adds filled"].value / 1e9, 2) for row in rows[:6]] == [14.23, 990.79, 5.82, 387.48, 2.74, 152.53]
    differences = [abs(row["multiply-adds diff"]) for row in rows if not row["multiply-adds paper"].contradicted]
    assert max(differences[:5]) < 0.005


def resnet_of_slim(size: int, output_stride: int) -> tuple[int, float]:
    """Parameters, and filled multiply-adds of the ResNet-101 of TensorFlow's DeepLabv3 (slim's resnet_v1_101_beta) with ASPP."""
    parameters, multiply_adds = 0, 0.0

    def conv(inputs: int, outputs: int, kernel: int, side: int, rate: int = 1, others: int = 2) -> None:
        nonlocal parameters, multiply_adds
        weights = inputs * outputs * kernel**2
        parameters += weights + others * outputs
        multiply_adds += weights * ((-(-side // rate) * rate) ** 2 if kernel > 1 else side**2)

    side, stride, rate, channels = -(-size // 2), 4, 1, 128
    for inputs, outputs in ((3, 64), (64, 64), (64, 128)):
        conv(inputs, outputs, 3, side)
    side = -(-side // 2)
    for width, units, grid in ((64, 3, (1,)), (128, 4, (1,)), (256, 23, (1,)), (512, 3, (1, 2, 4))):
        for unit in range(units):
            own_rate, before = rate * grid[unit % len(grid)], side
            if unit == units - 1 and width < 512:  # where slim has the stride of a stage
                stride, rate, side = (stride * 2, rate, -(-side // 2)) if stride < output_stride else (stride, rate * 2, side)
            if channels != 4 * width:
                conv(channels, 4 * width, 1, side)
            conv(channels, width, 1, before)
            conv(width, width, 3, side, own_rate)
            conv(width, 4 * width, 1, side)
            channels = 4 * width
    conv(channels, 256, 1, 1)
    conv(channels, 256, 1, side)
    for atrous_rate in (6, 12, 18):
        conv(channels, 256, 3, side, atrous_rate * 16 // output_stride)
    conv(5 * 256, 256, 1, side)
    conv(256, 21, 1, side, others=1)
    return parameters, multiply_adds


def test_resnet_of_table_7_is_that_of_slim() -> None:
    sizes = [round(512 * scale) + 1 for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    parameters, multiply_adds = resnet_of_slim(513, 16)
    assert (parameters, round(multiply_adds / 1e9, 2)) == (58_164_437, 80.83)
    assert round(2 * sum(resnet_of_slim(size, 8)[1] for size in sizes) / 1e9, 1) == 4868.9


def test_ratios_of_table_7_to_resnet() -> None:
    # The text says 4.9 to 5.7.
    v1, resnet = paper.TABLE_7[:2], paper.TABLE_7[-2:]
    ratios = [theirs.multiply_adds.value / ours.multiply_adds.value for ours, theirs in zip(v1, resnet, strict=True)]
    assert [round(ratio, 1) for ratio in ratios] == [5.7, 5.2]
    counted = by_name(paper_table(7))[1]["multiply-adds filled"].value
    assert round(resnet[1].multiply_adds.value / counted, 1) == 4.9


@pytest.mark.parametrize("number", [4, 6, 7])
def test_networks_that_are_not_built_are_named_and_have_dashes(number: int) -> None:
    for row, values in zip(paper_table(number).rows, by_name(paper_table(number)), strict=True):
        assert (NOT_BUILT in row.notes) is (values["parameters ours"] is None) is (values["multiply-adds diff"] is None)


def test_builder_makes_a_row_count() -> None:
    row = paper.Row("half", {}, Printed("2.0M"), Printed("97M"), lambda: classifier(MobileNetV2(["layer19"], 0.5)))
    assert counts(compare("t", "T", [row]))["half"] == (1_968_680, pytest.approx(97e6, rel=0.01))


@pytest.mark.parametrize("number", [0, 8, -1])
def test_other_tables_are_one_sentence(number: int) -> None:
    with pytest.raises(ValueError, match=rf"^table {number} is not in the paper; accepted: 1 to 7$"):
        comparison.paper_table(number)


def test_building_takes_no_memory() -> None:
    with torch.device("meta"):
        built = [row.build() for table in (paper.TABLE_4, paper.TABLE_7) for row in table if row.build]
    assert {parameter.device.type for model in built for parameter in model.parameters()} == {"meta"}
