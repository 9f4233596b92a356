"""Every backend held against the windows of a package, one after the other: what `vastus model verify` tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine import backends
from engine.backends import AUTO, SessionOptions, open_session
from engine.choice import Candidate, batch_of
from engine.errors import BackendError
from engine.gate import Agreement, compare, faults, windows_of
from engine.package import ModelPackage


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
    """Try the chosen backend first, and then every other one in each of its precisions.

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
    usable = backends.usable()
    for name, missing in backends.availability().items():
        if name not in usable:
            yield Verdict(name, AUTO, available=False, chosen=False, refused=missing or "")
            continue
        for precision in usable[name].precisions:
            if (name, precision) not in done:
                yield _tried(Candidate(name, precision), package, options, is_chosen=False)


def _tried(candidate: Candidate, package: ModelPackage, options: SessionOptions, is_chosen: bool) -> Verdict:
    batch = batch_of(options.batch, candidate.backend, options.device)
    verdict = Verdict(candidate.backend, candidate.precision, available=True, chosen=is_chosen)
    try:
        session = open_session(candidate.backend, package, replace(options, precision=candidate.precision, batch=batch))
        verdict = replace(verdict, precision=session.precision)
        if package.limits is None:
            return verdict
        found = compare(session, windows_of(package))
    except BackendError as error:
        return replace(verdict, refused=error.reason)
    if session.precision not in package.limits.largest_error:
        return replace(verdict, found=found, refused="no limit is known for this precision")
    return replace(verdict, found=found, refused="; ".join(faults(found, package.limits, session.precision)))
