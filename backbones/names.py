"""Names that a user may have meant."""

import difflib
from collections.abc import Iterable

# How many near names a message lists, and how many in all where nothing is near.
NEAR, ALL = 5, 20


def near(name: str, known: Iterable[str]) -> str:
    """Returns the known names that are spelt most like `name` for a message, or the first of them where none is."""
    names = list(known)
    found = difflib.get_close_matches(name, names, NEAR) or [other for other in names if name and name in other][:NEAR]
    if found:
        return f"near ones are {', '.join(found)}"
    return f"there are {', '.join(names[:ALL])}{' ...' if len(names) > ALL else ''}"
