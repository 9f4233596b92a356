"""The gate: a backend is held against the network's own answers on windows that are stored in the package.

The answers are torch's logits in float32, at voxels on a lattice, so that the file stays small. A backend in a coarser
precision turns near ties over and is none the worse for it; so it is judged by the error of the logits, and by the
class only where the network itself is sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.backends import Session
from engine.errors import BackendError, ModelError

STEP = 6
"""Distance of the lattice's voxels."""
SURE = 0.25
"""A class is sure where its logit is this much above the next, in standard deviations of all logits."""
LEAST_AGREEMENT = 0.999
LARGEST_ERROR: Mapping[str, float] = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.05}
"""Root mean square error of the logits over their standard deviation, by the precision of the backend."""
LEAST_SURE = 0.05
GREY_LEVELS = 255

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredWindows:
    """Windows, and what the network says of them.

    Attributes:
        images: the network's input, float32 [window, 1, z, y, x], of 255 grey levels in 0..1.
        logits: float32 [window, class, z, y, x], of every `STEP`th voxel.
    """

    images: Floats
    logits: Floats


@dataclass(frozen=True)
class Agreement:
    """How a backend answers.

    Attributes:
        error: root mean square error of the logits over their standard deviation.
        same_class: share of the voxels where the network is sure that get the same class.
        sure: share of all voxels that those are.
    """

    error: float
    same_class: float
    sure: float


def ask(network: torch.nn.Module, images: Floats) -> StoredWindows:
    """What a network says of windows.

    Args:
        network: the reference, in float32 on the CPU.
        images: its input, float32 [window, 1, z, y, x] in 0..1; rounded to 255 grey levels first.
    """
    grey = np.asarray(np.rint(images * GREY_LEVELS) / GREY_LEVELS, dtype=np.float32)
    network.eval()
    with torch.inference_mode():
        logits = [network(torch.from_numpy(image[None])).numpy()[0] for image in grey]
    return StoredWindows(grey, np.stack([_on_lattice(each) for each in logits]))


def store(windows: StoredWindows, path: Path) -> None:
    """Keep windows and answers: a byte a voxel, and float16 logits."""
    images = np.rint(windows.images * GREY_LEVELS).astype(np.uint8)
    part = path.with_suffix(".part")
    save_file({"images": images, "logits": windows.logits.astype(np.float16)}, part)
    part.replace(path)


def stored(path: Path) -> StoredWindows:
    """Read windows and answers.

    Raises:
        ModelError: the file is missing, damaged, or something else.
    """
    try:
        kept = load_file(path)
        images, logits = kept["images"], kept["logits"]
    except (OSError, KeyError, SafetensorError) as error:
        reason = f"it holds no windows: {error}"
        raise ModelError(f"file {path}", reason, "Copy the whole package again") from error
    return StoredWindows((images / np.float32(GREY_LEVELS)).astype(np.float32), logits.astype(np.float32))


def compare(session: Session, windows: StoredWindows) -> Agreement:
    """Let a backend answer the windows, and compare.

    Raises:
        BackendError: the runtime failed.
    """
    found = np.stack([_on_lattice(_answer(session, image)) for image in windows.images])
    difference = found.astype(np.float64) - windows.logits
    spread = float(windows.logits.std(dtype=np.float64))
    highest = np.sort(windows.logits, axis=1)[:, -2:]
    sure = highest[:, 1] - highest[:, 0] > SURE * spread
    if not sure.any():
        return Agreement(math.inf, 0.0, 0.0)
    same = found.argmax(axis=1)[sure] == windows.logits.argmax(axis=1)[sure]
    return Agreement(float(np.sqrt(np.mean(difference**2))) / spread, float(same.mean()), float(sure.mean()))


def check(session: Session, windows: StoredWindows) -> Agreement:
    """Refuse a backend that does not answer as the network does.

    Raises:
        BackendError: it does not, the windows cannot tell, or its precision has no limit.
    """
    found = compare(session, windows)
    thing = f"backend {session.name} in {session.precision}"
    limit = LARGEST_ERROR.get(session.precision)
    if limit is None:
        raise BackendError(thing, "no limit is known for this precision", f"Use one of {', '.join(LARGEST_ERROR)}")
    if found.sure < LEAST_SURE:
        reason = f"only {found.sure:.1%} of the voxels of the stored windows have a sure class, so they prove nothing"
        raise BackendError(thing, reason, "Store windows that show the thigh, of a network that is trained")
    if not (found.error <= limit and found.same_class >= LEAST_AGREEMENT):
        reason = (
            f"it answers otherwise than the network: error of the logits {found.error:.2g} of {limit:g}, "
            f"same class in {found.same_class:.2%} of the voxels that are sure"
        )
        raise BackendError(thing, reason, "Choose another backend, and report this with the version of its library")
    return found


def _answer(session: Session, image: Floats) -> Floats:
    """Logits [class, z, y, x] of one window [1, z, y, x]."""
    logits = session.run(torch.from_numpy(image[None]).to(session.device))
    return logits[0].float().cpu().numpy()


def _on_lattice(logits: Floats) -> Floats:
    """Every `STEP`th voxel along each axis, from [class, z, y, x]."""
    return np.array(logits[:, STEP // 2 :: STEP, STEP // 2 :: STEP, STEP // 2 :: STEP], dtype=np.float32)
