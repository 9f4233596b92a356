"""Small CT instances as files, in any transfer syntax.

Compressed pixels are no real codestream: nobody decodes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

SIDE = 16


def uid(*words: str | int) -> str:
    """A UID that belongs to some words: the same words, the same UID (PS3.5 B.2)."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest)}"


def ct_dataset(series: str, number: int, **changes: Any) -> Dataset:
    """A CT image of 16 x 16 pixels, slice `number` of a series named by a word; `changes` set other attributes."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = uid(series, number)
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid(series)
    dataset.Modality = "CT"
    dataset.PatientName = "Test^Listener"
    dataset.PatientID = "LISTENER-1"
    dataset.InstanceNumber = number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1, 1]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_ct(
    folder: Path, series: str, number: int, transfer_syntax: str = ExplicitVRLittleEndian, **changes: Any
) -> Path:
    """Write such an image as a file. Returns its path."""
    dataset = ct_dataset(series, number, **changes)
    syntax = UID(transfer_syntax)
    pixels = bytes([number % 256, 0]) * SIDE * SIDE
    dataset.PixelData = encapsulate([pixels]) if syntax.is_encapsulated else pixels
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = folder / f"{series}-{number}-{syntax}.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(folder: Path, series: str, count: int, **changes: Any) -> list[Path]:
    """Write a series of such images."""
    return [write_ct(folder, series, number, **changes) for number in range(1, count + 1)]


def data_set_bytes(path: Path) -> bytes:
    """What follows the File Meta Information of a file (PS3.10 7.1), byte for byte."""
    content = path.read_bytes()
    # (0002,0000) UL 4: the group's length counts from behind its own twelve bytes.
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]
