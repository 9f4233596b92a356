"""Flags: what makes a scan less fit for measurement, each with its number, and what is to be done about it.

Here is the table of their kinds. What finds them is in `engine.fitness_checks` (the scan and its segmentation) and in
`dicom_io.patient` (the patient's attributes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Policy(StrEnum):
    """What a flag means for a job: told with the results, told as a warning, or no results at all."""

    NOTE = "note"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Flag:
    """One finding about a scan.

    Attributes:
        code: stable key, as `metal`; it is stored and searched for.
        words: one sentence for a radiographer, with the number in it, and nothing that names a patient.
        number: what was found; None where nothing could be counted.
        unit: of the number, a UCUM code (PS3.16 CID 82 and others); "1" for a pure number.
    """

    code: str
    words: str
    number: float | None
    unit: str


@dataclass(frozen=True)
class FlagKind:
    """One kind of flag.

    Attributes:
        code: stable key.
        what: what it says, in a few words; at most 64 characters (it is a code's meaning in DICOM).
        number: what its number is, in a few words; empty where it has none.
        unit: of the number, UCUM.
        policy: what it means where the settings say nothing.
        source: which paper or part of the Standard asks for it.
    """

    code: str
    what: str
    number: str
    unit: str
    policy: Policy
    source: str


@dataclass(frozen=True)
class RaisedFlag:
    """A flag and what it means for its job."""

    flag: Flag
    policy: Policy


KIM = "Kim 2024 (Sci Rep 14:3301)"
SOUFI = "Soufi 2025"
_TABLE: tuple[tuple[str, str, str, str, Policy, str], ...] = (
    ("not_supine", "Patient did not lie on the back", "turn from supine", "deg", Policy.WARN,
     f"{KIM}: supine only, 33 excluded; Patient Position (0018,5100), PS3.3 C.7.3.1.1.2"),
    ("position_conflict", "Stated position and geometry disagree", "angle between the two", "deg", Policy.NOTE,
     "Patient Position (0018,5100) against Image Orientation (Patient) (0020,0037)"),
    ("hip_missing", "Scan ends below the hip joint", "length from hip to knee shown", "mm", Policy.WARN,
     f"{KIM}: hip-to-knee cut missing"),
    ("knee_missing", "Scan ends above the knee joint", "length from hip to knee shown", "mm", Policy.WARN,
     f"{KIM}: hip-to-knee cut missing"),
    ("truncated", "Structures are cut off at the edge of the scan", "structures cut off", "1", Policy.NOTE,
     f"{KIM}: whole thigh; a volume that is not whole is no small muscle"),
    ("metal", "Metal in the body", "volume of metal", "ml", Policy.WARN,
     f"{KIM}: substantial metal artefacts, 29 excluded; {SOUFI}: metal looked for"),
    ("shaft_broken", "Femoral shaft is in several parts", "parts of the shaft", "1", Policy.WARN,
     f"{KIM}: shaft and subtrochanteric fractures, 21 excluded"),
    ("shaft_angled", "Femoral shaft is angled", "sharpest angle of its centre line", "deg", Policy.WARN,
     f"{KIM}: shaft and subtrochanteric fractures, bone deformity"),
    ("limb_asymmetry", "Femora differ in length", "difference in length", "mm", Policy.WARN,
     f"{KIM}: amputation of a lower limb, bone deformity"),
    ("muscle_asymmetry", "Muscles of one side are much smaller", "smaller side over larger", "1", Policy.WARN,
     f"{KIM}: amputation, muscle deformity"),
    ("noise", "Noise is high", "SD in muscle or fat, the higher", "[hnsf'U]", Policy.WARN,
     f"{KIM}: noise, low contrast, 68 excluded"),
    ("low_contrast", "Contrast of muscle and fat is low", "contrast-to-noise ratio", "1", Policy.WARN,
     f"{KIM}: noise, low contrast, 68 excluded"),
    ("thick_slices", "Slices are thick", "thickness or distance, the larger", "mm", Policy.WARN,
     "Kreher 2022: 5 mm; Slice Thickness (0018,0050)"),
    ("contrast_medium", "Contrast medium was given", "", "1", Policy.WARN,
     "Kim 2025: without contrast medium; Contrast/Bolus Agent (0018,0010)"),
    ("age_outside", "Age is outside of the model's population", "age", "a", Policy.WARN,
     f"the model's own statement; {KIM}: over 50 years"),
    ("sharp_kernel", "Reconstruction kernel is sharp", "", "1", Policy.WARN,
     "Kreher 2022: soft kernel; Convolution Kernel (0018,1210)"),
    ("field_cut", "Field of view cuts the body", "length over which it does", "mm", Policy.WARN,
     f"{KIM}: whole thigh"),
    ("height_implausible", "Patient's height is implausible", "height as stated", "m", Policy.WARN,
     "Patient's Size (0010,1020)"),
    ("weight_implausible", "Patient's weight is implausible", "weight as stated", "kg", Policy.WARN,
     "Patient's Weight (0010,1030)"),
    ("age_conflict", "Patient's age and birth date disagree", "difference", "a", Policy.WARN,
     "Patient's Age (0010,1010) against Patient's Birth Date (0010,0030)"),
)  # fmt: skip

FLAG_KINDS: Mapping[str, FlagKind] = MappingProxyType({row[0]: FlagKind(*row) for row in _TABLE})
"""Every kind of flag by its code, in the order in which they are told."""

DEFAULT_POLICIES: Mapping[str, Policy] = MappingProxyType({code: kind.policy for code, kind in FLAG_KINDS.items()})


def flag_of(code: str, words: str, number: float | None = None) -> Flag:
    """A flag of a kind of the table, with the unit of its kind; KeyError where there is no such kind."""
    return Flag(code, words, number, FLAG_KINDS[code].unit)


def judged(flags: Iterable[Flag | None], policies: Mapping[str, Policy]) -> tuple[RaisedFlag, ...]:
    """What the checks found, with what each means here, in the order of the table.

    Args:
        flags: what they found; None where a check found nothing.
        policies: by code; a code that is not there has the policy of its kind.
    """
    found = [flag for flag in flags if flag is not None]
    order = list(FLAG_KINDS)
    found.sort(key=lambda flag: order.index(flag.code))
    return tuple(RaisedFlag(flag, policies.get(flag.code, FLAG_KINDS[flag.code].policy)) for flag in found)
