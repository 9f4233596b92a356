"""The section `selection`: which series of a study is segmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.section import Section

Glob = Annotated[str, Field(min_length=1, max_length=64)]


class Selection(Section):
    """Which series of a study is segmented; docs/selection.md explains. Patterns are globs (* and ?), in any case."""

    modalities: tuple[Glob, ...] = Field(default=("CT",), description="Modalities that are taken.")
    body_parts: tuple[Glob, ...] = Field(
        default=(), description="Patterns of BodyPartExamined that are taken, and those without one; [] is any."
    )
    descriptions: tuple[Glob, ...] = Field(
        default=(), description="Patterns of series description or protocol, one of which must match; [] is any."
    )
    not_descriptions: tuple[Glob, ...] = Field(
        default=(
            "*scout*",
            "*topogram*",
            "*localizer*",
            "*surview*",
            "*scanogram*",
            "*dose report*",
            "*dose info*",
            "*patient protocol*",
            "*monitoring*",
            "*bolus track*",
            "*smartprep*",
            "* MIP*",
            "MIP*",
        ),
        description="Patterns of series description or protocol that are refused.",
    )
    not_image_types: tuple[Glob, ...] = Field(
        default=("LOCALIZER", "MIP*", "MINIP*", "MPR*", "*PROJECTION IMAGE*", "*VRT*", "*REFORMATTED*", "SSD*"),
        description="Patterns of values of Image Type that are refused.",
    )
    max_oblique_deg: float = Field(
        default=30.0, ge=0, le=90, description="Greatest angle between a series' slices and axial ones."
    )
    max_spacing_mm: float = Field(default=10.0, gt=0, description="Greatest distance of a series' slices.")
    contrast: Literal["any", "prefer_none", "only_none"] = Field(
        default="any", description="Scans with contrast medium: taken as any, only where there is none without, never."
    )
    prefer: tuple[Literal["whole", "soft", "original", "thin"], ...] = Field(
        default=("whole", "soft", "original", "thin"),
        description="What decides among series of one scan, the weightiest first: whole, soft, original, thin.",
    )
    thin_floor_mm: float = Field(default=1.0, gt=0, description="Slices nearer to each other than this are no better.")
    soft_kernels: tuple[Glob, ...] = Field(
        default=(), description="Patterns of further kernels that are soft; they stand over the built-in table."
    )
    sharp_kernels: tuple[Glob, ...] = Field(
        default=(), description="Patterns of further kernels that are sharp; they stand over the built-in table."
    )
    wait_s: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="A study is decided on when nothing of it has arrived for this long; 0 is the quiet period.",
    )
    longest_wait_s: float = Field(
        default=300.0, ge=0, le=86400, description="No complete series waits longer for others of its study than this."
    )
    late_better: Literal["segment", "skip"] = Field(
        default="segment",
        description="A better series that arrives after another one of its scan was taken: segment it too, or skip it.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Selection:
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError("a preference is named twice in prefer. Name each once.")
        return self
