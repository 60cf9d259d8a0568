"""Tables of figures: on screen, as Markdown and as CSV, all from the same rows."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from tasks.cost.paper import UNITS, Printed

# Marks a printed figure that the paper itself contradicts.
MARK = "*"
# Columns of a screen whose width is not known, such as a file that the output goes to.
WIDTH = 120


class Column(NamedTuple):
    """A column.

    Attributes:
        name: its heading; a second line tells apart columns that stand under one first line, which is empty from the second of them on.
        show: turns a value into text; None is a dash and "" nothing, whatever the column.
        right: whether it is aligned to the right.
    """

    name: str
    show: Callable[[Any], str] = str
    right: bool = True


class Like(NamedTuple):
    """A count that is shown in the unit of the printed figure beside it."""

    value: int
    unit: str


class Part(NamedTuple):
    """Name of a part, or of the whole where `part` is empty; files name both."""

    whole: str
    part: str = ""

    def __str__(self) -> str:
        """The part below its whole."""
        return f"  {self.part}" if self.part else self.whole


class Row(NamedTuple):
    """A row.

    Attributes:
        values: one a column, as numbers where they are numbers.
        notes: sentences that are set below the table.
        first: whether a group of rows begins here.
    """

    values: tuple[Any, ...]
    notes: tuple[str, ...] = ()
    first: bool = False


class Table(NamedTuple):
    """A table.

    Attributes:
        name: of its file.
        title: what it shows.
        columns: its columns; one for the notes' numbers is added where there are notes.
        rows: its rows.
        remarks: sentences below the table that are of no one row.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """The notes of all rows, each once."""
        return list(dict.fromkeys(note for row in self.rows for note in row.notes))


def whole(value: float) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,.0f}"


def millions(value: float) -> str:
    """1234567 as 1.2."""
    return f"{value / 1e6:,.1f}"


def kilobytes(value: float) -> str:
    """Two digits or more: 1,606 and 2.6."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def percent(value: float) -> str:
    """A difference: 0.012 as +1.2 %."""
    return f"{value:+.1%}".replace("%", " %") if value else "0.0 %"


def like(value: Like) -> str:
    """In the unit of the print, to four digits or more: 1.259B, 300.8M, 4,248.5B."""
    count = value.value / UNITS.get(value.unit, 1)
    return f"{count:,.{3 if value.unit == 'B' and count < 100 else 1}f}{value.unit}"


def exactly(value: Like) -> str:
    """In full: 2,113,141."""
    return whole(value.value)


def printed(value: Printed) -> str:
    """A printed figure, marked where the paper contradicts it; a blank keeps the digits below each other."""
    return value.text + (MARK if value.contradicted else " ")


def show(tables: Sequence[Table]) -> None:
    """Prints tables on screen."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Screen
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for table in tables:
        console.print(Text(f"{table.title}\n", "bold"))
        screen = Screen(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for column in _columns(table):
            screen.add_column(column.name, justify="right" if column.right else "left", no_wrap=True, vertical="bottom")
        for number, (row, cells) in enumerate(zip(table.rows, _cells(table), strict=True)):
            if row.first and number:
                screen.add_section()
            # Text, for Rich would read square brackets as its markup.
            screen.add_row(*(Text(cell, "yellow" if cell.endswith(MARK) else "") for cell in cells))
        console.print(screen)
        for number, line in enumerate(_below(table)):
            if not number:
                console.print()
            hanging = "   " if line[0].isdigit() else "  "
            console.print(Text("\n".join(wrap(line, min(console.width, WIDTH), subsequent_indent=hanging))), soft_wrap=True)
        console.print()


def write(tables: Sequence[Table], folder: str | Path) -> None:
    """Writes all tables to `cost.md`, and each to a CSV of its name with unrounded numbers."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cost.md").write_text("\n".join(markdown(table) for table in tables), encoding="utf-8")
    for table in tables:
        (folder / f"{table.name}.csv").write_text(comma_separated(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """Returns a table as Markdown."""
    columns = _columns(table)
    lines = [f"## {table.title}", ""]
    body = [headings(columns), *([_indented(cell) for cell in cells] for cells in _cells(table))]
    widths = [max(map(len, cells)) for cells in zip(*body, strict=True)]
    for number, cells in enumerate(body):
        padded = [_pad(cell, width, column.right) for cell, width, column in zip(cells, widths, columns, strict=True)]
        lines.append(f"| {' | '.join(padded)} |".replace(MARK, "\\*"))
        if not number:
            rules = [f"{'-' * (width - 1)}:" if column.right else "-" * width for width, column in zip(widths, columns, strict=True)]
            lines.append(f"| {' | '.join(rules)} |")
    below = [line.replace(MARK, "\\*") for line in _below(table)]
    return "\n".join([*lines, *(text for line in below for text in ("", line)), ""])


def comma_separated(table: Table) -> str:
    """Returns a table as CSV: numbers unrounded, printed figures without mark, differences as fractions, notes in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*headings(table.columns), *(["notes"] if table.notes else [])])
    for row in table.rows:
        plain = [_plain(value) for value in row.values]
        writer.writerow([*plain, *([" / ".join(row.notes)] if table.notes else [])])
    return text.getvalue()


def headings(columns: Sequence[Column]) -> list[str]:
    """Returns a heading of one line for each column."""
    found, group = [], ""
    for column in columns:
        first, _, second = column.name.partition("\n")
        group = first or group
        found.append(f"{group} {second}".strip().replace("- ", "-"))
    return found


def _columns(table: Table) -> list[Column]:
    return [*table.columns, *([Column("note", right=False)] if table.notes else [])]


def _cells(table: Table) -> list[list[str]]:
    numbers = {note: str(number) for number, note in enumerate(table.notes, start=1)}
    rows = []
    for row in table.rows:
        cells = [_shown(value, column) for value, column in zip(row.values, table.columns, strict=True)]
        rows.append([*cells, *([", ".join(numbers[note] for note in row.notes)] if table.notes else [])])
    return rows


def _shown(value: Any, column: Column) -> str:
    return "-" if value is None else "" if value == "" else column.show(value)


def _below(table: Table) -> list[str]:
    marked = any(isinstance(value, Printed) and value.contradicted for row in table.rows for value in row.values)
    return [
        *([f"{MARK} contradicted by the paper itself."] if marked else []),
        *(f"{number}. {note}." for number, note in enumerate(table.notes, start=1)),
        *table.remarks,
    ]


def _indented(cell: str) -> str:
    """A cell for Markdown, which drops blanks."""
    return cell.strip() if not cell.startswith("  ") else f"&emsp;{cell.strip()}"


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _plain(value: Any) -> Any:
    if isinstance(value, Printed):
        return f"{value.value:.10g}"
    if isinstance(value, Like):
        return value.value
    if isinstance(value, Part):
        return f"{value.whole} {value.part}".strip()
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
