"""What the headers of a series say of how the scan was made, as far as it bears on measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes

from dicom_io.agents import NO_AGENT
from dicom_io.attributes import numbers, text
from dicom_io.guard import PARSER_ERRORS, QUIETLY
from dicom_io.kernels import NO_KERNELS, OwnKernels, Sharpness, sharpness_of
from engine.fitness_checks.acquisition import Acquisition

ERECT = frozenset(
    {
        (codes.cid19.Erect.scheme_designator, codes.cid19.Erect.value),
        (codes.cid20.Standing.scheme_designator, codes.cid20.Standing.value),
        ("SRT", "F-10440"),
        ("SRT", "F-10310"),
    }
)
"""Codes of an erect or standing patient (PS3.16 CID 19 and 20), and the older ones of the same meanings (PS3.16 L)."""


def acquisition_of(
    headers: Sequence[FileDataset],
    age_years: float | None = None,
    population_years: tuple[float, float] | None = None,
    kernels: OwnKernels = NO_KERNELS,
) -> Acquisition:
    """How the scan was made.

    Args:
        headers: of all its slices; at least one.
        age_years: of the patient; None where it is not known.
        population_years: lowest and highest age that the model is for; None where it names none.
        kernels: what the site says of its kernels.
    """
    with QUIETLY:
        first = headers[0]
        thickness = [value[0] for header in headers if (value := numbers(header, "SliceThickness", 1))]
        agents = {text(header, "ContrastBolusAgent").strip().upper() for header in headers}
        names = {name for header in headers for name in text(header, "ConvolutionKernel").split("\\")}
        sharpness = sharpness_of(text(first, "Manufacturer"), names, kernels)
        return Acquisition(
            position=text(first, "PatientPosition").strip().upper() or None,
            erect=any(code in ERECT for code in _orientation_codes(first)),
            thickness_mm=max(thickness, default=None),
            contrast=bool(agents - NO_AGENT),
            sharp_kernel=sharpness is Sharpness.SHARP,
            age_years=age_years,
            population_years=population_years,
        )


def _orientation_codes(header: FileDataset) -> Iterator[tuple[str, str]]:
    """Patient Orientation Code Sequence (0054,0410) and its modifiers (0054,0412), PS3.3 C.8.4.6."""
    for item in _items(header, "PatientOrientationCodeSequence"):
        yield text(item, "CodingSchemeDesignator"), text(item, "CodeValue")
        for modifier in _items(item, "PatientOrientationModifierCodeSequence"):
            yield text(modifier, "CodingSchemeDesignator"), text(modifier, "CodeValue")


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    try:
        value = dataset.get(keyword)
    except PARSER_ERRORS:
        return ()
    return value if isinstance(value, Sequence) else ()
