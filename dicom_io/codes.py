"""Coded concepts: what structures, sides and measurements are called in DICOM.

The codes of the structures come with their label set (`engine.labels`). The side is a modifier of its own (PS3.16 CID
244), never part of the structure's code. Codes of the Standard's own context groups come from pydicom's dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io.errors import DicomIoError
from engine.flags import Policy
from engine.labels import Side, Structure

ANATOMICAL_STRUCTURE = codes.cid7150.AnatomicalStructure
LATERALITY: Mapping[Side, Code] = MappingProxyType({Side.RIGHT: codes.cid244.Right, Side.LEFT: codes.cid244.Left})

VOLUME = codes.cid7469.Volume
ATTENUATION = codes.DCM.AttenuationCoefficient
MEAN = codes.cid7464.Mean
STANDARD_DEVIATION = codes.cid7464.StandardDeviation
CUBIC_CENTIMETRE = codes.UCUM.CubicCentimeter
HOUNSFIELD_UNIT = codes.UCUM.HounsfieldUnit

CT_UNSPECIFIED_REGION = codes.cid100.CTUnspecifiedBodyRegion
ARTIFICIAL_INTELLIGENCE = codes.cid7162.ArtificialIntelligence
DEVICE = codes.cid270.Device
PROCESSING_EQUIPMENT = codes.cid7005.ProcessingEquipment
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500; not in the dictionary
YES = codes.cid230.Yes
NO = codes.cid230.No

PRIVATE_SCHEME = "99VASTUS"
TRUNCATED = Code("truncated", PRIVATE_SCHEME, "Truncated at the edge of the scan")
TRAINING = Code("training", PRIVATE_SCHEME, "What the model was trained on")
INTENDED_USE = Code("intended_use", PRIVATE_SCHEME, "Intended use")
FITNESS_FLAG = Code("fitness_flag", PRIVATE_SCHEME, "Limits the fitness for measurement")
FLAG_POLICY = Code("flag_policy", PRIVATE_SCHEME, "What the flag means for the results")
FLAG_WORDS = Code("flag_words", PRIVATE_SCHEME, "The flag in words")
FLAG_NUMBER = Code("flag_number", PRIVATE_SCHEME, "The flag's number")
POLICY_CODES: Mapping[Policy, Code] = MappingProxyType(
    {
        Policy.NOTE: Code("note", PRIVATE_SCHEME, "Note"),
        Policy.WARN: Code("warn", PRIVATE_SCHEME, "Warning"),
        Policy.REFUSE: Code("refuse", PRIVATE_SCHEME, "Refusal"),
    }
)
FLAG_UNITS: Mapping[str, Code] = MappingProxyType(
    {
        "1": codes.UCUM.NoUnits,
        "mm": codes.UCUM.Millimeter,
        "ml": Code("ml", "UCUM", "ml"),
        "deg": codes.UCUM.Degree,
        "[hnsf'U]": HOUNSFIELD_UNIT,
        "a": codes.UCUM.Year,
        "m": codes.UCUM.Meter,
        "kg": Code("kg", "UCUM", "kg"),
    }
)
"""The units of the flags' numbers, by their UCUM codes."""
ATTRIBUTION = Code("attribution", PRIVATE_SCHEME, "Attribution of the training data")


@dataclass(frozen=True)
class StructureCodes:
    """How one structure is coded.

    Attributes:
        primary: the code by which it goes.
        equivalents: codes of other schemes with the same meaning (PS3.3 8.8, Equivalent Code Sequence).
        note: what a reader must know where the code does not say it all; mostly empty.
    """

    primary: Code
    equivalents: tuple[Code, ...]
    note: str

    def concept(self, side: Side | None = None) -> hd.sr.CodedConcept:
        """The structure as an item of a code sequence.

        Args:
            side: adds the side as Segmented Property Type Modifier (PS3.3 C.8.20.4), for the SEG only; None for a
                structure that has none.
        """
        item = hd.sr.CodedConcept.from_code(self.primary)
        if self.equivalents:
            item.EquivalentCodeSequence = [hd.sr.CodedConcept.from_code(code) for code in self.equivalents]
        if side is not None:
            item.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(LATERALITY[side])]
        return item


def laterality(side: Side | None) -> Code | None:
    """The code of a side (PS3.16 CID 244); None for a structure that has none."""
    return None if side is None else LATERALITY[side]


def structure_codes(structure: Structure) -> StructureCodes:
    """The codes of a structure.

    Raises:
        DicomIoError: the structure has no code; a result without a code would be of no use to its receiver.
    """
    if not structure.codes:
        raise DicomIoError(f"structure {structure.key}", "it has no code", "Add it to the table of its label set")
    primary, *equivalents = (Code(code.value, code.scheme, code.meaning) for code in structure.codes)
    return StructureCodes(primary, tuple(equivalents), structure.note)
