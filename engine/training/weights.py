"""Weights to carry away: a safetensors file in half precision, in pieces small enough for any road, and a manifest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save

from engine.training.errors import TrainingError

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
PIECE_BYTES = 15_000_000
_AGAIN = "Fetch it again, or write the pieces anew"


class _Piece(BaseModel):
    """One piece of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str


class _Manifest(BaseModel):
    """What the pieces are, in order, and what they make."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    about: dict[str, Any]
    pieces: tuple[_Piece, ...]


def weights_of(state: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> bytes:
    """A network's weights as safetensors: float16 where they were floating, the rest as it is.

    Args:
        state: the network's state.
        about: goes into the file's metadata.

    Raises:
        TrainingError: a weight is no number, or too great for float16.
    """
    halves = {name: _half(name, weight).contiguous().cpu() for name, weight in state.items()}
    return save(halves, dict(about))


def _half(name: str, weight: torch.Tensor) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    half = weight.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        reason = "it holds what is no number, or too great for float16"
        raise TrainingError(f"weight {name}", reason, "Train on, or keep the checkpoint instead")
    return half


def write_pieces(data: bytes, folder: Path, about: Mapping[str, Any], piece_bytes: int = PIECE_BYTES) -> Path:
    """Write a file in pieces, and last of all the manifest that names them with their SHA-256.

    Args:
        data: the whole file.
        folder: made where it is missing; pieces of an older file in it are removed.
        about: what is told of the file, in the types of JSON.
        piece_bytes: largest size of a piece.

    Returns:
        the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    manifest.unlink(missing_ok=True)  # no manifest ever names pieces of another file
    for old in folder.glob(f"{WEIGHTS}.*"):
        old.unlink()
    pieces = []
    for number in range(max(1, math.ceil(len(data) / piece_bytes))):
        part = data[number * piece_bytes : (number + 1) * piece_bytes]
        name = f"{WEIGHTS}.{number:03d}"
        (folder / name).write_bytes(part)
        pieces.append({"name": name, "sha256": _digest(part)})
    told = {"sha256": _digest(data), "about": dict(about), "pieces": pieces}
    fresh = manifest.with_suffix(".part")
    fresh.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return fresh.replace(manifest)


def join_pieces(folder: Path, target: Path) -> Mapping[str, Any]:
    """Put a file together again and check it; returns what its manifest tells of it.

    Args:
        folder: holds the manifest and all pieces.
        target: the file to write; an older one is replaced once the new one is whole.

    Raises:
        TrainingError: the manifest or a piece is missing or damaged; nothing was written.
    """
    manifest = _read(folder / MANIFEST)
    parts = []
    for piece in manifest.pieces:
        path = folder / Path(piece.name).name
        try:
            part = path.read_bytes()
        except OSError as error:
            raise TrainingError(f"file {path}", f"it cannot be read: {error.strerror}", _AGAIN) from error
        if _digest(part) != piece.sha256:
            raise TrainingError(f"file {path}", "it is not what the manifest says (SHA-256)", _AGAIN)
        parts.append(part)
    data = b"".join(parts)
    if _digest(data) != manifest.sha256:
        raise TrainingError(f"file {folder / MANIFEST}", "its pieces do not make the file that it names", _AGAIN)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + ".part")
    fresh.write_bytes(data)
    fresh.replace(target)
    return manifest.about


def _read(path: Path) -> _Manifest:
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"file {path}", f"it cannot be read: {error.strerror}", _AGAIN) from error
    except ValidationError as error:
        raise TrainingError(f"file {path}", "it is no manifest of weights", _AGAIN) from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
