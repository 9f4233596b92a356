"""Windows over the network's grid: where they lie, how their logits are blended, and which class wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.accumulator import Accumulator, Box
from engine.errors import BackendError
from engine.workspace import Workspace

Run = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
Triple = tuple[int, int, int]

SIGMA_FRACTION = 0.125  # of the window's size, as MONAI's sliding window has it
LEAST_WEIGHT = 1e-3  # a voxel seen by a corner alone still gets a class
CACHED_VOXELS = 1 << 18  # decided at a time on a CPU: their best logits so far stay in its second cache


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows of one scan lie.

    Attributes:
        window: voxels of one window, axes (z, y, x).
        starts: first voxel of the windows along each axis, ascending; every combination is one window.
        shape: voxels of the image, padded where it is smaller than a window.
    """

    window: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    shape: Triple

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    @property
    def overlaps(self) -> tuple[Mapping[int, int], ...]:
        """For each axis and each start, how many voxels the window before it reaches into it; 0 for the first."""
        befores = ((starts[0] - size, *starts) for starts, size in zip(self.starts, self.window, strict=True))
        return tuple(
            {start: max(0, before + size - start) for before, start in pairwise(each)}
            for each, size in zip(befores, self.window, strict=True)
        )

    def box(self, start: Triple) -> Box:
        """The voxels of the window that begins at `start`."""
        z, y, x = (slice(first, first + size) for first, size in zip(start, self.window, strict=True))
        return z, y, x


@dataclass(frozen=True, eq=False)
class Sweep:
    """A network's way over an image.

    Attributes:
        image: the network's input, float32 [z, y, x], on the network's device.
        run: the network: float32 [B, 1, *window] to logits, float32 or float16 [B, C, *window].
        plan: the windows over `image`.
        progress: called with the windows done and their number.
        batch: most windows that the network gets at a time.
        inside: bool [z, y, x] beside `image`: the voxels that matter; windows that see none of them, and none next to
            them, are left out. None: all matter.
        workspace: where its buffers stay for the next scan.
    """

    image: torch.Tensor
    run: Run
    plan: WindowPlan
    progress: Progress
    batch: int = 1
    inside: torch.Tensor | None = None
    workspace: Workspace = field(default_factory=Workspace)


@dataclass(frozen=True, eq=False)
class Finished:
    """Planes of an image that no further window sees; valid until the next are asked for.

    Attributes:
        start: the lowest of them.
        stop: the one above the highest.
        blend: holds their logits, and those of the plane below the lowest.
    """

    start: int
    stop: int
    blend: Accumulator


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First voxels of the fewest windows that cover `length` voxels with at least `overlap`, spread evenly.

    Args:
        length: voxels to cover.
        window: voxels of one window.
        overlap: least common part of neighbours, a fraction of a window in 0..1 (1 excluded).
    """
    room = max(0, length - window)
    longest_step = max(1, int(window * (1.0 - overlap)))
    steps = -(-room // longest_step)
    return tuple(room * step // steps for step in range(steps + 1)) if steps else (0,)


def plan_windows(shape: Triple, window: Triple, overlap: float) -> WindowPlan:
    """The windows over an image of `shape`, axes (z, y, x)."""
    starts = [window_starts(length, size, overlap) for length, size in zip(shape, window, strict=True)]
    padded = [max(length, size) for length, size in zip(shape, window, strict=True)]
    return WindowPlan(window, (starts[0], starts[1], starts[2]), (padded[0], padded[1], padded[2]))


def importance_map(window: Triple) -> torch.Tensor:
    """Weight of each voxel of a window, float32, 1 in the middle: a Gaussian, because borders see less context."""
    weight = torch.ones((), dtype=torch.float32)
    for size in window:
        distance = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) / (SIGMA_FRACTION * size)
        weight = weight[..., None] * torch.exp(-0.5 * distance.square())
    return weight.div_(weight.max()).clamp_(min=LEAST_WEIGHT)


def winning_class(logits: torch.Tensor) -> torch.Tensor:
    """The class with the greatest logit, uint8 [z, y, x], of logits [class, z, y, x]; the first of equals."""
    labels = torch.empty(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    planes = labels.shape[0]
    if logits.device.type == "cpu":
        planes = max(1, CACHED_VOXELS // max(1, labels[0].numel()))
    for start in range(0, labels.shape[0], planes):
        _decide(logits[:, start : start + planes], labels[start : start + planes])
    return labels


def classify(image: torch.Tensor, run: Run, plan: WindowPlan, progress: Progress) -> NDArray[np.uint8]:
    """The class of each voxel, from the weighted mean of the logits of all windows that see it.

    Args:
        image: the network's input, float32 [z, y, x].
        run: the network: float32 [1, 1, *window] to logits float32 [1, C, *window].
        plan: the windows over `image`.
        progress: called with the windows done and their number.

    Raises:
        BackendError: the network gave a logit that is NaN or infinite; no class could be told from it.
    """
    return classes_of(Sweep(image, run, plan, progress)).numpy()


def classes_of(sweep: Sweep) -> torch.Tensor:
    """The class of each voxel, uint8 [z, y, x] on the CPU, on the workspace's memory; background where no window was.

    Raises:
        BackendError: see `classify`.
    """
    classes = host_planes(sweep)
    for finished in blended(sweep):
        rows, columns = sweep.image.shape[1:]
        copy_planes(classes, finished.start, winners(finished)[:, :rows, :columns])
    wait_for_copies(sweep)
    return classes


def winners(finished: Finished) -> torch.Tensor:
    """The class of each voxel of finished planes, uint8 [z, y, x]."""
    parts = [winning_class(sums) for sums in finished.blend.sums_of(finished.start, finished.stop)]
    return torch.cat(parts)


def host_planes(sweep: Sweep) -> torch.Tensor:
    """A plane of background for each one of the image, uint8 on the CPU."""
    shape = tuple(sweep.image.shape)
    return sweep.workspace.tensor("classes", shape, torch.uint8, torch.device("cpu")).zero_()


def copy_planes(classes: torch.Tensor, start: int, planes: torch.Tensor) -> None:
    """Copy planes to the host without waiting for the device."""
    classes[start : start + len(planes)].copy_(planes, non_blocking=True)


def wait_for_copies(sweep: Sweep) -> None:
    """Wait until all copies to the host have arrived."""
    if sweep.image.device.type == "cuda":
        torch.cuda.current_stream(sweep.image.device).synchronize()


def occupied_windows(plan: WindowPlan, inside: torch.Tensor | None) -> Sequence[Triple]:
    """The starts of the windows that see a voxel that matters or the neighbour of one, in their order.

    The neighbours count because logits are interpolated between voxels.
    """
    starts = [(z, y, x) for z, y, x in product(*plan.starts)]
    if inside is None:
        return starts
    near = [tuple(slice(max(0, part.start - 1), part.stop + 1) for part in plan.box(start)) for start in starts]
    seen: list[bool] = torch.stack([inside[box].any() for box in near]).tolist()
    return [start for start, is_seen in zip(starts, seen, strict=True) if is_seen]


def blended(sweep: Sweep) -> Iterator[Finished]:
    """The planes of an image from the lowest up, some at a time, as soon as no further window sees them.

    Logits are kept for one layer of windows only, so that memory does not grow with the length of the scan.

    Yields:
        Planes with the weighted sums of their logits.

    Raises:
        BackendError: see `classify`.
    """
    plan, depth = sweep.plan, sweep.image.shape[0]
    occupied = occupied_windows(plan, sweep.inside)
    if not occupied:
        return
    answers, seen = _answers(sweep, occupied), set(occupied)
    first = next(answers)
    weight = importance_map(plan.window).to(first.device)
    blend = Accumulator(len(first), plan.shape[1:], weight, plan.overlaps, sweep.workspace)
    logits: torch.Tensor | None = first
    for bottom, following in pairwise((*plan.starts[0], plan.shape[0])):
        for y, x in product(plan.starts[1], plan.starts[2]):
            if (bottom, y, x) not in seen:
                blend.leave_out((bottom, y, x))
                continue
            logits = next(answers) if logits is None else logits
            blend.add((bottom, y, x), logits)
            logits = None
        if following == plan.shape[0]:
            next(answers, None)  # the last answers are checked when one asks for more
        yield Finished(bottom, min(following, depth), blend)


def _answers(sweep: Sweep, starts: Sequence[Triple]) -> Iterator[torch.Tensor]:
    """The logits [class, z, y, x] of windows, one after the other; each is valid until the next is asked for."""
    plan = sweep.plan
    missing = [whole - length for whole, length in zip(plan.shape, sweep.image.shape, strict=True)]
    padding = (0, missing[2], 0, missing[1], 0, missing[0])
    padded = functional.pad(sweep.image, padding) if any(missing) else sweep.image
    done = 0
    unchecked: tuple[int, torch.Tensor] | None = None
    for before in range(0, len(starts), sweep.batch):
        group = starts[before : before + sweep.batch]
        logits = sweep.run(torch.stack([padded[plan.box(start)] for start in group])[:, None])
        # One NaN or infinity makes the whole sum so. It is looked at one batch later: a GPU is never waited for.
        sums = logits.flatten(1).sum(1, dtype=torch.float32)
        if unchecked is not None:
            _check_finite(*unchecked, len(starts))
            sweep.progress(done, len(starts))
        unchecked = done, sums
        done += len(group)
        yield from logits
    if unchecked is not None:
        _check_finite(*unchecked, len(starts))
        sweep.progress(done, len(starts))


def _check_finite(before: int, sums: torch.Tensor, count: int) -> None:
    for number, is_finite in enumerate(torch.isfinite(sums).tolist(), start=before + 1):
        if not is_finite:
            raise BackendError(
                f"window {number} of {count}",
                "the network's logits are not finite",
                "Check the model package, or choose another backend",
            )


def _decide(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Fill `labels` with the classes of the greatest logits."""
    best = logits[0].clone()
    labels.zero_()
    greater = torch.empty_like(best, dtype=torch.bool)
    for number, channel in enumerate(logits[1:], start=1):
        torch.gt(channel, best, out=greater)
        # Numbers ascend, so the greatest number that ever was greater is the last: faster than a masked fill.
        torch.maximum(labels, greater.view(torch.uint8) * number, out=labels)
        torch.maximum(best, channel, out=best)
