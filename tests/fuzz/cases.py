"""What cases are drawn from: damaged bytes, odd values, and documents with odd values in them."""

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# Fields of headers stand in front.
HEADER = 128

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        -(2**63) - 1,
        10**400,
        0.5,
        -0.0,
        1e-320,
        1e308,
        float("nan"),
        float("inf"),
        -float("inf"),
    ),
    *("", " ", "x", "0", "nan", "1e999", "naïve 猫 😀", "\x00", "a\x00b", "\ud800", "line\nbreak", "../../up", "/", "%s {0}", "x" * 1000),
    *([], [[]], [None], [1, 2, 3, 4], [float("nan")] * 4, [10**30] * 4, ["1", "2", "3", "4"], [[[[1]]]], list(range(300))),
    *({}, {"": None}, {"id": 1}, {"counts": "", "size": [1, 1]}, {"class_path": "os.system", "init_args": {"command": "true"}}),
)


def odd_values() -> SearchStrategy[Any]:
    """Plain values that no field expects."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3))
    return st.sampled_from(ODD).map(copy.deepcopy) | nested


@st.composite
def damaged(draw: DrawFn, content: bytes) -> bytes:
    """Bytes with some flipped, overwritten, cut off, left out, doubled or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        last = len(data) - 1
        place = draw(st.integers(0, min(HEADER, last)) | st.integers(0, last))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(("flip", "write", "cut", "leave out", "double", "put in"))):
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "write":
                data[place : place + length] = draw(st.sampled_from((b"\x00", b"\xff", b"\x7f", b"\x80"))) * length
            case "cut":
                del data[place:]
            case "leave out":
                del data[place : place + length]
            case "double":
                data[place:place] = data[place : place + length]
            case "put in":
                data[place:place] = draw(st.binary(max_size=length))
    return bytes(data)


@st.composite
def spoiled(draw: DrawFn, document: Any) -> Any:
    """A document of mappings and lists with some values replaced by odd ones, left out or doubled."""
    whole = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        place: Any = whole
        key: Any = 0
        while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 7)):
            place = place[key]
            key = draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
        match draw(st.sampled_from(("replace", "replace", "replace", "leave out", "double"))):
            case "leave out" if place is not whole:
                del place[key]
            case "double" if isinstance(place, list) and place is not whole:
                place.insert(key, copy.deepcopy(place[key]))
            case _:
                place[key] = draw(odd_values())
    return whole[0]
