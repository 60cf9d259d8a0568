"""What the tests of costs share."""

from collections.abc import Iterator
from functools import cache

import pytest

from tasks.cost import compare


@pytest.fixture(scope="package", autouse=True)
def _each_table_once() -> Iterator[None]:
    """Computes each of the paper's tables once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "paper_table", cache(compare.paper_table))
        yield
