"""Which taps a head takes where the backbone offers all that it has."""

from collections.abc import Mapping, Sequence

from backbones import Offer, Tap


def last_of_strides(taps: Mapping[str, Tap], strides: Sequence[int], head: str) -> Mapping[str, Tap]:
    """Returns the last tap of each stride of an offer; taps that the backbone was told, as they are.

    Args:
        taps: the backbone's taps.
        strides: what is needed.
        head: name of the head, for messages.

    Raises:
        ValueError: the offer lacks a stride.
    """
    if not isinstance(taps, Offer):
        return taps
    found = {tap.stride: name for name, tap in taps.items()}
    if missing := [stride for stride in strides if stride not in found]:
        needed, lacked = (" and ".join(map(str, numbers)) for numbers in (strides, missing))
        raise ValueError(f"{head} needs features of stride {needed}, and the backbone has none of stride {lacked}; it has {listed(taps)}")
    return {found[stride]: taps[found[stride]] for stride in strides}


def coarsest(taps: Mapping[str, Tap], fine: int | None = None) -> Mapping[str, Tap]:
    """Returns the last block of an offer, behind the last block of stride `fine` where that is given and there is one.

    Taps that the backbone was told are returned as they are.
    """
    if not isinstance(taps, Offer):
        return taps
    found = blocks(taps)
    deepest = max(found)
    strides = [stride for stride in (fine, deepest) if stride in found]
    return {found[stride]: taps[found[stride]] for stride in dict.fromkeys(strides)}


def blocks(taps: Mapping[str, Tap]) -> dict[int, str]:
    """Returns the name of the tap to use of each stride: of an offer the last block, else the last tap."""
    offered = isinstance(taps, Offer) and any(tap.block for tap in taps.values())
    return {tap.stride: name for name, tap in taps.items() if tap.block or not offered}


def listed(taps: Mapping[str, Tap]) -> str:
    """Returns names and strides for messages: of an offer one of each stride."""
    chosen = {tap.stride: name for name, tap in taps.items()}.values() if isinstance(taps, Offer) else taps
    return ", ".join(f"{name} of stride {taps[name].stride}" for name in chosen)
