"""Synthetic multi-frame CT: the slices of a synthetic series as frames of one Enhanced CT instance (PS3.3 A.38)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian

from dicom_io.series import SeriesRef
from dicom_io.uids import derive_uid

_FROM_SLICES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_RESCALE = ("RescaleIntercept", "RescaleSlope", "RescaleType")
_OF_SINGLE_IMAGES = (*_FROM_SLICES, *_RESCALE, "SpacingBetweenSlices", "WindowCenter", "WindowWidth", "KVP")


@dataclass(frozen=True)
class FramesPlan:
    """How slices become frames.

    Attributes:
        transfer_syntax_uid: explicit VR little endian, deflated explicit VR little endian, or a lossless one that
            pydicom can compress to.
        extended_offsets: whether compressed frames are found by the Extended Offset Table instead of the basic one.
        place_shared: whether orientation and spacing are told once, or frame by frame.
        instance_number: tells apart several instances of one series.
    """

    transfer_syntax_uid: str = ExplicitVRLittleEndian
    extended_offsets: bool = False
    place_shared: bool = True
    instance_number: int = 1


def write_enhanced(slices: Sequence[Path], path: Path, plan: FramesPlan | None = None) -> SeriesRef:
    """Write the slices, in their order, as the frames of one Enhanced CT instance.

    Args:
        slices: files of a series of `dicom_io.synthetic`, uncompressed.
        path: of the new file.
        plan: how; None for the plan's own defaults.

    Returns:
        a series of that one file, in the study of the slices.
    """
    plan = plan or FramesPlan()
    images = [dcmread(each) for each in slices]
    result = _top(images[0], plan)
    result.NumberOfFrames = len(images)
    shared, frames = Dataset(), [_frame_groups(image, number) for number, image in enumerate(images, 1)]
    for groups in (shared,) if plan.place_shared else frames:
        _add_place(groups, images[0])
    shared.CTImageFrameTypeSequence = [_frame_type()]
    details = Dataset()
    details.KVP = float(images[0].KVP)
    shared.CTXRayDetailsSequence = [details]
    result.SharedFunctionalGroupsSequence, result.PerFrameFunctionalGroupsSequence = [shared], frames
    result.PixelData = b"".join(image.PixelData for image in images)
    result["PixelData"].VR = "OW"
    if UID(plan.transfer_syntax_uid).is_encapsulated:
        extended = plan.extended_offsets
        result.compress(plan.transfer_syntax_uid, generate_instance_uid=False, encapsulate_ext=extended)
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(path, enforce_file_format=True)
    return SeriesRef(str(result.StudyInstanceUID), str(result.SeriesInstanceUID), (path,))


def _top(image: FileDataset, plan: FramesPlan) -> Dataset:
    result = Dataset()
    result.update(
        {element.tag: element for element in image if element.keyword not in (*_OF_SINGLE_IMAGES, "PixelData")}
    )
    result.SOPClassUID = EnhancedCTImageStorage
    result.SeriesInstanceUID = derive_uid("enhanced", str(image.SeriesInstanceUID))
    result.SOPInstanceUID = derive_uid("enhanced", str(image.SeriesInstanceUID), str(plan.instance_number))
    result.InstanceNumber = plan.instance_number
    result.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    result.PixelPresentation, result.VolumetricProperties = "MONOCHROME", "VOLUME"
    result.VolumeBasedCalculationTechnique = "NONE"
    result.ContentQualification, result.LossyImageCompression = "RESEARCH", "00"
    result.PresentationLUTShape = "IDENTITY"
    result.AcquisitionDateTime = f"{image.AcquisitionDate}{image.AcquisitionTime}"
    result.file_meta = FileMetaDataset()
    result.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    syntax = UID(plan.transfer_syntax_uid)
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    return result


def _frame_groups(image: Dataset, number: int) -> Dataset:
    groups, content, position = Dataset(), Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber = "1", number
    content.TemporalPositionIndex = 1
    position.ImagePositionPatient = image.ImagePositionPatient
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    groups.PixelValueTransformationSequence = [_part(image, _RESCALE)]
    return groups


def _add_place(groups: Dataset, image: Dataset) -> None:
    groups.PlaneOrientationSequence = [_part(image, ("ImageOrientationPatient",))]
    groups.PixelMeasuresSequence = [_part(image, ("PixelSpacing", "SliceThickness"))]


def _frame_type() -> Dataset:
    kind = Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    kind.PixelPresentation, kind.VolumetricProperties = "MONOCHROME", "VOLUME"
    kind.VolumeBasedCalculationTechnique = "NONE"
    return kind


def _part(image: Dataset, keywords: Sequence[str]) -> Dataset:
    part = Dataset()
    for keyword in keywords:
        part.add(image[keyword])
    return part
