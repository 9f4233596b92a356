"""The path from a volume to its segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from engine.backends import Session
from engine.body import body_beside, find_body
from engine.errors import DeviceMemoryError
from engine.islands import remove_islands_and_specks, remove_specks
from engine.package import ModelPackage
from engine.preprocessing import normalise
from engine.refine import fine_classes_of, refined_grid
from engine.resample import closest_orientation, network_grid, sample_linear, sample_nearest
from engine.segmentation import Segmentation
from engine.sides import number_sides
from engine.volume import Grid, Volume
from engine.windows import Progress, Sweep, classes_of, plan_windows
from engine.workspace import Workspace

BODY_MARGIN_MM = 8.0

Boundary = Literal["interpolated", "nearest"]


@dataclass(frozen=True)
class Segmenter:
    """Segments volumes with one model and one session; not for two threads at once.

    Attributes:
        package: the model.
        session: its network, loaded.
        overlap: least overlap of neighbouring windows, a fraction of a window.
        boundary: where borders run: `interpolated` between the voxels of the network's grid, as its logits tell, or
            `nearest`, along these voxels.
        batch: most windows at a time; None: as many as the session takes.
        workspace: memory that stays for the next scan.
    """

    package: ModelPackage
    session: Session
    overlap: float
    boundary: Boundary = "interpolated"
    batch: int | None = None
    workspace: Workspace = field(default_factory=Workspace, repr=False, compare=False)

    def with_half_batch(self) -> Segmenter:
        """The same with half as many windows at a time, for a device whose memory did not suffice.

        What this one held is given back first.
        """
        self.workspace.clear()
        if self.session.device.type == "cuda":
            torch.cuda.empty_cache()
        return replace(self, batch=max(1, self._windows_at_a_time // 2))

    def segment(self, volume: Volume, progress: Progress) -> Segmentation:
        """Segment a scan.

        Args:
            volume: the scan, in any orientation.
            progress: called with the windows done and their number.

        Raises:
            VolumeError: the volume holds nothing but air.
            SideError: the label set has sides, and left and right cannot be told apart.
            DeviceMemoryError: the device has too little memory.
            BackendError: the network failed.
        """
        orientation = closest_orientation(volume.grid)
        hu, scan = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
        body = find_body(hu, scan)
        network = network_grid(scan, body.points(), BODY_MARGIN_MM, self.package.preprocessing.spacing_mm)
        try:
            image = sample_linear(hu, scan, network, self.session.device)
            inside = body_beside(network, body, image)
            sweep = self._sweep(image, inside, progress)
            del image
            numbers, grid = self._numbers(sweep, inside, network)
        except torch.OutOfMemoryError as error:
            device = self.session.device
            reason = "it has too little memory for the scan beside the network"
            raise DeviceMemoryError(f"device {device}", reason, "Lower the batch, or end what else uses it") from error
        labels = orientation.turn_back(sample_nearest(numbers, grid, scan))
        return Segmentation(np.ascontiguousarray(labels), volume.grid, self.package.label_set)

    @property
    def _windows_at_a_time(self) -> int:
        return self.session.batch if self.batch is None else self.batch

    def _sweep(self, hu: torch.Tensor, inside: torch.Tensor, progress: Progress) -> Sweep:
        model = self.package.preprocessing
        return Sweep(
            image=normalise(hu, model),
            run=self.session.run,
            plan=plan_windows((hu.shape[0], hu.shape[1], hu.shape[2]), model.window, self.overlap),
            progress=progress,
            batch=self._windows_at_a_time,
            inside=inside,
            workspace=self.workspace,
        )

    def _numbers(self, sweep: Sweep, inside: torch.Tensor, network: Grid) -> tuple[NDArray[np.uint8], Grid]:
        """Segment numbers, and the grid on which they lie.

        A network may see air as it sees fat, so it is not asked about the air around the patient. What is left and
        right, and what is an island, is told on the network's own grid.
        """
        if self.boundary == "nearest":
            classes = classes_of(sweep).numpy()
            return self._sorted_out(classes * inside.cpu().numpy(), network), network
        found = fine_classes_of(sweep).masked(inside.cpu().numpy())
        grid, least_ml = refined_grid(network), self.package.label_set.least_volume_ml
        fine = found.spread(self._sorted_out(found.coarse, network))
        return remove_specks(fine, grid.voxel_volume_mm3, least_ml), grid

    def _sorted_out(self, classes: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
        numbers = number_sides(classes, grid, self.package.label_set)
        return remove_islands_and_specks(numbers, grid.voxel_volume_mm3, self.package.label_set)
