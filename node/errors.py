"""The errors of the node.

NodeError
 |- SettingsRefused    the settings cannot be used
 |- SpoolError         the spool cannot keep or give back what was received
 |   |- SpoolFull      too little space is left to keep an instance
 |- NetworkError       a port cannot be listened on, or a peer cannot be reached
 |- JobsError          the job engine cannot start or has lost its way
 |- ServiceError       a process of the service cannot start or will not stop
 |- UnknownEvent       a log line was asked for under a name that the table does not hold
"""

from __future__ import annotations

from config.settings import SettingsProblem
from engine.errors import VastusError


class NodeError(VastusError):
    """Base of the errors of the node."""


class SettingsRefused(NodeError):  # noqa: N818 - says what the matter is
    """The settings cannot be used."""

    @classmethod
    def of(cls, problem: SettingsProblem) -> SettingsRefused:
        """The first fault of a settings problem, with a count of the others."""
        others = len(problem.faults) - 1
        more = f" ({others} more such faults)" if others else ""
        return cls(problem.thing, problem.reason + more, problem.remedy)


class SpoolError(NodeError):
    """The spool cannot keep or give back what was received."""


class SpoolFull(SpoolError):  # noqa: N818 - says what the matter is
    """Too little space is left to keep an instance."""


class NetworkError(NodeError):
    """A port cannot be listened on, or a peer cannot be reached."""


class JobsError(NodeError):
    """The job engine cannot start or has lost its way."""


class ServiceError(NodeError):
    """A process of the service cannot start or will not stop."""


class UnknownEvent(NodeError):  # noqa: N818 - says what the matter is
    """A log line was asked for under a name that the table of events does not hold."""
