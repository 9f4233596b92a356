"""The path from a volume to its segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.backends import Session
from engine.body import body_on, find_body
from engine.islands import remove_islands, remove_specks
from engine.package import ModelPackage
from engine.preprocessing import normalise
from engine.refine import classify_finely, enlarged, refined_grid
from engine.resample import closest_orientation, network_grid, sample_linear, sample_nearest
from engine.segmentation import Segmentation
from engine.sides import number_sides
from engine.volume import Volume
from engine.windows import Progress, plan_windows

BODY_MARGIN_MM = 8.0


@dataclass(frozen=True)
class Segmenter:
    """Segments volumes with one model and one session; not for two threads at once.

    Attributes:
        package: the model.
        session: its network, loaded.
        overlap: least overlap of neighbouring windows, a fraction of a window.
    """

    package: ModelPackage
    session: Session
    overlap: float

    def segment(self, volume: Volume, progress: Progress) -> Segmentation:
        """Segment a scan of both thighs.

        Args:
            volume: the scan, in any orientation.
            progress: called with the windows done and their number.

        Raises:
            VolumeError: the volume holds nothing but air.
            SideError: left and right cannot be told apart.
            BackendError: the network failed.
        """
        model = self.package.preprocessing
        orientation = closest_orientation(volume.grid)
        hu, scan = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
        body = find_body(hu, scan)
        network = network_grid(scan, body.points(), BODY_MARGIN_MM, model.spacing_mm)
        image = sample_linear(hu, scan, network)
        inside = body_on(network, body, image)
        plan = plan_windows(network.shape, model.window, self.overlap)
        classes = classify_finely(normalise(image, model), self.session.run, plan, progress)
        # A network may see air as it sees fat, so it is not asked about the air around the patient.
        classes[~enlarged(inside)] = 0
        fine = refined_grid(network)
        numbers = remove_islands(number_sides(classes, fine, self.package.label_set))
        numbers = remove_specks(numbers, fine.voxel_volume_mm3)
        labels = orientation.turn_back(sample_nearest(numbers, fine, scan))
        return Segmentation(np.ascontiguousarray(labels), volume.grid, self.package.label_set)
