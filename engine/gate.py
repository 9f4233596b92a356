"""The gate: a backend is held against the network's own answers on windows that are stored in the package.

The answers are torch's logits in float32, at voxels on a lattice, so that the file stays small. A backend in a coarser
precision turns near ties over and is none the worse for it; so it is judged by the error of the logits, by the class
where the network itself is sure, and by the overlap of every class. The limits are the package's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine import flat
from engine.backends import Session
from engine.contract import GateLimits
from engine.errors import BackendError, ModelError
from engine.package import ModelPackage

STEP = 5
"""Distance of the lattice's voxels; odd, so that voxels in every place of a block of two are among them."""
SURE = 0.25
"""A class is sure where its logit is this much above the next, in standard deviations of all logits."""
LEAST_SURE = 0.05
LEAST_VOXELS = 20
"""Of the lattice, for a class whose overlap is asked: of fewer, one voxel says too much."""
MOST_WINDOWS = 8
"""More are not asked: a start must not take long."""
GREY_LEVELS = 255

Floats = NDArray[np.float32]
Classes = NDArray[np.int64]


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
        dice: Dice coefficient of each class that has `LEAST_VOXELS` of the lattice, by its value; where the network is
            not sure, a near tie that falls otherwise counts as right.
        window_s: seconds for one window, the first batch left out where there are several.
    """

    error: float
    same_class: float
    sure: float
    dice: Mapping[int, float]
    window_s: float

    @property
    def least_dice(self) -> float:
        """The worst class's; NaN where no class has voxels enough."""
        return min(self.dice.values(), default=math.nan)


def ask(network: torch.nn.Module, images: Floats) -> StoredWindows:
    """What a network says of windows.

    Args:
        network: the reference, in float32 on the CPU; one of two dimensions gets windows that are one slice deep as
            slices.
        images: its input, float32 [window, 1, z, y, x] in 0..1; rounded to 255 grey levels first.
    """
    grey = np.asarray(np.rint(images * GREY_LEVELS) / GREY_LEVELS, dtype=np.float32)
    network.eval()
    with torch.inference_mode():
        logits = [_whole(network, torch.from_numpy(image[None])).numpy()[0] for image in grey]
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
    asked = _order(len(windows.images[:MOST_WINDOWS]), session.batch)
    found, window_s = _answers(session, windows.images, asked)
    told = windows.logits[asked]
    difference = found.astype(np.float64) - told
    spread = float(told.std(dtype=np.float64))
    highest = np.sort(told, axis=1)[:, -2:]
    sure = highest[:, 1] - highest[:, 0] > SURE * spread
    if not sure.any():
        return Agreement(math.inf, 0.0, 0.0, {}, window_s)
    classes, wanted = found.argmax(axis=1), told.argmax(axis=1)
    error = float(np.sqrt(np.mean(difference**2))) / spread
    same = float((classes[sure] == wanted[sure]).mean())
    return Agreement(error, same, float(sure.mean()), _dice(np.where(sure, classes, wanted), wanted), window_s)


def check(session: Session, windows: StoredWindows, limits: GateLimits | None = None) -> Agreement:
    """Refuse a backend that does not answer as the network does.

    Args:
        session: the backend, with the network loaded.
        windows: the windows, and the network's own answers.
        limits: how far the answers may lie from these; the usual ones where it is None.

    Raises:
        BackendError: they lie further, the windows cannot tell, or its precision has no limit.
    """
    limits = limits or GateLimits()
    thing = f"backend {session.name} in {session.precision}"
    if session.precision not in limits.largest_error:
        known = ", ".join(limits.largest_error)
        raise BackendError(thing, "no limit is known for this precision", f"Use one of {known}")
    found = compare(session, windows)
    if wrong := tuple(faults(found, limits, session.precision)):
        reason = f"it answers otherwise than the network: {', '.join(wrong)}"
        raise BackendError(thing, reason, "Choose another backend, and report this with the version of its library")
    return found


def admit(session: Session, package: ModelPackage) -> Agreement | None:
    """Hold a backend against the windows of its package before it serves.

    Returns:
        How it answers; None where the package says that no backend is to be held against anything.

    Raises:
        BackendError: it answers otherwise than the network, or the package has no windows and does not say so.
        ModelError: the windows are damaged, or another network's.
    """
    if package.limits is None:
        return None
    return check(session, windows_of(package), package.limits)


def windows_of(package: ModelPackage) -> StoredWindows:
    """The windows that a package stores.

    Raises:
        BackendError: it stores none, so that no backend can be held against anything.
        ModelError: they are damaged, or another network's.
    """
    if package.windows is None:
        remedy = "Take a package with stored windows, or one that says by its gate 'none' that nothing is checked"
        raise BackendError(f"model {package.name}", "it has no windows to hold a backend against", remedy)
    windows = stored(package.windows)
    lattice = tuple(len(range(*_every(size).indices(size))) for size in package.preprocessing.window)
    expected = ((1, *package.preprocessing.window), (package.label_set.class_count, *lattice))
    count = len(windows.images)
    if (windows.images.shape[1:], windows.logits.shape[1:]) != expected or not count or len(windows.logits) != count:
        reason = "its windows or answers have not the shape of the package's"
        raise ModelError(f"file {package.windows}", reason, "Store the windows anew")
    return windows


def faults(found: Agreement, limits: GateLimits, precision: str) -> Iterator[str]:
    """What is beyond its limit, with the figures; a figure that is no number is beyond every limit.

    Args:
        found: how a backend answers.
        limits: how far the answers may lie from the network's own.
        precision: what the backend computes in, one that has a limit.
    """
    if found.sure < LEAST_SURE:
        yield f"only {found.sure:.1%} of the voxels of the stored windows have a sure class, so they prove nothing"
        return
    if not found.dice:
        yield f"no class has {LEAST_VOXELS} voxels in the stored windows, so they prove nothing"
        return
    error = limits.largest_error[precision]
    if not found.error <= error:
        yield f"error of the logits {found.error:.2g}, largest {error:g}"
    if not found.same_class >= limits.least_agreement:
        yield f"same class in {found.same_class:.2%} of the voxels that are sure, least {limits.least_agreement:.2%}"
    if not found.least_dice >= limits.least_dice:
        worst = min(found.dice, key=found.dice.__getitem__)
        yield f"Dice {found.least_dice:.3f} of class {worst}, least {limits.least_dice:g}"


def _dice(found: Classes, wanted: Classes) -> dict[int, float]:
    """Dice coefficient of each class with voxels enough, background left out."""
    counts = np.bincount(wanted.ravel())
    return {
        int(value): float(2 * ((found == value) & (wanted == value)).sum() / ((found == value).sum() + counts[value]))
        for value in np.flatnonzero(counts >= LEAST_VOXELS)
        if value > 0
    }


def _order(count: int, batch: int) -> list[int]:
    """Which window is asked when: whole batches, for so the session will serve, with every window in them."""
    whole = -(-count // batch) * batch
    return [place % count for place in range(whole)]


def _answers(session: Session, images: Floats, asked: list[int]) -> tuple[Floats, float]:
    """Logits on the lattice [asked, class, z, y, x], and the seconds for one window."""
    answers: list[Floats] = []
    seconds: list[float] = []
    for start in range(0, len(asked), session.batch):
        batch = torch.from_numpy(images[asked[start : start + session.batch]]).to(session.device)
        began = time.perf_counter()
        logits = session.run(batch).float().cpu().numpy()
        seconds.append((time.perf_counter() - began) / len(batch))
        answers.extend(_on_lattice(each) for each in logits)
    return np.stack(answers), min(seconds[1:] or seconds)


def _whole(network: torch.nn.Module, window: torch.Tensor) -> torch.Tensor:
    """Logits [1, class, z, y, x] of a window [1, 1, z, y, x] from a network of three or two dimensions."""
    if window.shape[2] > 1:
        return torch.as_tensor(network(window))
    return flat.deepened(torch.as_tensor(network(flat.flattened(window))))


def _every(size: int) -> slice:
    """The lattice along an axis of `size` voxels."""
    return slice(min(STEP, size) // 2, None, STEP)


def _on_lattice(logits: Floats) -> Floats:
    """Every `STEP`th voxel along each axis, from [class, z, y, x]."""
    _, *sizes = logits.shape
    return np.array(logits[(slice(None), *map(_every, sizes))], dtype=np.float32)
