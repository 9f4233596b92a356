"""Slices that a series holds twice: the same pixels at the same place under two UIDs, as of blocks that overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from pydicom.dataset import FileDataset

from dicom_io.attributes import numbers, text
from dicom_io.decode import read_slices
from dicom_io.geometry import SAME_PLACE_MM, Stack
from dicom_io.pixels import Starts


def without_repeats(stack: Stack, starts: Starts) -> Stack:
    """The stack with each slice once.

    Of slices at one place whose Hounsfield units are the same, the one with the lowest Instance Number stays. Where
    slices at one place differ, nothing is left out: that it holds several scans is for `refusal_of` to say.

    Args:
        stack: sorted slices.
        starts: see `read_slices`.

    Raises:
        SeriesParked: `undecodable`, of a slice that lies where another one does.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    kept: list[int] = []
    for group in _groups(stack):
        if len(group) > 1 and not _are_one([stack.headers[index] for index in group], starts):
            return stack
        kept.append(min(group, key=lambda index: _rank(stack.headers[index])))
    if len(kept) == len(stack.headers):
        return stack
    return replace(stack, headers=tuple(stack.headers[index] for index in kept), positions=stack.positions[kept])


def _groups(stack: Stack) -> list[list[int]]:
    """The slices by their places."""
    groups = [[0]]
    for before, index in pairwise(range(len(stack.headers))):
        if np.linalg.norm(stack.positions[index] - stack.positions[before]) < SAME_PLACE_MM:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _are_one(headers: Sequence[FileDataset], starts: Starts) -> bool:
    shape = (1, int(headers[0].Rows), int(headers[0].Columns))
    first = read_slices(headers[:1], shape, 1, starts)
    return all(np.array_equal(first, read_slices([header], shape, 1, starts)) for header in headers[1:])


def _rank(header: FileDataset) -> tuple[float, str]:
    number = numbers(header, "InstanceNumber", 1)
    return (math.inf if number is None else number[0], text(header, "SOPInstanceUID"))
