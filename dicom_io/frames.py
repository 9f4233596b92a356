"""Multi-frame CT as headers of single images (PS3.3 A.38 Enhanced CT, A.70 Legacy Converted Enhanced CT).

A multi-frame instance tells of its frames in functional groups (C.7.6.16): what all share once, the rest frame by
frame. `frames_of` lays them flat, so that checks, geometry and results know one kind of header only. An attribute that
belongs into a group is never taken from elsewhere: a place that was told for no frame is no frame's place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dicom_io.attributes import FrameHeader, name_of, numbers, text
from dicom_io.errors import Refusal

MULTI_FRAME_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
"""The kinds of multi-frame instances whose frames have a place in the patient."""

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Functional groups and what is taken from them (PS3.3 C.7.6.16.2, C.8.15.3)
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameContentSequence": ("StackID", "TemporalPositionIndex"),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "CardiacSynchronizationSequence": ("NominalPercentageOfCardiacPhase",),
    "RespiratorySynchronizationSequence": ("NominalPercentageOfRespiratoryPhase",),
    "CTImageFrameTypeSequence": ("FrameType", "VolumetricProperties", "VolumeBasedCalculationTechnique"),
}
# What a converter of single images keeps as it was (C.7.6.16.2.25, C.7.6.16.2.26), and what has a group of its own in
# Enhanced CT. They may stand at the top level too, which is where single images have them.
_CONVERTED = ("KVP", "ConvolutionKernel", "PixelPaddingValue", "PixelPaddingRangeLimit")
_ANYWHERE: Mapping[str, tuple[str, ...]] = {
    "CTXRayDetailsSequence": ("KVP",),
    "CTReconstructionSequence": ("ConvolutionKernel",),
    "UnassignedSharedConvertedAttributesSequence": _CONVERTED,
    "UnassignedPerFrameConvertedAttributesSequence": _CONVERTED,
}
_TAGS = {Tag(group): tuple(map(Tag, found)) for group, found in {**_GROUPS, **_ANYWHERE}.items()}
_NOT_COPIED = {
    *map(Tag, (_SHARED, _PER_FRAME, "NumberOfFrames", "DimensionIndexSequence")),
    *(Tag(keyword) for found in _GROUPS.values() for keyword in found),
}
_FRAME_TYPE = Tag("FrameType")

# What one volume has once, and the words for it. A stack is one within its instance only.
_ONE_OF: Mapping[str, str] = {
    "TemporalPositionIndex": "temporal positions",
    "TemporalPositionTimeOffset": "temporal positions",
    "NominalPercentageOfCardiacPhase": "phases of the heart",
    "NominalPercentageOfRespiratoryPhase": "phases of breathing",
    "KVP": "tube voltages",
}
_WHOLE_VOXELS = {"", "NONE", "MPR"}  # Volume Based Calculation Technique (C.8.16.2.1.3): others are pictures
_CONTRAST_VALUE = 3  # of Frame Type, counted from 0: Derived Pixel Contrast, as an energy (C.8.16.1.4)
_SEND_ONE = "Send each scan, phase or energy as a series of its own"
_SEND_ORIGINAL = "Send the original images; Vastus never guesses a geometry"

Elements = dict[BaseTag, DataElement | RawDataElement]


def is_multi_frame_ct(header: Dataset) -> bool:
    """Whether an instance is of a kind that `frames_of` lays flat."""
    return header.get("SOPClassUID") in MULTI_FRAME_CT


def frames_of(header: FileDataset) -> tuple[FrameHeader, ...] | Refusal:
    """The headers of an instance's frames, in their order; or why it has none.

    Instance Number is the frame's number, Image Type its Frame Type. Attributes that neither the shared groups nor the
    frame's own hold are absent, so that the checks find and name the frame. Values are not looked at.

    Args:
        header: of an instance for which `is_multi_frame_ct`; without pixels.

    Raises:
        ValueError: and other `PARSER_ERRORS`, where the groups cannot be parsed.
    """
    shared, items = header.get(_SHARED) or [], header.get(_PER_FRAME) or []
    count = numbers(header, "NumberOfFrames", 1)
    if count is None or count[0] != len(items) or not items:
        told = "no number" if count is None else f"{count[0]:.0f}"
        missing = f"frame {len(items) + 1} of {name_of(header)} has no functional groups"
        reason = f"{missing}: it tells of {len(items)} frames and should of {told}"
        return Refusal("missing_geometry", reason, _SEND_ORIGINAL)
    common = {element.tag: element for element in header.elements() if element.tag not in _NOT_COPIED}
    common |= _flat(shared[0] if shared else Dataset())
    return tuple(_frame(header, {**common, **_flat(item)}, number) for number, item in enumerate(items, 1))


def refusal_of_frames(headers: Sequence[Dataset]) -> Refusal | None:
    """Why the frames of a series are not those of one volume of Hounsfield units; None for a series without frames."""
    frames = [header for header in headers if isinstance(header, FrameHeader)]
    if not frames:
        return None
    if len(frames) < len(headers):
        reason = "some of its slices are frames of a multi-frame image, others are images of their own"
        return Refusal("not_a_volume", reason, "Send the one or the other as a series of its own")
    return _several_volumes(frames) or _no_voxels(frames) or _parts_missing(frames)


def _flat(groups: Dataset) -> Elements:
    """The attributes of the groups; a group of several items tells nothing, for nobody knows which of them is meant.

    The elements are taken as they lie there: what a value is worth, the checks find out.
    """
    found: Elements = {}
    for group, tags in _TAGS.items():
        items = groups[group].value if group in groups else []
        if len(items) == 1:
            found |= {tag: items[0].get_item(tag) for tag in tags if tag in items[0]}
    return found


def _frame(header: FileDataset, elements: Elements, number: int) -> FrameHeader:
    implicit, little_endian = header.original_encoding
    frame = FrameHeader("", elements, file_meta=header.file_meta)
    frame.set_original_encoding(bool(implicit), bool(little_endian), header.original_character_set)
    frame.filename = header.filename
    frame.frame_number, frame.frame_count = number, int(header.NumberOfFrames)
    frame.image_name = name_of(header)
    frame.InstanceNumber = number
    if _FRAME_TYPE in frame:
        frame.ImageType = frame.FrameType
    return frame


def _several_volumes(frames: Sequence[FrameHeader]) -> Refusal | None:
    stacks: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        stacks[text(frame, "ConcatenationUID") or text(frame, "SOPInstanceUID")].add(text(frame, "StackID"))
    most = max(len(found) for found in stacks.values())
    if most > 1:
        return Refusal("several_volumes", f"one of its instances holds {most} stacks of frames", _SEND_ONE)
    for keyword, words in _ONE_OF.items():
        found = {numbers(frame, keyword, 1) for frame in frames}
        if len(found) > 1:
            return Refusal("several_volumes", f"its frames are of {len(found)} different {words}", _SEND_ONE)
    kinds = {tuple(text(frame, "FrameType").upper().split("\\")[_CONTRAST_VALUE:]) for frame in frames}
    if len(kinds) > 1:
        reason = f"its frames show {len(kinds)} different quantities, as several energies do"
        return Refusal("several_volumes", reason, _SEND_ONE)
    return None


def _no_voxels(frames: Sequence[FrameHeader]) -> Refusal | None:
    for frame in frames:
        technique = text(frame, "VolumeBasedCalculationTechnique").upper()
        properties = text(frame, "VolumetricProperties").upper()
        if technique not in _WHOLE_VOXELS or properties == "DISTORTED":
            told = properties if technique in _WHOLE_VOXELS else technique
            reason = f"{name_of(frame)} is a picture calculated from a volume ({told}), no slice"
            return Refusal("not_a_volume", reason, "Send the axial CT series of the thighs")
    return None


def _parts_missing(frames: Sequence[FrameHeader]) -> Refusal | None:
    """A concatenation is one image in several instances (C.7.6.16.2.2.4)."""
    parts: dict[str, dict[int, int]] = defaultdict(dict)
    for frame in frames:
        place = numbers(frame, "InConcatenationNumber", 1)
        if place is not None:
            total = numbers(frame, "InConcatenationTotalNumber", 1) or (0.0,)
            parts[text(frame, "ConcatenationUID")][int(place[0])] = int(total[0])
    for found in parts.values():
        needed = max(*found, *found.values())
        if len(found) < needed:
            reason = f"it is a multi-frame image in {needed} parts, of which {len(found)} are here"
            return Refusal("missing_slices", reason, "Send the missing parts, or the whole series again")
    return None
