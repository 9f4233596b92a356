"""Which backend runs a network, and in which precision: decided by a measurement where there is one.

A measurement (`engine.trials`) is of one machine and one package, so it only counts while everything that it depends
on is as it was: the package, the CPU and the GPU, what the settings ask for (device, threads, batch, portable plans,
plug-in libraries), the distributions that the backends need, and those that bring another's backend. Where anything
differs the documented order decides, and says why. The decision is made once, at the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import packages_distributions, version
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from engine import backends
from engine.backends import AUTO, AUTO_ORDER, Backend, SessionOptions
from engine.errors import BackendError
from engine.package import ModelPackage, sha256_of
from engine.plugins import BACKENDS, plugins

FILE_NAME = "choice.json"
GPU_BACKENDS = ("tensorrt",)
"""Backends that run on a GPU whatever device is named."""
GPU_BATCH, CPU_BATCH = 4, 1
CPU_FACTS = ("model name", "cpu family", "model", "stepping")
FLAGS_DIGITS = 16


@dataclass(frozen=True)
class Candidate:
    """A backend and a precision; in what is wanted, "auto" leaves either open."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"

    def fits(self, wanted: Candidate) -> bool:
        """Whether this is what was wanted."""
        return wanted.backend in (AUTO, self.backend) and wanted.precision in (AUTO, self.precision)


@dataclass(frozen=True)
class Trial:
    """How a candidate did.

    Attributes:
        candidate: which.
        batch: windows at a time.
        seconds: the shortest time that a window took; None where it was refused.
        error: see `engine.gate.Agreement`; None where it was refused.
        same_class: see `engine.gate.Agreement`; None where it was refused.
        refused: why it cannot serve; empty where it can.
    """

    candidate: Candidate
    batch: int = 1
    seconds: float | None = None
    error: float | None = None
    same_class: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class Conditions:
    """What a measurement depends on.

    Attributes:
        package: digest of the model package.
        cpu: the CPU: model, family, stepping, and a digest of its flags.
        gpu: the GPU; empty where torch sees none.
        device: the device that was asked for.
        threads: CPU threads.
        batch: windows at a time that were asked for; 0 where that was left open.
        portable: whether plans for every GPU since Ampere were asked for.
        loaded: SHA-256 of the plug-in libraries, in the order in which they are loaded.
        libraries: version of each distribution that a backend which can be used here needs, by its name.
        plugins: who brings a backend that can be used here, as `some-parts 1.0`, by the backend's name; not ours.
    """

    package: str
    cpu: str
    gpu: str
    device: str
    threads: int
    batch: int
    portable: bool
    loaded: tuple[str, ...]
    libraries: Mapping[str, str]
    plugins: Mapping[str, str]

    def differences(self, other: Conditions) -> tuple[str, ...]:
        """Names of the conditions that are not the same."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name))


@dataclass(frozen=True)
class Measurement:
    """Every candidate's trial, and what they depend on."""

    conditions: Conditions
    trials: tuple[Trial, ...]

    def fastest(self, wanted: Candidate) -> Trial | None:
        """The fastest of those that passed and are what is wanted; None where there is none."""
        timed = [(trial.seconds, trial) for trial in self.trials if trial.seconds is not None and not trial.refused]
        fit = [pair for pair in timed if pair[1].candidate.fits(wanted)]
        return min(fit, key=lambda pair: pair[0])[1] if fit else None


@dataclass(frozen=True)
class Decision:
    """What runs the network, and why.

    Attributes:
        backend: a backend that can be used here.
        precision: one of `engine.backends.PRECISIONS`, or "auto" for the backend's own choice.
        source: who decided: `settings`, `measurement`, or `order`.
        why: the same in words.
    """

    backend: str
    precision: str
    source: str
    why: str


_STORED = TypeAdapter(Measurement)


def conditions_of(package: ModelPackage, options: SessionOptions) -> Conditions:
    """What a measurement on this machine, now, depends on. Imports every backend.

    Raises:
        BackendError: a plug-in library cannot be read.
        PluginError: a backend is offered twice.
    """
    usable = backends.usable()
    return Conditions(
        package=package.digest,
        cpu=cpu_identity(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        device=options.device,
        threads=options.threads,
        batch=options.batch,
        portable=options.portable,
        loaded=tuple(_digest_of(path) for path in options.libraries),
        libraries=library_versions(usable.values()),
        plugins=_strangers(usable),
    )


def cpu_identity() -> str:
    """The CPU as the kernel tells it: model, family, stepping, and a digest of its flags."""
    facts: dict[str, str] = {}
    if backends.CPU_INFO.is_file():
        for line in backends.CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    flags = " ".join(sorted(backends.cpu_flags()))
    told = [facts[name] for name in CPU_FACTS if name in facts]
    return " ".join((*told, hashlib.sha256(flags.encode()).hexdigest()[:FLAGS_DIGITS]))


def library_versions(which: Iterable[Backend]) -> dict[str, str]:
    """The version of every distribution that these backends need."""
    owners = packages_distributions()
    needed = {owner for backend in which for each in backend.requirements for owner in owners.get(each, ())}
    return {name: version(name) for name in sorted(needed)}


def _strangers(usable: Iterable[str]) -> dict[str, str]:
    """Distribution and version that bring these backends, by the backend's name; not ours."""
    offered = plugins(BACKENDS)
    return {name: offered[name].origin for name in sorted(usable) if not offered[name].credit.ours}


def _digest_of(library: Path) -> str:
    try:
        return sha256_of(library)
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
        remedy = "Correct the list of libraries in the settings"
        raise BackendError(f"plug-in library {library}", reason, remedy) from error


def options_for(candidate: Candidate, options: SessionOptions) -> SessionOptions:
    """Options with a candidate's precision, and as many windows at a time as suit it where that was left open."""
    batch = batch_of(options.batch, candidate.backend, options.device)
    return replace(options, precision=candidate.precision, batch=batch)


def batch_of(asked: int, backend: str, device: str) -> int:
    """Windows at a time: as many as asked for, or where that is 0 what suits the kind of device."""
    return asked or (GPU_BATCH if backend in GPU_BACKENDS or device == "cuda" else CPU_BATCH)


def remember(measurement: Measurement, folder: Path) -> Path:
    """Keep a measurement for the next start; whole or not at all.

    Raises:
        BackendError: the folder cannot be written.
    """
    from engine.backends.plans import write_whole  # which imports ONNX; a node that starts only recalls

    path = folder / FILE_NAME
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_whole(path, _STORED.dump_json(measurement, indent=1) + b"\n")
    except OSError as error:
        reason = f"it cannot be written: {error.strerror or error}"
        raise BackendError(f"file {path}", reason, "Look at the folder's owner and at its free space") from error
    return path


def recall(folder: Path) -> tuple[Measurement | None, str]:
    """The measurement that was kept, or None and the reason why there is none."""
    path = folder / FILE_NAME
    try:
        return _STORED.validate_json(path.read_bytes()), ""
    except FileNotFoundError:
        return None, "nothing was measured on this machine"
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"
    except ValidationError:
        return None, f"{path} is damaged, or of another version of this program"


def decide(wanted: Candidate, folder: Path, now: Callable[[], Conditions]) -> Decision:
    """What runs the network: what the settings name, else what was measured here, else the first of the order.

    Args:
        wanted: what the settings say; "auto" leaves it open.
        folder: where the measurement is kept.
        now: tells what a measurement would depend on now; asked only where there is one and it would decide.

    Raises:
        BackendError: what is meant is unknown, or cannot be used here.
        PluginError: what is meant cannot be imported, or a backend is offered twice.
    """
    if AUTO not in (wanted.backend, wanted.precision):
        return Decision(backends.resolve(wanted.backend), wanted.precision, "settings", "the settings name it")
    measured, why = recall(folder)
    if measured is not None:
        best = measured.fastest(wanted)
        if best is None:
            why = "nothing that is wanted passed when it was measured"
        elif changed := measured.conditions.differences(now()):
            why = f"what was measured no longer counts: another {', another '.join(changed)}"
        else:
            words = f"the fastest that passed the gate here: {best.seconds:.3f} s a window"
            return Decision(backends.resolve(best.candidate.backend), best.candidate.precision, "measurement", words)
    order = f"the first of {', '.join(AUTO_ORDER)}" if wanted.backend == AUTO else "its own choice of precision"
    return Decision(backends.resolve(wanted.backend), wanted.precision, "order", f"{order}, because {why}")
