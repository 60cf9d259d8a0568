"""Tables 4 to 7 of the paper beside the networks that are built, and the choice of a table."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from tasks.cost import paper
from tasks.cost.blocks import table_1, table_2, table_3
from tasks.cost.count import filled, looks, parts, trace
from tasks.cost.paper import Printed
from tasks.cost.report import Column, Like, Row, Table, exactly, like, percent, printed

NOT_BUILT = "Not built here yet"

TITLES = {
    4: "Table 4: ImageNet, 224 x 224, 1000 classes",
    5: "Table 5: extra layers and prediction layers on MobileNetV2, 320 x 320, 80 classes",
    6: "Table 6: COCO; ours at 320 x 320, 80 classes",
    7: "Table 7: DeepLabv3 on VOC 2012; ours at 513 x 513, 21 classes",
}
REMARKS = {
    4: (
        "The text's widths 0.35 to 1.4 and resolutions 96 to 224 take 11.9 M (not 7, as it prints) to 582.2 M multiply-adds, and 1.68 M to "
        "6.11 M parameters.",
        "top-1 and CPU are printed figures: one large core of a Pixel 1 with TensorFlow Lite.",
    ),
    5: (),
    6: ("AP (test-dev) and CPU are printed figures: one large core of a Pixel 1 with TensorFlow Lite.",),
    7: (
        "OS: output stride. ASPP: three atrous branches. MF: six scales (0.5 to 1.75) and mirror images, all of them counted.",
        "filled: TensorFlow turns an atrous convolution of rate r into r x r plain ones, for which it fills maps up to multiples of r; "
        "that is what the paper counts, and what the difference is of.",
        "mIoU (val, pretrained on COCO) is a printed figure.",
    ),
}


def paper_table(number: int) -> Table:
    """Returns a table of the paper with our figures.

    Raises:
        ValueError: there is no such table.
    """
    structure: Mapping[int, Callable[[], Table]] = {1: table_1, 2: table_2, 3: table_3}
    networks = {4: paper.TABLE_4, 5: paper.TABLE_5, 6: paper.TABLE_6, 7: paper.TABLE_7}
    if number in structure:
        return structure[number]()
    if number in networks:
        return compare(f"table_{number}", TITLES[number], networks[number], REMARKS[number])
    raise ValueError(f"table {number} is not in the paper; accepted: 1 to 7")


def compare(name: str, title: str, networks: Sequence[paper.Row], remarks: tuple[str, ...] = ()) -> Table:
    """Puts counted parameters and multiply-adds beside printed ones."""
    facts = list(networks[0].facts)
    counts = [count(network) for network in networks]
    atrous = any(counted is not None and counted.filled != counted.multiply_adds for counted in counts)
    rows = []
    for network, counted in zip(networks, counts, strict=True):
        parameters, multiply_adds, in_tensorflow = counted or (None, None, None)
        exact, computed = (_beside(network.multiply_adds, number) for number in (multiply_adds, in_tensorflow))
        figures = (*_beside(network.parameters, parameters), *(exact[:-1] + computed[1:] if atrous else exact))
        printed_only = [None if network.facts[fact] == "-" else network.facts[fact] for fact in facts]
        rows.append(Row((network.network, *printed_only, *figures), _notes(network)))
    columns = (
        Column("network", right=False),
        *(Column(fact) for fact in facts),
        Column("parameters\npaper", printed),
        Column("\nours", exactly),
        Column("\ndiff", percent),
        Column("multiply-adds\npaper", printed),
        Column("\nours", like),
        *((Column("\nfilled", like),) if atrous else ()),
        Column("\ndiff", percent),
    )
    return Table(name, title, columns, tuple(rows), remarks)


class Counts(NamedTuple):
    """Parameters, and the multiply-adds of all looks at an image, exact and as TensorFlow computes them."""

    parameters: int
    multiply_adds: int
    filled: int


def count(network: paper.Row) -> Counts | None:
    """Counts a row's parts; None where it is not built."""
    if network.build is None:
        return None
    with torch.device("meta"):
        model = network.build()
    sizes = looks(model, model.size)
    traced = {size: trace(model, size) for size in set(sizes)}
    counted = {size: [part for part in parts(found) if part.name in network.parts] for size, found in traced.items()}
    multiply_adds = sum(part.multiply_adds for size in sizes for part in counted[size])
    extra = sum(filled(traced[size]) - traced[size].multiply_adds[""] for size in sizes)
    return Counts(sum(part.parameters for part in counted[sizes[0]]), multiply_adds, multiply_adds + extra)


def _beside(theirs: Printed, ours: int | None) -> tuple[Printed, int | Like | None, float | None]:
    return (theirs, None, None) if ours is None else (theirs, Like(ours, theirs.unit), theirs.difference(ours))


def _notes(network: paper.Row) -> tuple[str, ...]:
    reasons = (*network.parameters.reason(), *network.multiply_adds.reason())
    return (*reasons, *([network.note] if network.note else []), *([] if network.build else [NOT_BUILT]))
