"""Every fuzz test in two forms, and the count of their cases."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzz.fuzzer import Fuzzer

COUNTS: dict[str, Counter[str]] = {}


@pytest.fixture(params=["quick", pytest.param("slow", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest) -> Iterator[Fuzzer]:
    """Tries cases: a few that are always the same, or thousands."""
    fuzzer = Fuzzer(request.param == "slow")
    yield fuzzer
    COUNTS[request.node.nodeid] = fuzzer.counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many cases there were, and how they ended."""
    total = sum(COUNTS.values(), Counter[str]())
    if COUNTS:
        terminalreporter.write_line(f"fuzz: {total.total():,} cases, {total['results']:,} results, {total['refused']:,} refused")
