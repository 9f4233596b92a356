"""The one tree of errors.

Every error names the thing, the reason and the remedy::

    VastusError
     |- VolumeError        a volume or grid that cannot be what it claims
     |- SideError          left and right cannot be told apart
     |- NotThighs          the volume does not show two thighs (engine/fitness.py)
     |- ModelError         a model package is missing, damaged or not what it says
     |- BackendError       a backend is unknown, unavailable or failed
     |   '- DeviceMemoryError  its device has too little memory for what was asked
     |- PluginError        a plug-in cannot be imported, is not what its group asks for, is offered twice, or fails
     |- ImageError         an image file is missing, damaged, or not what it should be (engine/images.py)
     |- EvaluationError    predictions and truth cannot be compared (engine/evaluation/cases.py)
     |- TrainingError      a preset, the training data or a run cannot be used (engine/training/errors.py)
     |- dicom_io.errors.*  series that cannot be read or used; results that cannot be written
     |- db.errors.*        the database is unreachable or of another version
     |- node.errors.*      settings, spool, network, service
"""

from __future__ import annotations


class VastusError(Exception):
    """Base of every error that Vastus raises on purpose.

    Args:
        thing: what is affected, named so that a reader finds it.
        reason: why it failed.
        remedy: what the reader can do about it.
    """

    def __init__(self, thing: str, reason: str, remedy: str) -> None:
        super().__init__(thing, reason, remedy)
        self.thing = thing
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.thing}: {self.reason}. {self.remedy}"


class VolumeError(VastusError):
    """A volume or grid cannot be what it claims."""


class SideError(VastusError):
    """Left and right cannot be told apart."""


class ModelError(VastusError):
    """A model package is missing, damaged or not what it says."""


class BackendError(VastusError):
    """A backend is unknown, unavailable here, or failed."""


class DeviceMemoryError(BackendError):
    """The backend's device has too little memory for what was asked."""


class PluginError(VastusError):
    """A plug-in cannot be imported, is not what its group asks for, is offered by two distributions, or fails."""
