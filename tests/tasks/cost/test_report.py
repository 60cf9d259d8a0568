"""Tables on screen, as Markdown and as CSV."""

from pathlib import Path

import pytest

from tasks.cost.paper import Printed
from tasks.cost.report import (
    Column,
    Like,
    Part,
    Row,
    Table,
    comma_separated,
    exactly,
    kilobytes,
    like,
    markdown,
    percent,
    printed,
    show,
    write,
)

TABLE = Table(
    "sizes",
    "Sizes [kB]",
    (Column("model", right=False), Column("size\npaper", printed), Column("\nours", like), Column("\ndiff", percent)),
    (
        Row((Part("net"), Printed("1.5B", "table 9 has 2"), Like(1_512_345_678, "B"), 0.00823), ("Wrong",), first=True),
        Row((Part("net", "head"), Printed("3.0M"), None, ""), ("Absent", "Wrong")),
    ),
    ("A remark.",),
)


def test_markdown() -> None:
    assert markdown(TABLE).splitlines() == [
        "## Sizes [kB]",
        "",
        "| model      | size paper | size ours | size diff | note |",
        "| ---------- | ---------: | --------: | --------: | ---- |",
        "| net        |      1.5B\\* |    1.512B |    +0.8 % | 1    |",
        "| &emsp;head |       3.0M |         - |           | 2, 1 |",
        "",
        "\\* contradicted by the paper itself.",
        "",
        "1. Wrong.",
        "",
        "2. Absent.",
        "",
        "A remark.",
    ]


def test_csv_has_numbers_as_they_are() -> None:
    assert comma_separated(TABLE).splitlines() == [
        "model,size paper,size ours,size diff,notes",
        "net,1500000000,1512345678,0.00823,Wrong",
        "net head,3000000,,,Absent / Wrong",
    ]


def test_screen_shows_marks_notes_and_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    show([TABLE, TABLE._replace(rows=(), remarks=())])
    out = capsys.readouterr().out
    for text in ("Sizes [kB]", "1.5B*", "  head", "2, 1", "* contradicted", "1. Wrong.", "A remark."):
        assert text in out
    assert max(map(len, out.splitlines())) <= 120


def test_files_are_named_after_tables(tmp_path: Path) -> None:
    write([TABLE, TABLE._replace(name="others")], tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["cost.md", "others.csv", "sizes.csv"]
    assert (tmp_path / "new" / "folder" / "cost.md").read_text().count("## Sizes [kB]") == 2


def test_figures() -> None:
    assert (percent(-0.5), percent(0), percent(0.0104)) == ("-50.0 %", "0.0 %", "+1.0 %")
    assert (kilobytes(2.56), kilobytes(1605.6), exactly(Like(2_113_141, "M"))) == ("2.6", "1,606", "2,113,141")
    assert (like(Like(300_774_272, "M")), like(Like(5, ""))) == ("300.8M", "5.0")
