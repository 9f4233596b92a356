"""Every setting of the node, one class a section, and the one function that reads them.

Values come from a TOML file; an environment variable `VASTUS__SECTION__KEY` stands over the file. Nothing is guessed:
an unknown name or a wrong value raises `SettingsProblem`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from config.flags import Flags
from config.problems import Fault, Key, SettingsProblem, Sources, annotation_at, faults_of
from config.section import Section
from config.selection import Selection

__all__ = ["DEFAULT_MODEL", "Destination", "Settings", "SettingsProblem", "load_settings"]

PREFIX = "VASTUS__"
DEFAULT_MODEL = "compact"
"""The model package that is used where nothing else is said; it comes with the program."""
DATABASE_SCHEMES = ("sqlite:///", "postgresql://", "postgresql+psycopg://")


def _ae_title(value: str) -> str:
    """AE title, PS3.5 6.2: at most 16 bytes of the default repertoire, no backslash, no control character, no blank."""
    if not re.fullmatch(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )", value):
        raise ValueError(
            "this is not an AE title. Write 1 to 16 ASCII characters without backslash, control characters or "
            "spaces at either end (PS3.5 6.2)."
        )
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:\-_]{1,253}", value):
        raise ValueError("this is not a host. Write a host name or an IP address, without a port.")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or "\0" in str(value):
        raise ValueError("the path is not absolute. Write a path that begins with '/'.")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not value.get_secret_value().startswith(DATABASE_SCHEMES):
        raise ValueError(f"this is not a usable database URL. Begin it with one of: {', '.join(DATABASE_SCHEMES)}.")
    return value


def _writer_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,15}", value):
        raise ValueError("this is not a writer's name. Write 1 to 16 of the characters a-z, 0-9 and '-'.")
    return value


def _destination_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,32}", value):
        raise ValueError("this is not a destination's name. Write 1 to 32 of the characters a-z, 0-9 and '-'.")
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
DestinationName = Annotated[str, AfterValidator(_destination_name)]
WriterName = Annotated[str, AfterValidator(_writer_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Node(Section):
    """Who this node is and where it keeps its state."""

    ae_title: AeTitle = Field(default="VASTUS", description="AE title of this node, called and calling.")
    state_dir: AbsolutePath = Field(
        default=Path("/var/lib/vastus"), description="Absolute path of the folder for spool, results and database."
    )


class Listener(Section):
    """How series come in."""

    host: Host = Field(default="0.0.0.0", description="Address to listen on; 0.0.0.0 is every IPv4 address.")
    port: Port = Field(default=11112, description="TCP port to listen on, 1 to 65535.")
    calling_ae_titles: tuple[AeTitle, ...] = Field(
        default=(), description="AE titles that may open an association; the service refuses to start on an empty list."
    )
    quiet_period_s: Seconds = Field(
        default=10.0, description="A series is complete when no instance of it has arrived for this long."
    )
    max_associations: int = Field(default=16, ge=1, le=1000, description="Associations served at the same time.")
    max_pdu_bytes: int = Field(
        default=131072, ge=4096, le=16777216, description="Longest PDU offered to peers (PS3.8 D.1)."
    )
    acse_timeout_s: Seconds = Field(default=10.0, description="Longest wait for an association message.")
    dimse_timeout_s: Seconds = Field(default=30.0, description="Longest wait for a DIMSE message.")
    network_timeout_s: Seconds = Field(default=60.0, description="An association silent for this long is aborted.")
    socket_timeout_s: Seconds = Field(
        default=30.0, description="Longest wait for a single read or write on the socket."
    )
    soft_free_mib: int = Field(
        default=2048, ge=1, description="Below this free space new associations are rejected as temporarily congested."
    )
    hard_free_mib: int = Field(
        default=512, ge=1, description="Below this free space an instance is refused as out of resources (A700)."
    )

    @model_validator(mode="after")
    def _hard_below_soft(self) -> Listener:
        if self.hard_free_mib > self.soft_free_mib:
            raise ValueError("hard_free_mib is above soft_free_mib. Make hard_free_mib the smaller of the two.")
        return self


class Database(Section):
    """Where the node remembers."""

    url: DatabaseUrl = Field(
        default=SecretStr(""),
        description="SQLAlchemy URL, sqlite:/// or postgresql://; empty is the file vastus.db in state_dir.",
    )


class Engine(Section):
    """What segments, and on what."""

    model: str = Field(
        default=DEFAULT_MODEL, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Name of the model package."
    )
    model_dirs: tuple[AbsolutePath, ...] = Field(
        default=(), description="Absolute paths of folders with further model packages, one a folder."
    )
    backend: str = Field(
        default="auto",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="What runs the network, by name. auto is what vastus model compile found fastest here, else the "
        "first of tensorrt, openvino, onnxruntime.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="What the network is computed in. auto is what was found the fastest, else the backend's choice.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where a backend computes that has the choice, as torch; tensorrt is always on a GPU.",
    )
    batch: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Most windows at a time; 0 is 4 on a GPU and 1 on a CPU. More need more memory.",
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads for the network; 0 is all cores that the service may use."
    )
    overlap: float = Field(
        default=0.25, ge=0, le=0.9, description="Overlap of neighbouring windows, as a fraction, 0 to 0.9."
    )
    boundary: Literal["interpolated", "nearest"] = Field(
        default="interpolated",
        description="How labels reach the scan's voxels: by interpolated logits, or from the network's nearest voxel.",
    )
    plugin_libraries: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Absolute paths of the TensorRT plug-in libraries (.so) to load, in this order; no other is.",
    )
    portable_plans: bool = Field(
        default=False,
        description="Build TensorRT plans for every GPU since Ampere, at some cost in speed, not for this one alone.",
    )


class SeriesRules(Section):
    """Which series are segmented; the others are parked with the reason."""

    min_slices: int = Field(default=50, ge=3, description="Fewest slices of a series.")
    min_coverage_mm: float = Field(default=200.0, ge=0, description="Shortest extent of a series along its slices.")
    changed_instance: Literal["keep", "rerun"] = Field(
        default="keep",
        description="An image that comes again with other bytes once its series was segmented: keep tells it and keeps "
        "it beside, rerun segments anew with it.",
    )


class Results(Section):
    """What is made of a series."""

    writers: tuple[WriterName, ...] = Field(
        default=("seg", "sr", "sc"),
        min_length=1,
        description="What writes the results: names of installed writers. What others refer to is sent first.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Results:
        if len(set(self.writers)) < len(self.writers):
            raise ValueError("a writer is named twice in writers. Name each once.")
        return self


class Destination(Section):
    """One place that results are sent to."""

    ae_title: AeTitle = Field(description="AE title of the destination.")
    host: Host = Field(description="Host name or address of the destination.")
    port: Port = Field(description="TCP port of the destination, 1 to 65535.")


class Delivery(Section):
    """How results are sent."""

    first_retry_s: Seconds = Field(
        default=1.0, description="Wait before the second attempt; it doubles with each further one."
    )
    longest_retry_s: Seconds = Field(default=900.0, description="Longest wait between two attempts.")
    acse_timeout_s: Seconds = Field(default=10.0, description="Longest wait for an association message.")
    dimse_timeout_s: Seconds = Field(default=60.0, description="Longest wait for the answer to a C-STORE.")
    network_timeout_s: Seconds = Field(default=60.0, description="An association silent for this long is aborted.")

    @model_validator(mode="after")
    def _first_not_longest(self) -> Delivery:
        if self.first_retry_s > self.longest_retry_s:
            raise ValueError("first_retry_s is above longest_retry_s. Make first_retry_s the smaller of the two.")
        return self


class Log(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )
    pretty: bool = Field(default=False, description="Lines for people in place of JSON.")


class Settings(Section):
    """All settings of the node."""

    node: Node = Node()
    listener: Listener = Listener()
    database: Database = Database()
    engine: Engine = Engine()
    series: SeriesRules = SeriesRules()
    selection: Selection = Selection()
    flags: Flags = Flags()
    results: Results = Results()
    destinations: dict[DestinationName, Destination] = Field(
        default_factory=dict, description="Where results are sent: one table a destination, by name."
    )
    delivery: Delivery = Delivery()
    log: Log = Log()

    @property
    def database_url(self) -> str:
        """The URL to open, password included: the file in the state folder where none is set. Never print it."""
        return self.database.url.get_secret_value() or f"sqlite:///{self.node.state_dir / 'vastus.db'}"


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings: defaults, then the file, then the environment.

    Args:
        path: the TOML file; None for none.
        environ: environment variables, of which those that begin with `VASTUS__` count.

    Raises:
        SettingsProblem: unreadable file, unknown key or wrong value; every fault found is named.
    """
    text = "" if path is None else _read(path)
    values = {} if path is None else _parse(text, path)
    variables = {_key(name): name for name in sorted(environ) if name.startswith(PREFIX)}
    for key, name in variables.items():
        _put(values, key, name, _value(key, environ[name]))
    # Through JSON, because only pydantic's JSON mode is strict about numbers and yet takes text for a path.
    document = json.dumps(values, default=str)
    try:
        return Settings.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise SettingsProblem(faults_of(error, Settings, Sources(path, text, variables))) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = "Name another file, or copy config/vastus.example.toml to this place."
        raise SettingsProblem([Fault(str(path), None, "", "there is no such file", remedy)]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file cannot be read ({type(error).__name__})"
        remedy = "Make it a readable UTF-8 text file."
        raise SettingsProblem([Fault(str(path), None, "", reason, remedy)]) from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(place[1]) if place else len(text.splitlines())
        reason = f"this is not TOML: {str(error).split(' (at ')[0].lower()}"
        raise SettingsProblem([Fault(str(path), line, "", reason, "Correct that line.")]) from None


def _key(variable: str) -> Key:
    return tuple(variable.removeprefix(PREFIX).lower().split("__"))


def _value(key: Key, raw: str) -> Any:
    """The value of a variable: text is taken as it stands, all else is written as in the file."""
    if annotation_at(Settings, key) in (str, Path, SecretStr) or _is_words(key):
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def _is_words(key: Key) -> bool:
    return getattr(annotation_at(Settings, key), "__origin__", None) is Literal


def _put(values: dict[str, Any], key: Key, variable: str, value: Any) -> None:
    """Set one value in the nested tables."""
    table: Any = values
    for part in key[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            remedy = "Unset the variable or make the setting a table."
            raise SettingsProblem([Fault(variable, None, ".".join(key), f"{part} is not a table in the file", remedy)])
    table[key[-1]] = value
