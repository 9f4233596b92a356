"""Image files: CT volumes and label volumes as NIfTI or NRRD, the formats of Slicer, ITK-SNAP and MONAI.

NIfTI goes through nibabel, which refuses a file cut short and keeps NaN and sheared axes; ITK fills, zeroes and
straightens without a word (InsightSoftwareConsortium/ITK#6575, #6683). NRRD goes through ITK. Both are turned to the
patient coordinates of DICOM (LPS); a file that does not say where its voxels lie is refused.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation uses
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from engine.errors import VastusError
from engine.segmentation import Segmentation
from engine.volume import FloatArray, Grid, Volume

Array = NDArray[Any]
Labels = NDArray[np.uint8]
LabelReader = Callable[[Path], tuple[Labels, Grid]]
"""Reads one label volume: uint8, axes [slice, row, column], and its grid."""

SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii")
LPS = "left-posterior-superior"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MILLIMETRES = ("mm", "unknown")  # what NIfTI's header may say; without a unit mm is its custom
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)  # what nibabel meets in a bad file


class ImageError(VastusError):
    """An image file is missing, damaged, or not what it should be."""


def case_name(path: Path) -> str | None:
    """The file's name without its suffix, as `case7` of `case7.nii.gz`; None where it is no image file."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return None


def image_files(folder: Path) -> dict[str, Path]:
    """The image files that lie directly in a folder, by case name, sorted; hidden files and all others are passed over.

    Raises:
        ImageError: the folder cannot be listed, holds no image file, or two of one name.
    """
    remedy = f"Name the files CASE{' or CASE'.join(SUFFIXES)}, one a case"
    found = by_case(folder, lambda path: case_name(path) if path.is_file() else None, ImageError, remedy)
    if not found:
        raise ImageError(f"folder {folder}", "it holds no NIfTI or NRRD file", remedy)
    return found


def by_case(
    folder: Path, name_of: Callable[[Path], str | None], error: type[VastusError], remedy: str
) -> dict[str, Path]:
    """What lies directly in a folder, by case name, sorted; what is hidden is passed over.

    Args:
        folder: the folder.
        name_of: the case's name, or None for what is to be passed over.
        error: the kind of error that is raised where the folder cannot be listed, or two things are of one case.
        remedy: what is to be done then.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as fault:
        raise error(f"folder {folder}", f"it cannot be listed: {fault.strerror}", remedy) from fault
    found: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name is None:
            continue
        if name in found:
            raise error(f"file {path}", f"{found[name].name} beside it is of the same case", remedy)
        found[name] = path
    return found


def read_labels(path: Path) -> tuple[Labels, Grid]:
    """Read a label volume; any number type, as long as the values are whole.

    Args:
        path: a NIfTI or NRRD file.

    Returns:
        uint8 labels, axes [slice, row, column], and their grid in LPS mm.

    Raises:
        ImageError: the file is missing, damaged, not one volume, without a place in the patient, or holds values that
            are no labels.
    """
    values, grid = _read(path)
    if values.dtype == np.uint8:
        return np.array(values), grid
    low, high = values.min(), values.max()
    # NaN fails both comparisons.
    if not (low >= 0 and high <= 255):
        raise ImageError(f"file {path}", f"its values reach from {low} to {high}", "Give labels between 0 and 255")
    labels = values.astype(np.uint8)
    if not np.array_equal(labels, values):
        raise ImageError(f"file {path}", "some of its values are not whole", "Give labels, not an image or a map")
    return labels, grid


def read_image(path: Path) -> Volume:
    """Read a CT volume; fractions of a Hounsfield unit are rounded.

    Args:
        path: a NIfTI or NRRD file in HU.

    Raises:
        ImageError: the file is missing, damaged, not one volume, without a place in the patient, or holds no HU.
    """
    values, grid = _read(path)
    limits = np.iinfo(np.int16)
    low, high = values.min(), values.max()
    if not (low >= limits.min and high <= limits.max):
        raise ImageError(f"file {path}", f"its values reach from {low} to {high}", "Give a CT in Hounsfield units")
    whole = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
    return Volume(whole.astype(np.int16), grid)


def write_labels(path: Path, segmentation: Segmentation) -> None:
    """Write the labels of a segmentation, compressed; an older file of that name is replaced once the new one is whole.

    Args:
        path: ends in one of `SUFFIXES`; the folder must exist.
        segmentation: its numbers are written as they are, `Segment.number`.

    Raises:
        ImageError: the name ends like no known format, or the disk refused the file.
        VolumeError: its planes lie unevenly, which these formats cannot say.
    """
    _write(path, segmentation.labels, segmentation.grid)


def write_image(path: Path, volume: Volume) -> None:
    """Write a CT volume in HU, compressed; an older file of that name is replaced once the new one is whole.

    Args:
        path: ends in one of `SUFFIXES`; the folder must exist.
        volume: the scan.

    Raises:
        ImageError: the name ends like no known format, or the disk refused the file.
        VolumeError: its planes lie unevenly, which these formats cannot say.
    """
    _write(path, volume.hu, volume.grid)


def _read(path: Path) -> tuple[Array, Grid]:
    """The values as they are, axes [slice, row, column], and the grid in LPS mm."""
    if not path.is_file():
        raise ImageError(f"file {path}", "there is no such file", "Check the name")
    return _read_nrrd(path) if _suffix(path).endswith(".nrrd") else _read_nifti(path)


def _read_nifti(path: Path) -> tuple[Array, Grid]:
    try:
        image = nibabel.load(path, mmap=False)
        if not isinstance(image, nibabel.Nifti1Image):  # NIfTI-2 is one too
            raise _unreadable(path, "it is no NIfTI file")
        _refuse_shape(path, image.shape, 1)
        header = image.header
        placed = header["qform_code"] != 0 or header["sform_code"] != 0
        if not placed or header.get_xyzt_units()[0] not in MILLIMETRES:
            raise _homeless(path, "qform and sform, in mm")
        values = np.asanyarray(image.dataobj).T
    except DAMAGE as error:
        raise _unreadable(path, str(error)) from error
    return values, _grid(values.shape, RAS_TO_LPS @ image.affine)


def _read_nrrd(path: Path) -> tuple[Array, Grid]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _refuse_shape(path, reader.GetSize(), reader.GetNumberOfComponents())
        if not reader.HasMetaDataKey("NRRD_space") or reader.GetMetaData("NRRD_space") != LPS:  # ITK turns RAS to LPS
            raise _homeless(path, "space")
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = sitk.GetArrayFromImage(image)
    return values, _grid(values.shape, affine)


def _unreadable(path: Path, words: str) -> ImageError:
    last = (words.strip() or "it is damaged").splitlines()[-1]
    return ImageError(f"file {path}", f"it cannot be read: {last}", "Write it again from its source")


def _homeless(path: Path, field: str) -> ImageError:
    reason = f"it does not say where its voxels lie in the patient ({field})"
    return ImageError(f"file {path}", reason, "Save it with its orientation, origin and spacing")


def _refuse_shape(path: Path, shape: tuple[int, ...], values: int) -> None:
    if len(shape) != 3 or values != 1:
        reason = f"it is not one volume: {shape} voxels with {values} values each"
        raise ImageError(f"file {path}", reason, "Save one label or one HU for each voxel of one volume")


def _grid(shape: tuple[int, ...], affine: FloatArray) -> Grid:
    """The files count (x, y, z), our arrays [slice, row, column]: the columns of the affine turn round."""
    return Grid((shape[0], shape[1], shape[2]), affine[:, [2, 1, 0, 3]])


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise ImageError(f"file {path}", "its name ends like no format that is known", f"Use {', '.join(SUFFIXES)}")


def _write(path: Path, array: Array, grid: Grid) -> None:
    suffix = _suffix(path)
    grid.require_even(f"file {path}")  # these formats know one distance
    write = _write_nrrd if suffix.endswith(".nrrd") else _write_nifti
    part = path.with_name(f".{uuid.uuid4().hex}.part{suffix}")
    try:
        write(part, array, grid)
        part.replace(path)
    except (RuntimeError, OSError) as error:
        reason = f"it cannot be written: {str(error).strip().splitlines()[-1]}"
        raise ImageError(f"file {path}", reason, "Check the free space and the rights of its folder") from error
    finally:
        part.unlink(missing_ok=True)


def _write_nifti(part: Path, array: Array, grid: Grid) -> None:
    affine = RAS_TO_LPS @ grid.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(array.T, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")  # without the shear, which only sform can keep
    nibabel.save(image, part)


def _write_nrrd(part: Path, array: Array, grid: Grid) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.affine[:3, 3].tolist())
    image.SetDirection((grid.affine[:3, 2::-1] / np.array(grid.spacing_mm[::-1])).ravel().tolist())
    sitk.WriteImage(image, str(part), True)
