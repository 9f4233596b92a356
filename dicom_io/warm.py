"""What the first result of a process would otherwise pay for: load it while nobody waits."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.uid import generate_uid

from dicom_io.guard import QUIETLY


def warm_up() -> None:
    """Make highdicom read its tables of the Standard, which it does with the first object that it makes."""
    study, series, instance = (generate_uid() for _ in range(3))
    with QUIETLY:
        hd.sc.SCImage(
            pixel_array=np.zeros((8, 8), dtype=np.uint8),
            photometric_interpretation=hd.PhotometricInterpretationValues.MONOCHROME2,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            patient_orientation=("L", "F"),
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid=instance,
            series_number=1,
            instance_number=1,
            manufacturer="",
        )
