"""How a scan was made, as its headers say."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from dicom_io.acquisition import acquisition_of
from dicom_io.kernels import OwnKernels
from engine.fitness_checks import Acquisition


def header(**values: object) -> FileDataset:
    made = FileDataset("slice.dcm", {}, file_meta=FileMetaDataset())
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def oriented(scheme: str, value: str, modifier: bool) -> FileDataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, scheme
    if modifier:
        outer = Dataset()
        outer.CodeValue, outer.CodingSchemeDesignator = "102538003", "SCT"
        outer.PatientOrientationModifierCodeSequence = [code]
        code = outer
    return header(PatientOrientationCodeSequence=[code])


def test_what_is_not_stated_is_not_known() -> None:
    assert acquisition_of([header()]) == Acquisition()


def test_what_is_stated_is_carried() -> None:
    headers = [
        header(PatientPosition="FFP", SliceThickness="2", Manufacturer="SIEMENS", ConvolutionKernel="B60f"),
        header(PatientPosition="FFP", SliceThickness="6", ContrastBolusAgent="Iomeron"),
    ]
    found = acquisition_of(headers, 71.0, (50.0, 120.0))
    assert found == Acquisition("FFP", False, 6.0, True, True, 71.0, (50.0, 120.0))


@pytest.mark.parametrize("agent", ["", "NONE", "no contrast ", "NO"])
def test_no_agent_is_no_contrast_medium(agent: str) -> None:
    assert not acquisition_of([header(ContrastBolusAgent=agent)]).contrast


@pytest.mark.parametrize(
    ("scheme", "value", "modifier", "erect"),
    [
        ("NCIt", "C86043", False, True),
        ("SRT", "F-10440", False, True),
        ("SCT", "10904000", True, True),
        ("SCT", "102538003", False, False),
        ("SCT", "40199007", True, False),
    ],
)
def test_a_standing_patient_is_known_by_the_code(scheme: str, value: str, modifier: bool, erect: bool) -> None:
    assert acquisition_of([oriented(scheme, value, modifier)]).erect == erect


def test_a_site_knows_its_kernels_better() -> None:
    headers = [header(Manufacturer="SIEMENS", ConvolutionKernel=["B60f", "2"])]
    assert acquisition_of(headers).sharp_kernel
    assert not acquisition_of(headers, kernels=OwnKernels(soft=("B60*",))).sharp_kernel
    assert not acquisition_of([header(Manufacturer="SIEMENS", ConvolutionKernel="B30f")]).sharp_kernel
