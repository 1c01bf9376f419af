"""What is a failure: the verdict on one mutant, and where it was refused."""

from __future__ import annotations

import resource
import traceback
import unicodedata
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import recvae
from recvae.errors import RecvaeError

Random = np.random.Generator
PACKAGE = Path(recvae.__file__).resolve().parent
LONGEST = 2000  # characters of a message: more is not a sentence but a stranger's data
PAD = float(np.finfo(np.float32).min)


class WrongError(Exception):
    """Something loaded, and is wrong."""


@dataclass
class Mutant:
    """A changed input: what was changed, in words; the input; whether its checksums are right."""

    what: str
    content: Any
    sealed: bool = True


class Kind:
    """A sort of input: how originals are made, changed and judged."""

    name = ""
    mib = 200  # growth of peak memory that a mutant may cause
    refusals: tuple[type[Exception], ...] = (RecvaeError,)

    def prepare(self, folder: Path) -> None:
        """Write the originals into a folder, in a child of its own."""

    def open(self, folder: Path) -> None:
        """Read the originals, in each child."""

    def directed(self) -> list[Any]:
        """Functions (random) -> Mutant for what chance does not reach, judged first."""
        return []

    @cached_property
    def first(self) -> list[Any]:
        """The same, made once."""
        return self.directed()

    def mutant(self, random: Random) -> Mutant:
        """A mutant by chance."""
        raise NotImplementedError

    def judge(self, mutant: Mutant, folder: Path) -> str:
        """What came of a mutant that was not refused, in a word. Raises WrongError, and whatever the package raises.

        folder : empty, and the current one
        """
        raise NotImplementedError


@dataclass
class Verdict:
    """What came of a mutant.

    outcome : "refused", what `Kind.judge` returned, or "failed"
    gate : of a refusal, file, function and the first words of the message
    reached : the lines of the package at which errors were raised on the way, as (file, line)
    failure : the sort of a failure; detail : more of it
    """

    number: int
    what: str = ""
    sealed: bool = False
    outcome: str = "failed"
    gate: str = ""
    reached: list[tuple[str, int]] = field(default_factory=list)
    failure: str = ""
    detail: str = ""


def judged(kind: Kind, number: int, mutant: Mutant, folder: Path) -> Verdict:
    """The verdict on one mutant."""
    verdict = Verdict(number, mutant.what[:300], mutant.sealed)
    before = _peak_mib()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict.outcome = kind.judge(mutant, folder)
    except WrongError as error:
        verdict.failure, verdict.detail = f"wrong: {str(error).partition(';')[0]}", str(error)[:2000]
    except kind.refusals as error:
        verdict.outcome = "refused"
        _look_at_refusal(verdict, error)
    except BaseException as error:
        where = _place(error)
        verdict.reached = reached(error)
        verdict.failure = f"raw {type(error).__name__} at {where}"
        verdict.detail = "".join(traceback.format_exception(error))[-3000:]
    grown = _peak_mib() - before
    if grown > kind.mib and not verdict.failure:
        verdict.failure, verdict.detail = f"memory: more than {kind.mib} MiB", f"{grown} MiB; {verdict.gate}"
    if verdict.failure:
        verdict.outcome = "failed"
    return verdict


def _look_at_refusal(verdict: Verdict, error: BaseException) -> None:
    message = str(error)
    verdict.reached = reached(error)
    words = message.replace(f"{Path.cwd()}/", "").split()[:6]  # the folder is another one in each child
    verdict.gate = f"{_place(error)}: {' '.join(words)}"[:160]
    odd = {c for c in message if unicodedata.category(c) in ("Cc", "Cs")}
    if odd:
        verdict.failure = f"message with control characters at {_place(error)}"
    elif len(message) > LONGEST:
        verdict.failure = f"message too long at {_place(error)}"
    elif not message.strip():
        verdict.failure = f"no message at {_place(error)}"
    asked = [each for each in chain(error) if _asked_for_memory(each)]
    if asked:
        verdict.failure = f"memory asked for at {_place(error)}"
    verdict.detail = repr(message[:600]) if verdict.failure else ""


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and those before it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def reached(error: BaseException) -> list[tuple[str, int]]:
    """Where in the package an error and those before it were raised."""
    return [place for each in chain(error) if (place := _innermost(each)) is not None]


def _asked_for_memory(error: BaseException) -> bool:
    words = ("Unable to allocate", "allocate memory", "std::bad_alloc", "malloc of size")
    raw = isinstance(error, MemoryError) and not isinstance(error, RecvaeError)
    return raw or any(word in str(error) for word in words)


def _innermost(error: BaseException) -> tuple[str, int] | None:
    places = [
        (str(Path(frame.f_code.co_filename).relative_to(PACKAGE)), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(str(PACKAGE))
    ]
    return places[-1] if places else None


def _place(error: BaseException) -> str:
    """File and function of the innermost frame of the package."""
    frames = [
        frame.f_code
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(str(PACKAGE))
    ]
    if not frames:
        return "outside of recvae"
    return f"{Path(frames[-1].co_filename).relative_to(PACKAGE)} {frames[-1].co_name}"


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


# what a list has to be -----------------------------------------------------------------------------------------------


def check_lists(
    ids: NDArray[Any],
    found: NDArray[Any],
    expected: NDArray[np.float64],
    margin: NDArray[np.float64],
    seen: NDArray[np.bool_],
    N: int,
) -> None:
    """Hold lists against scores that were computed independently. Raises WrongError.

    ids, found : (B, N) what `recommend` gave
    expected : (B, I) scores, -inf for items that have none
    margin : (B, I) by how much a score may differ; where it is not finite, nothing is known
    seen : (B, I) items that may not be in the lists
    """
    n_items = expected.shape[1]
    if ids.shape != (len(expected), N) or found.shape != ids.shape:
        raise WrongError(f"shape of lists; {ids.shape} and {found.shape} for {len(expected)} users, N={N}")
    for user in range(len(expected)):
        _check_list(ids[user], found[user], expected[user], margin[user], seen[user], n_items)


def _check_list(ids: Any, found: Any, expected: Any, margin: Any, seen: Any, n_items: int) -> None:
    n = int((ids >= 0).sum())
    shown = f"{ids.tolist()} {found.tolist()} for {expected.tolist()}"
    if (ids[:n] < 0).any() or (ids[n:] != -1).any() or not (found[n:] == np.float32(PAD)).all():
        raise WrongError(f"padding; {shown}")
    if n and (ids[:n].max() >= n_items or len(set(ids[:n].tolist())) < n):
        raise WrongError(f"items out of range or twice; {shown}")
    if not np.isfinite(found).all():
        raise WrongError(f"scores that are not finite; {shown}")
    if (np.diff(found[:n]) > 0).any():
        raise WrongError(f"lists out of order; {shown}")
    if seen[ids[:n]].any():
        raise WrongError(f"seen items in a list; {shown}")
    with np.errstate(invalid="ignore"):
        apart = np.abs(found[:n] - expected[ids[:n]]) > margin[ids[:n]]
    if (apart & np.isfinite(margin[ids[:n]])).any() or np.isneginf(expected[ids[:n]]).any():
        raise WrongError(f"other scores; {shown}")
    left = ~seen
    left[ids[:n]] = False
    if n == len(ids):
        left &= expected - margin > found[-1]
    left &= (expected > -np.inf) & (np.abs(expected) > margin)
    if (left & np.isfinite(margin)).any():
        raise WrongError(f"a better item is left out; {shown}")
