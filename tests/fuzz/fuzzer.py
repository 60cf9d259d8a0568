"""The property of whatever comes from outside: it ends in a result or in one clear sentence, in time and within memory."""

import contextlib
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

# For a case, on a machine that does other things too.
SECONDS = 20.0
# That a case may take on top of what the process has.
BYTES = 2 * 2**30
# Whatever is longer is no sentence.
LONGEST = 2000

Case = TypeVar("Case")


class Hang(BaseException):
    """A case took too long; no `except Exception` may swallow it."""


class Fuzzer:
    """Tries cases and counts how they end.

    Args:
        slow: many cases, other ones each time (pytest's `--hypothesis-seed` repeats them), instead of a few that are always the same.
    """

    def __init__(self, slow: bool) -> None:
        self.slow, self.counts = slow, Counter[str]()

    def __call__(
        self,
        act: Callable[[Case], object],
        cases: SearchStrategy[Case],
        corpus: Iterable[Case] = (),
        named: str = "",
        quick: int = 30,
        slow: int = 2000,
    ) -> None:
        """Tries all of a corpus and a number of drawn cases.

        Args:
            act: does what is tried with a case.
            cases: what to draw from.
            corpus: cases that are always tried.
            named: what a refusal must name, such as the file.
            quick: drawn cases of the quick form.
            slow: drawn cases of the slow form.
        """

        def check(case: Case) -> None:
            self.counts["refused" if ends_well(lambda: act(case), named) else "results"] += 1

        for case in corpus:
            check(case)
        phases = (Phase.generate, Phase.target, Phase.shrink)
        drawn = settings(
            max_examples=slow if self.slow else quick,
            derandomize=not self.slow,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )
        drawn(given(cases)(check))()


def ends_well(act: Callable[[], object], named: str = "") -> str:
    """Does something that may be refused.

    Args:
        act: what to do; any error but ValueError and OSError comes through.
        named: what a refusal must name.

    Returns:
        The sentence of the refusal, empty where there was none.
    """
    try:
        with limits():
            act()
    except (ValueError, OSError) as error:
        causes: list[BaseException | None] = [error]
        while (last := causes[-1]) is not None:
            causes.append(last.__cause__ or last.__context__)
        if any(isinstance(cause, MemoryError) for cause in causes):
            raise AssertionError(f"memory ran out: {error}") from error
        text = str(error)
        if not text.strip() or "\n" in text or "Traceback" in text or len(text) > LONGEST or named not in text:
            raise AssertionError(f"no clear sentence{f' that names {named}' * bool(named)}: {text[:LONGEST]!r}") from error
        return text
    return ""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Ends what hangs, and lets allocations fail beyond a limit."""

    def stop(number: int, frame: Any) -> None:
        raise Hang(f"more than {SECONDS} seconds")

    before, whole = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, whole[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, whole)
