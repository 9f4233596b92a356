"""What peers say in numbers, as tables: C-STORE statuses and association rejections.

Sources: PS3.4 Table B.2-1 (C-STORE), PS3.7 Annex C (general statuses), PS3.8 9.3.4 (A-ASSOCIATE-RJ).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StoreOutcome(StrEnum):
    """What a C-STORE status means for the sender."""

    ACCEPTED = "accepted"
    WARNING = "warning"
    """Accepted, but not quite as sent: keep the code and the comment."""
    LATER = "later"
    """Refused for now: the same object may be accepted at a later attempt."""
    REFUSED = "refused"
    """Refused for good: a person must act before another attempt makes sense."""


@dataclass(frozen=True)
class StoreStatus:
    """One row of the table of C-STORE statuses.

    Attributes:
        code: the status, 0 to 0xFFFF; for a row that covers a range, the code that was looked up.
        last: the last code of the row's range.
        outcome: what it means for the sender.
        words: the Standard's words.
        remedy: what a person can do about it; empty where nothing need be done.
    """

    code: int
    last: int
    outcome: StoreOutcome
    words: str
    remedy: str

    @property
    def hex(self) -> str:
        """The code as people write it: `A700`."""
        return f"{self.code:04X}"


SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_ASK = "Look up the code and the comment in the documentation or the log of the receiving system"
_CORRECT = "The object is at fault, not the network: keep it and report it"
_SPACE = "Free disk space at the receiving system; the object will be sent again"
_ALLOW = "Allow this kind of object, from this AE title, at the receiving system"

STORE_STATUSES: tuple[StoreStatus, ...] = tuple(
    StoreStatus(first, last, outcome, words, remedy)
    for first, last, outcome, words, remedy in (
        # PS3.4 Table B.2-1
        (0x0000, 0x0000, StoreOutcome.ACCEPTED, "Success", ""),
        (0xA700, 0xA7FF, StoreOutcome.LATER, "Refused: Out of Resources", _SPACE),
        (0xA900, 0xA9FF, StoreOutcome.REFUSED, "Error: Data Set does not match SOP Class", _CORRECT),
        (0xB000, 0xB000, StoreOutcome.WARNING, "Coercion of Data Elements", ""),
        (0xB006, 0xB006, StoreOutcome.WARNING, "Elements Discarded", ""),
        (0xB007, 0xB007, StoreOutcome.WARNING, "Data Set does not match SOP Class", ""),
        (0xC000, 0xCFFF, StoreOutcome.REFUSED, "Error: Cannot understand", _CORRECT),
        # PS3.7 Annex C, those that an answer to a C-STORE may carry (PS3.7 9.1.1.1.9)
        (0x0110, 0x0110, StoreOutcome.LATER, "Processing failure", "Look into the log of the receiving system"),
        (0x0111, 0x0111, StoreOutcome.REFUSED, "Duplicate SOP Instance", "The receiving system holds it already"),
        (0x0117, 0x0117, StoreOutcome.REFUSED, "Invalid SOP Instance", _CORRECT),
        (0x0118, 0x0118, StoreOutcome.REFUSED, "No such SOP Class", _ALLOW),
        (0x0119, 0x0119, StoreOutcome.REFUSED, "Class-Instance conflict", _CORRECT),
        (0x0122, 0x0122, StoreOutcome.REFUSED, "Refused: SOP Class not supported", _ALLOW),
        (0x0124, 0x0124, StoreOutcome.REFUSED, "Refused: Not authorized", _ALLOW),
        (0x0210, 0x0210, StoreOutcome.LATER, "Duplicate invocation", ""),
        (0x0211, 0x0211, StoreOutcome.REFUSED, "Unrecognized operation", _ASK),
        (0x0212, 0x0212, StoreOutcome.REFUSED, "Mistyped argument", _ASK),
        (0x0213, 0x0213, StoreOutcome.LATER, "Resource limitation", _SPACE),
    )
)


def store_status(code: int) -> StoreStatus:
    """What a C-STORE status means. A code outside the tables is a refusal, unless its class (PS3.7 C) is a warning.

    Args:
        code: Status (0000,0900), 0 to 0xFFFF.
    """
    for row in STORE_STATUSES:
        if row.code <= code <= row.last:
            return StoreStatus(code, row.last, row.outcome, row.words, row.remedy)
    # PS3.7 C.1: 0001, Bxxx, 0107 and 0116 are of the class Warning, whatever the service.
    if code in (0x0001, 0x0107, 0x0116) or 0xB000 <= code <= 0xBFFF:
        return StoreStatus(code, code, StoreOutcome.WARNING, "Warning that the Standard does not name", _ASK)
    return StoreStatus(code, code, StoreOutcome.REFUSED, "Status that the Standard does not name", _ASK)


@dataclass(frozen=True)
class Rejection:
    """One row of the table of association rejections (PS3.8 Table 9-21).

    Attributes:
        result: 1 rejected permanent, 2 rejected transient.
        source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        diagnostic: the reason, whose meaning depends on the source.
        words: the Standard's words.
        change: what to change, whichever of the two sides rejected.
    """

    result: int
    source: int
    diagnostic: int
    words: str
    change: str

    @property
    def transient(self) -> bool:
        """Whether the same association may be accepted later without any change."""
        return self.result == 2

    @property
    def codes(self) -> str:
        """Result, source and reason as people write them: `1/1/7`."""
        return f"{self.result}/{self.source}/{self.diagnostic}"


TEMPORARY_CONGESTION = (2, 3, 1)

_REJECTION_WORDS: dict[tuple[int, int], tuple[str, str]] = {
    (1, 1): ("no reason given", "Look into the log of the side that rejected"),
    (1, 2): ("application context name not supported", "The calling side does not speak DICOM as known: check it"),
    (1, 3): (
        "calling AE title not recognized",
        "Enter the calling AE title at the called side (here: listener.calling_ae_titles), or correct it at the caller",
    ),
    (1, 7): (
        "called AE title not recognized",
        "Enter the called side's own AE title (here: node.ae_title) at the calling side",
    ),
    (2, 1): ("no reason given (ACSE)", "Look into the log of the side that rejected"),
    (2, 2): ("protocol version not supported", "The two sides speak different versions of the protocol: check both"),
    (3, 1): (
        "temporary congestion",
        "Nothing at the calling side: it may try again. Free disk space at the called side",
    ),
    (3, 2): (
        "local limit exceeded",
        "Let the calling side open fewer associations at once, or raise the limit at the called side "
        "(here: listener.max_associations)",
    ),
}


def rejection(result: int, source: int, diagnostic: int) -> Rejection:
    """What an association rejection means, and what to change.

    Args:
        result: Result of the A-ASSOCIATE-RJ, 1 or 2.
        source: its Source, 1 to 3.
        diagnostic: its Reason/Diag.
    """
    unknown = ("reason that the Standard does not name", "Look into the log of the side that rejected")
    words, change = _REJECTION_WORDS.get((source, diagnostic), unknown)
    return Rejection(result, source, diagnostic, words, change)
