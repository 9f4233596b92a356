"""The section `flags`: what each flag means for a job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.section import Section

FlagPolicy = Literal["note", "warn", "refuse"]


class Flags(Section):
    """What each flag means: note is told in SQL, log and report, warn also on the picture, refuse parks the series."""

    not_supine: FlagPolicy = Field(default="warn", description="Patient did not lie on the back.")
    position_conflict: FlagPolicy = Field(default="note", description="Stated position and geometry disagree.")
    hip_missing: FlagPolicy = Field(default="warn", description="Scan ends below the hip joint.")
    knee_missing: FlagPolicy = Field(default="warn", description="Scan ends above the knee joint.")
    truncated: FlagPolicy = Field(default="note", description="Structures are cut off at the edge of the scan.")
    metal: FlagPolicy = Field(default="warn", description="Metal in the body.")
    shaft_broken: FlagPolicy = Field(default="warn", description="Femoral shaft is in several parts.")
    shaft_angled: FlagPolicy = Field(default="warn", description="Femoral shaft is angled.")
    limb_asymmetry: FlagPolicy = Field(default="warn", description="Femora differ in length.")
    muscle_asymmetry: FlagPolicy = Field(default="warn", description="Muscles of one side are much smaller.")
    noise: FlagPolicy = Field(default="warn", description="Noise is high.")
    low_contrast: FlagPolicy = Field(default="warn", description="Contrast of muscle and fat is low.")
    thick_slices: FlagPolicy = Field(default="warn", description="Slices are thick.")
    contrast_medium: FlagPolicy = Field(default="warn", description="Contrast medium was given.")
    age_outside: FlagPolicy = Field(default="warn", description="Age is outside of the model's population.")
    sharp_kernel: FlagPolicy = Field(default="warn", description="Reconstruction kernel is sharp.")
    field_cut: FlagPolicy = Field(default="warn", description="Field of view cuts the body.")
    height_implausible: FlagPolicy = Field(default="warn", description="Patient's height is implausible.")
    weight_implausible: FlagPolicy = Field(default="warn", description="Patient's weight is implausible.")
    age_conflict: FlagPolicy = Field(default="warn", description="Patient's age and birth date disagree.")
