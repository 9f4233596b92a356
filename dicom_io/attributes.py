"""Attributes of a header that nobody vouches for, as numbers and as text, and the name that a person finds it by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

from dicom_io.guard import PARSER_ERRORS

H = TypeVar("H", bound=Dataset)
K = TypeVar("K")
# The slices of a series say the same nearly everywhere, and pydicom takes its time to convert an element: what it made
# of the same bytes is kept. Only of VRs whose bytes alone say what they mean, in no character set.
_PLAIN = frozenset({"CS", "DA", "DS", "FD", "IS", "TM", "UI", "US"})
_KEPT = 4096


class FrameHeader(FileDataset):
    """The header of one frame of a multi-frame instance, with the flat attributes of a single image.

    Attributes:
        frame_number: in its instance, from 1.
        frame_count: frames of the instance.
        image_name: how a person finds the instance.
    """

    frame_number: int
    frame_count: int
    image_name: str


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of a numeric attribute, or None unless there are exactly so many finite ones."""
    raw = _raw(header, keyword)
    values = _as_numbers(header.get, keyword) if raw is None else _numbers_of(raw)
    return values if values is not None and len(values) == count else None


def number(header: Dataset, keyword: str) -> float:
    """The one value of a numeric attribute.

    Raises:
        ValueError: it has none, several, or one that is not finite.
    """
    found = numbers(header, keyword, 1)
    if found is None:
        raise ValueError(f"no {keyword}")
    return found[0]


def text(header: Dataset, keyword: str) -> str:
    """The value of an attribute as text, several values joined by a backslash; empty where it is absent."""
    raw = _raw(header, keyword)
    return _as_text(header.get, keyword) if raw is None else _text_of(raw)


def instances_of(headers: Sequence[H]) -> list[H]:
    """One header of each instance, in their order: the frames of an instance are one image to refer to."""
    found: dict[str, H] = {}
    for header in headers:
        found.setdefault(str(header.SOPInstanceUID), header)
    return list(found.values())


def name_of(header: Dataset) -> str:
    """How a person finds this image: by its number in the series, else by its UID; a frame also by its own number."""
    if isinstance(header, FrameHeader):
        return f"frame {header.frame_number} of {header.image_name}"
    number = text(header, "InstanceNumber")
    return f"image {number}" if number else f"instance {text(header, 'SOPInstanceUID')}"


def _raw(header: Dataset, keyword: str) -> RawDataElement | None:
    """The element as it lies in the file, less its place there; None where it is converted, or not plain."""
    tag = _tag(keyword)
    if tag not in header:
        return None
    try:
        element = header.get_item(tag)
    except PARSER_ERRORS:  # an element without value is converted at once, whatever its VR is
        return None
    if not isinstance(element, RawDataElement) or element.VR not in _PLAIN or not isinstance(element.value, bytes):
        return None
    return element._replace(value_tell=0)


_tag = lru_cache(maxsize=256)(Tag)


@lru_cache(maxsize=_KEPT)
def _numbers_of(raw: RawDataElement) -> tuple[float, ...] | None:
    return _as_numbers(_converted, raw)


@lru_cache(maxsize=_KEPT)
def _text_of(raw: RawDataElement) -> str:
    return _as_text(_converted, raw)


def _converted(raw: RawDataElement) -> object:
    return convert_raw_data_element(raw).value


def _as_numbers(get: Callable[[K], object], key: K) -> tuple[float, ...] | None:
    try:
        value = get(key)
        values = () if value is None else tuple(float(item) for item in np.atleast_1d(cast(Any, value)))
    except PARSER_ERRORS:  # a decimal string that holds no decimal
        return None
    return values if all(math.isfinite(item) for item in values) else None


def _as_text(get: Callable[[K], object], key: K) -> str:
    try:
        value = get(key)
    except PARSER_ERRORS:
        return ""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return "\\".join(map(str, value)) if isinstance(value, Iterable) else str(value)
