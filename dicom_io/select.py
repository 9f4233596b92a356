"""Which series of a study is segmented, and why the others are not: attributes in, decisions out.

A **rule** refuses a series by itself. A **preference** picks one among series that show the same scan. What a header
does not tell refuses nothing, the modality excepted: geometry and pixels are looked at later. No order matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from dicom_io.kernels import NO_KERNELS, OwnKernels, Sharpness, sharpness_of

SAME_SCAN = 0.5
"""Of the shorter of two series: what both must cover to show the same scan."""
WHOLE = 0.9
"""Of the longest series of a scan: what another one must cover to be as whole as that."""


class ContrastPolicy(StrEnum):
    """What is thought of contrast medium, which changes the attenuation of muscle and fat."""

    ANY = "any"
    PREFER_NONE = "prefer_none"
    ONLY_NONE = "only_none"


@dataclass(frozen=True)
class SeriesFacts:
    """What the rules know of a series, and nothing of its patient. What is not told is empty or None.

    Attributes:
        series_uid: its UID.
        modality: Modality (0008,0060).
        sop_classes: names of its SOP classes.
        body_part: Body Part Examined (0018,0015).
        description: Series Description (0008,103E).
        protocol: Protocol Name (0018,1030).
        image_type: all values of Image Type (0008,0008) of all its images, in capitals.
        maker: Manufacturer (0008,0070).
        kernels: values of Convolution Kernel (0018,1210).
        contrast: whether a contrast medium is named; None where there is no image.
        frame_of_reference: Frame of Reference UID (0020,0052).
        acquisitions: values of Acquisition Number (0020,0012).
        slices: how many images it has, frames counted.
        oblique_deg: angle between the normal of its slices and the patient's axis from foot to head.
        spacing_mm: median distance of its slices.
        low_mm: the lowest place of a slice along the patient's axis from foot to head.
        high_mm: the highest.
    """

    series_uid: str
    modality: str = ""
    sop_classes: tuple[str, ...] = ()
    body_part: str = ""
    description: str = ""
    protocol: str = ""
    image_type: tuple[str, ...] = ()
    maker: str = ""
    kernels: tuple[str, ...] = ()
    contrast: bool | None = None
    frame_of_reference: str = ""
    acquisitions: tuple[str, ...] = ()
    slices: int = 0
    oblique_deg: float | None = None
    spacing_mm: float | None = None
    low_mm: float | None = None
    high_mm: float | None = None

    @property
    def coverage_mm(self) -> float | None:
        """Length along the patient's axis, slices included."""
        if self.low_mm is None or self.high_mm is None:
            return None
        return self.high_mm - self.low_mm + (self.spacing_mm or 0.0)


@dataclass(frozen=True)
class SelectionRules:
    """What the settings say; globs are matched whatever the case, and an empty list lets everything pass."""

    modalities: tuple[str, ...] = ("CT",)
    body_parts: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    not_descriptions: tuple[str, ...] = ()
    not_image_types: tuple[str, ...] = ()
    max_oblique_deg: float = 30.0
    min_slices: int = 50
    min_coverage_mm: float = 200.0
    max_spacing_mm: float = 10.0
    contrast: ContrastPolicy = ContrastPolicy.ANY
    prefer: tuple[str, ...] = ("whole", "soft", "original", "thin")
    thin_floor_mm: float = 1.0
    kernels: OwnKernels = NO_KERNELS


@dataclass(frozen=True)
class Decision:
    """What becomes of one series.

    Attributes:
        series_uid: the series.
        code: `selected`, `not_selected` (a preference decided), or the code of the rule that refused it.
        reason: in words, for a radiographer.
        by: names of the attributes that decided, with their values.
        winner_uid: the series that was taken in its place; None unless it was `not_selected`.
    """

    series_uid: str
    code: str
    reason: str
    by: Mapping[str, str]
    winner_uid: str | None = None

    @property
    def selected(self) -> bool:
        """Whether it is segmented."""
        return self.code == SELECTED


SELECTED, NOT_SELECTED = "selected", "not_selected"


def _matches(values: Iterable[str], globs: Iterable[str]) -> bool:
    return any(fnmatchcase(value.upper(), glob.upper()) for value in values if value for glob in globs)


def _names(facts: SeriesFacts) -> tuple[str, str]:
    return facts.description, facts.protocol


Refuses = Callable[[SeriesFacts, SelectionRules], str]
"""The words of a refusal; empty for none."""


def _capture(facts: SeriesFacts, rules: SelectionRules) -> str:
    """A dose page, a picture of a screen: Secondary Capture Image Storage and its multi-frame kin, PS3.4 B.5."""
    captured = any("Secondary Capture" in name for name in facts.sop_classes)
    return "it holds pictures of a screen or a report, not CT slices" if captured else ""


def _modality(facts: SeriesFacts, rules: SelectionRules) -> str:
    other = rules.modalities and facts.modality not in rules.modalities
    return f"its modality is {facts.modality or 'not told'}, not {' or '.join(rules.modalities)}" if other else ""


def _localizer(facts: SeriesFacts, rules: SelectionRules) -> str:
    return "it holds localizers (overview images for planning)" if "LOCALIZER" in facts.image_type else ""


def _projection(facts: SeriesFacts, rules: SelectionRules) -> str:
    found = [each for each in facts.image_type if _matches((each,), rules.not_image_types)]
    return f"its images are computed from others: {', '.join(found)}" if found else ""


def _excluded(facts: SeriesFacts, rules: SelectionRules) -> str:
    excluded = _matches(_names(facts), rules.not_descriptions)
    return "its description is one that the settings exclude" if excluded else ""


def _not_included(facts: SeriesFacts, rules: SelectionRules) -> str:
    missing = rules.descriptions and not _matches(_names(facts), rules.descriptions)
    return "its description is none that the settings ask for" if missing else ""


def _body_part(facts: SeriesFacts, rules: SelectionRules) -> str:
    other = rules.body_parts and facts.body_part and not _matches((facts.body_part,), rules.body_parts)
    return f"it is said to show {facts.body_part}, none of {', '.join(rules.body_parts)}" if other else ""


def _too_few(facts: SeriesFacts, rules: SelectionRules) -> str:
    few = facts.slices < rules.min_slices
    slices = f"{facts.slices} slice{'' if facts.slices == 1 else 's'}"
    return f"it has {slices} where {rules.min_slices} are needed" if few else ""


def _oblique(facts: SeriesFacts, rules: SelectionRules) -> str:
    if facts.oblique_deg is None or facts.oblique_deg <= rules.max_oblique_deg:
        return ""
    return f"its slices are not axial: they lie {facts.oblique_deg:.0f} degrees off, {rules.max_oblique_deg:g} may be"


def _short(facts: SeriesFacts, rules: SelectionRules) -> str:
    covered = facts.coverage_mm
    if covered is None or covered >= rules.min_coverage_mm:
        return ""
    return f"it covers {covered:.0f} mm of the body where {rules.min_coverage_mm:g} mm are needed"


def _sparse(facts: SeriesFacts, rules: SelectionRules) -> str:
    if facts.spacing_mm is None or facts.spacing_mm <= rules.max_spacing_mm:
        return ""
    return f"its slices are {facts.spacing_mm:.1f} mm apart where at most {rules.max_spacing_mm:g} mm are allowed"


def _contrast(facts: SeriesFacts, rules: SelectionRules) -> str:
    refused = rules.contrast is ContrastPolicy.ONLY_NONE and facts.contrast
    return "a contrast medium was given, and the settings take scans without one only" if refused else ""


RULES: tuple[tuple[str, Refuses, tuple[str, ...]], ...] = (
    ("secondary_capture", _capture, ("sop_classes",)),
    ("not_ct", _modality, ("modality",)),
    ("localizer", _localizer, ("image_type",)),
    ("projection", _projection, ("image_type",)),
    ("excluded_description", _excluded, ("description", "protocol")),
    ("other_description", _not_included, ("description", "protocol")),
    ("other_body_part", _body_part, ("body_part",)),
    ("too_few_slices", _too_few, ("slices",)),
    ("not_axial", _oblique, ("oblique_deg",)),
    ("short_coverage", _short, ("low_mm", "high_mm", "spacing_mm")),
    ("sparse_slices", _sparse, ("spacing_mm",)),
    ("contrast_given", _contrast, ("contrast",)),
)
"""Every rule in the order in which it is asked: the code, what refuses, and the attributes that it looks at."""


@dataclass(frozen=True)
class Preference:
    """One preference: the lower its number, the better.

    Attributes:
        rank: of a series among those of the same scan (all of them are told).
        words: why the winner was preferred.
        looks_at: the attributes that it looks at.
    """

    rank: Callable[[SeriesFacts, Sequence[SeriesFacts], SelectionRules], float]
    words: str
    looks_at: tuple[str, ...]


def _part(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> float:
    longest = max(each.coverage_mm or 0.0 for each in scan)
    return 0.0 if (facts.coverage_mm or 0.0) >= WHOLE * longest else 1.0


def _sharp(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> float:
    return float(kernel_of(facts, rules))


def _derived(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> float:
    return float("DERIVED" in facts.image_type or "ORIGINAL" not in facts.image_type)


def _thick(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> float:
    """Slices thinner than the floor are as good as those, but their files are more: the thickest of them first."""
    if facts.spacing_mm is None:
        return float("inf")
    below = rules.thin_floor_mm - facts.spacing_mm
    return rules.thin_floor_mm + below * 1e-3 if below > 0 else facts.spacing_mm


def _enhanced(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> float:
    return float(bool(facts.contrast))


PREFERENCES: Mapping[str, Preference] = {
    "whole": Preference(_part, "a series that covers more of the body was preferred", ("low_mm", "high_mm")),
    "soft": Preference(_sharp, "a softer kernel was preferred", ("kernels", "maker")),
    "original": Preference(_derived, "original images were preferred to derived ones", ("image_type",)),
    "thin": Preference(_thick, "a better distance of the slices was preferred", ("spacing_mm",)),
}
"""Every preference that the settings can name."""
_NO_CONTRAST = Preference(_enhanced, "a scan without contrast medium was preferred", ("contrast",))
_ANY_ONE = Preference(lambda facts, scan, rules: -facts.slices, "they are alike, and one was taken", ("slices",))


def kernel_of(facts: SeriesFacts, rules: SelectionRules) -> Sharpness:
    """How sharp a series is reconstructed."""
    return sharpness_of(facts.maker, facts.kernels, rules.kernels)


def refusal_of(facts: SeriesFacts, rules: SelectionRules) -> Decision | None:
    """The first rule that refuses a series; None where none does."""
    for code, refuses, looks_at in RULES:
        if words := refuses(facts, rules):
            return Decision(facts.series_uid, code, words, _shown(facts, looks_at))
    return None


def select(study: Iterable[SeriesFacts], rules: SelectionRules) -> dict[str, Decision]:
    """Decide on every series of one study, by its UID."""
    decided: dict[str, Decision] = {}
    passed = []
    for facts in study:
        if refused := refusal_of(facts, rules):
            decided[facts.series_uid] = refused
        else:
            passed.append(facts)
    for scan in scans_of(passed, rules):
        best, *others = sorted(scan, key=lambda facts: ranks_of(facts, scan, rules))
        decided[best.series_uid] = _taken(best, others, rules)
        decided.update((each.series_uid, lost(each, best, scan, rules)) for each in others)
    return decided


def scans_of(study: Iterable[SeriesFacts], rules: SelectionRules) -> tuple[tuple[SeriesFacts, ...], ...]:
    """Group series that show the same scan; two that show the same as a third one are together as well."""
    scans: list[list[SeriesFacts]] = []
    for facts in sorted(study, key=lambda each: each.series_uid):
        joined = [scan for scan in scans if any(same_scan(facts, other, rules) for other in scan)]
        scans = [scan for scan in scans if scan not in joined]
        scans.append([facts, *(each for scan in joined for each in scan)])
    return tuple(tuple(scan) for scan in scans)


def same_scan(one: SeriesFacts, other: SeriesFacts, rules: SelectionRules) -> bool:
    """Whether two series show the same scan: one frame of reference, one acquisition, and mostly the same stretch.

    With and without contrast medium are two scans, unless the settings prefer the one to the other.
    """
    if not one.frame_of_reference or one.frame_of_reference != other.frame_of_reference:
        return False
    if rules.contrast is not ContrastPolicy.PREFER_NONE:
        numbers = set(one.acquisitions), set(other.acquisitions)
        if bool(one.contrast) != bool(other.contrast) or (all(numbers) and numbers[0].isdisjoint(numbers[1])):
            return False
    places = (one.low_mm, one.high_mm, other.low_mm, other.high_mm)
    if any(place is None for place in places):
        return False
    low, high, other_low, other_high = (float(place) for place in places if place is not None)
    shorter = min(high - low, other_high - other_low)
    return min(high, other_high) - max(low, other_low) >= SAME_SCAN * shorter


def ranks_of(facts: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> tuple[float | str, ...]:
    """The place of a series among those of its scan: the first one is taken. The UID breaks what is left of ties."""
    return (*(each.rank(facts, scan, rules) for each in _preferences(rules)), facts.series_uid)


def lost(facts: SeriesFacts, winner: SeriesFacts, scan: Sequence[SeriesFacts], rules: SelectionRules) -> Decision:
    """The decision on a series that another one of its scan was preferred to."""
    told = _ANY_ONE
    for each in _preferences(rules):
        if each.rank(facts, scan, rules) > each.rank(winner, scan, rules):
            told = each
            break
    reason = f"{told.words}: series {winner.series_uid}"
    return Decision(facts.series_uid, NOT_SELECTED, reason, _shown(facts, told.looks_at), winner.series_uid)


def _preferences(rules: SelectionRules) -> tuple[Preference, ...]:
    first = (_NO_CONTRAST,) if rules.contrast is ContrastPolicy.PREFER_NONE else ()
    return (*first, *(PREFERENCES[name] for name in rules.prefer), _ANY_ONE)


def _taken(facts: SeriesFacts, others: Sequence[SeriesFacts], rules: SelectionRules) -> Decision:
    reason = f"it was preferred to {len(others)} other series of the same scan" if others else "no rule refuses it"
    looks_at = [name for each in _preferences(rules) for name in each.looks_at] if others else ["modality", "slices"]
    return Decision(facts.series_uid, SELECTED, reason, _shown(facts, looks_at))


def _shown(facts: SeriesFacts, names: Iterable[str]) -> dict[str, str]:
    return {name: _words(getattr(facts, name)) for name in names}


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return "\\".join(value)
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
