"""How sharp a reconstruction is, by the name of its kernel: vendor-specific and not coded (PS3.3 C.8.2.1).

The table is ours, put together from what makers say of their kernels and from how users call them. Siemens' guide for
the SOMATOM Sensation calls B10 to B40 kernels for body tissue and B50 to B80 those of higher sharpness; the same
numbers count on in the later families (Br, Bv, Hr, Qr). A name that no row knows is neither soft nor sharp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase


class Sharpness(IntEnum):
    """From the one that is best for muscle and fat to the one that is worst."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


@dataclass(frozen=True)
class KernelRow:
    """One row of the table: whose kernels (a part of Manufacturer (0008,0070), in capitals), which names, how sharp."""

    maker: str
    names: str
    sharpness: Sharpness


def _rows(makers: Sequence[str], soft: str, sharp: str) -> tuple[KernelRow, ...]:
    kinds = ((soft, Sharpness.SOFT), (sharp, Sharpness.SHARP))
    return tuple(KernelRow(maker, names, sharpness) for maker in makers for names, sharpness in kinds)


KERNELS: tuple[KernelRow, ...] = (
    # B30f, I31f, Br40, Qr36, H30s: soft; B60f, Br64, Bl57, Hr68, U70u: sharp. From 45 to 49 it depends on the family.
    *_rows(("SIEMENS",), r"[ABDHIJQSTU][rvfc]?(?:0?\d|[123]\d|4[0-4])[a-z]*", r"[ABDHIJQSTUL][rlvpsufc]?[5-9]\d[a-z]*"),
    *_rows(("GE",), r"(STANDARD|SOFT|STND|STD)(\W.*)?", r"(BONE ?(PLUS)?|LUNG|EDGE( PLUS)?|DETAIL|ULTRA)(\W.*)?"),
    *_rows(("PHILIPS",), r"(A|B|C|UA|UB|UC|XA|XB)", r"(D|E|L|Y[A-E])"),
    # FC01 to FC19 are of the body, FC30 and above of bone, of the inner ear (FC80) and of the lung (FC50).
    *_rows(("TOSHIBA", "CANON"), r"FC[01]\d.*", r"FC[358]\d.*"),
)


@dataclass(frozen=True)
class OwnKernels:
    """Names that a site knows better: globs, whatever the case; they stand over the table."""

    soft: tuple[str, ...] = ()
    sharp: tuple[str, ...] = ()


NO_KERNELS = OwnKernels()


def sharpness_of(maker: str, kernels: Iterable[str], own: OwnKernels = NO_KERNELS) -> Sharpness:
    """How sharp a reconstruction is.

    Args:
        maker: Manufacturer (0008,0070).
        kernels: the values of Convolution Kernel (0018,1210), of which Siemens writes the strength of its iterative
            reconstruction as a second one.
        own: what the site says.

    Returns:
        That of the sharpest name that is known.
    """
    known = [each for name in kernels if (each := _of_name(maker, name.strip(), own)) is not Sharpness.UNKNOWN]
    return max(known, default=Sharpness.UNKNOWN)


def _of_name(maker: str, name: str, own: OwnKernels) -> Sharpness:
    for globs, sharpness in ((own.soft, Sharpness.SOFT), (own.sharp, Sharpness.SHARP)):
        if any(fnmatchcase(name.upper(), glob.upper()) for glob in globs):
            return sharpness
    for row in KERNELS:
        if maker.upper().startswith(row.maker) and re.fullmatch(row.names, name, re.IGNORECASE):
            return row.sharpness
    return Sharpness.UNKNOWN
