"""Writers of result objects, chosen by name.

A writer makes one object of a job: it says what kind of object that is and to which others it refers, and writes it
from a `ResultRequest`. Each is a plug-in of the group `vastus.writers`, ours as well as others'. The UIDs of what it
writes follow from the job and its name (`dicom_io.uids.result_uid`), so that a repeat gives the same object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import BinaryIO, Protocol, cast, runtime_checkable

from dicom_io.findings import ResultRequest
from dicom_io.kinds import RESULT_KINDS, ResultKind
from engine import plugins
from engine.errors import PluginError
from engine.plugins import WRITERS, Plugin

WRITER_NAME_FORM = r"[a-z0-9][a-z0-9-]{0,15}"
"""How a writer may be called: its name is the `kind` of its objects in SQL and the name of their files."""


@runtime_checkable
class Writer(Protocol):
    """One way to make a result object: what an entry point of the group `vastus.writers` leads to.

    Attributes:
        name: how it is chosen; the entry point's name.
        kind: number and word of its series, and the SOP class of its object.
        refers_to: names of the writers to whose objects its own refers; they are written and sent before it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> ResultKind: ...  # noqa: D102
    @property
    def refers_to(self) -> tuple[str, ...]: ...  # noqa: D102

    def missing(self) -> str | None:
        """Why it cannot be used here, or None; imports no large library."""
        ...

    def write(self, request: ResultRequest, out: BinaryIO) -> None:
        """Write the object as a file of PS3.10; the same request gives the same bytes.

        `request.series_uid(name)` and `request.instance_uid(name)` are the UIDs that it must bear;
        `dicom_io.heading.maker_attributes` and `adopt` give what every result says alike.

        Raises:
            DicomIoError: the object cannot be made of this request.
        """
        ...


@dataclass(frozen=True)
class ModuleWriter:
    """A writer whose work is a function of another module, which is imported when it writes.

    Attributes:
        name: see `Writer`.
        kind: see `Writer`.
        refers_to: see `Writer`.
        place: module and function, as `dicom_io.seg:write_seg`.
    """

    name: str
    kind: ResultKind
    refers_to: tuple[str, ...]
    place: str

    def missing(self) -> str | None:
        """See `Writer`: never anything."""
        return None

    def write(self, request: ResultRequest, out: BinaryIO) -> None:
        """See `Writer`."""
        module, _, function = self.place.partition(":")
        cast(Callable[[ResultRequest, BinaryIO], None], getattr(import_module(module), function))(request, out)


SEG = ModuleWriter("seg", RESULT_KINDS["seg"], (), "dicom_io.seg:write_seg")
SR = ModuleWriter("sr", RESULT_KINDS["sr"], ("seg",), "dicom_io.sr:write_sr")
SC = ModuleWriter("sc", RESULT_KINDS["sc"], (), "dicom_io.pages:write_page")
OUR_WRITERS: tuple[Writer, ...] = (SEG, SR, SC)
"""Those that come with the program, in the order in which their objects are sent."""


def load_writer(plugin: Plugin) -> Writer:
    """Import a writer and see that it is one.

    Raises:
        PluginError: it cannot be imported, is no writer, or has another name than its entry point, or one that cannot
            be a kind of results.
    """
    writer = plugin.load()
    if not isinstance(writer, Writer) or writer.name != plugin.name:
        raise plugin.refused(f"{plugin.entry_point.value} is no writer of this name")
    if not isinstance(writer.kind, ResultKind):
        raise plugin.refused(f"the kind of {plugin.entry_point.value} is no ResultKind")
    if not re.fullmatch(WRITER_NAME_FORM, writer.name):
        raise plugin.refused(f"the name of a writer must be of the form {WRITER_NAME_FORM}")
    return writer


def choose_writers(names: Sequence[str]) -> tuple[Writer, ...]:
    """The writers of these names, in the order in which their objects are to be sent; imports no other one.

    Raises:
        PluginError: one is not installed, is offered twice, is no writer, lacks what it needs, or refers to the object
            of a writer that is not chosen.
    """
    chosen: dict[str, Writer] = {}
    for name in names:
        plugin = plugins.plugin(WRITERS, name)
        chosen[name] = load_writer(plugin)
        reason = chosen[name].missing()
        if reason is not None:
            raise PluginError(f"writer {name}", reason, f"Install it, or take {name} out of the writers")
    return in_sending_order(chosen.values())


def in_sending_order(writers: Iterable[Writer]) -> tuple[Writer, ...]:
    """Writers so that none comes before one to whose object it refers; otherwise as they come.

    Raises:
        PluginError: one refers to a writer that is not among them, or two refer to each other.
    """
    known = {writer.name: writer for writer in writers}
    ordered: dict[str, Writer] = {}
    for writer in known.values():
        _place(writer, known, ordered, ())
    return tuple(ordered.values())


def _place(writer: Writer, known: Mapping[str, Writer], ordered: dict[str, Writer], above: tuple[str, ...]) -> None:
    """Put a writer into the order, after those it refers to; `above` are those that wait for it."""
    if writer.name in ordered:
        return
    thing = f"writer {writer.name}"
    if writer.name in above:
        raise PluginError(thing, f"its object and that of {above[-1]} refer to each other", "Choose one of the two")
    for name in writer.refers_to:
        if name not in known:
            reason = f"its object refers to that of the writer {name}, which is not chosen"
            raise PluginError(thing, reason, f"Add {name} to the writers, or take {writer.name} out")
        _place(known[name], known, ordered, (*above, writer.name))
    ordered[writer.name] = writer
