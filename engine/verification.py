"""Every backend held against the windows of a package, one after the other: what `vastus model verify` tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine import backends
from engine.backends import AUTO, SessionOptions, open_session
from engine.choice import Candidate, options_for
from engine.gate import Agreement, compare, faults, windows_of
from engine.package import ModelPackage
from engine.trials import HINDRANCES, candidates, reason_of


@dataclass(frozen=True)
class Verdict:
    """What was found of a backend in one precision.

    Attributes:
        backend: its name.
        precision: what it computes in; `auto` where it could not be opened.
        available: whether what it needs is here.
        chosen: whether it is what would serve.
        found: how it answers; None where it was not asked.
        refused: why it cannot serve; empty where it can.
    """

    backend: str
    precision: str
    available: bool
    chosen: bool
    found: Agreement | None = None
    refused: str = ""


def verify(package: ModelPackage, options: SessionOptions, chosen: Candidate) -> Iterator[Verdict]:
    """Try the chosen backend first, then every other one in each of its precisions; last, those that are not here.

    One that fails hinders no other.

    Args:
        package: the model; brings windows and limits.
        options: how it is run; the precision is each candidate's own, and a batch of 0 is what suits the device.
        chosen: what would serve; a precision of "auto" is the backend's own choice.

    Raises:
        ModelError: the package's windows are damaged.
    """
    first = _tried(chosen, package, options, is_chosen=True)
    yield first
    done = {(first.backend, first.precision), (chosen.backend, chosen.precision)}
    for candidate in candidates():
        if (candidate.backend, candidate.precision) not in done:
            yield _tried(candidate, package, options, is_chosen=False)
    for name, missing in backends.availability().items():
        if missing is not None:
            yield Verdict(name, AUTO, available=False, chosen=False, refused=missing)


def _tried(candidate: Candidate, package: ModelPackage, options: SessionOptions, is_chosen: bool) -> Verdict:
    verdict = Verdict(candidate.backend, candidate.precision, available=True, chosen=is_chosen)
    try:
        session = open_session(candidate.backend, package, options_for(candidate, options))
        verdict = replace(verdict, precision=session.precision)
        if package.limits is None:
            return verdict
        found = compare(session, windows_of(package))
    except HINDRANCES as error:
        return replace(verdict, refused=reason_of(error))
    if session.precision not in package.limits.largest_error:
        return replace(verdict, found=found, refused="no limit is known for this precision")
    return replace(verdict, found=found, refused="; ".join(faults(found, package.limits, session.precision)))
