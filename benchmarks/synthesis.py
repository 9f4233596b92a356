"""How long synthetic patients, patches and scans take, stage by stage: `python benchmarks/synthesis.py`.

Every time is set against a floor measured in the same run: one trilinear sampling of a person at as many places as the
patch or the scan has voxels, the least that either could cost.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from statistics import median
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from engine.preprocessing import Preprocessing
from engine.synthesis import ScanRecipe, scan, scanning, synthesise, thigh_grid
from engine.synthesis.anatomy import Anatomy
from engine.synthesis.builtin import BuiltIn
from engine.synthesis.clinic import clinical
from engine.synthesis.elsewhere import Elsewhere
from engine.synthesis.person import Person, Sculptor, draw_person
from engine.synthesis.rendering import PosedPerson
from engine.synthesis.scan import sculptor_of
from engine.training import stream
from engine.training.stream import PatchStream

P = ParamSpec("P")
R = TypeVar("R")

MODEL = Preprocessing(spacing_mm=(2.5, 2.0, 2.0), window=(96, 96, 96))
SCAN_SHAPE, SCAN_SPACING_MM = (200, 256, 320), (3.1, 1.6, 1.6)
SEED = 7
PERSONS = 5
"""Persons and patients, of whom the median is told."""
WARM_UP = 8
"""Patches before those that count: the first ones draw the persons that the others show."""
SLAB = 32
"""Planes sampled at a time, as the rendering does."""
STAGES: tuple[tuple[str, Any, str], ...] = (
    # What is told, and where the function stands that takes the time. None of them calls another.
    ("person", Sculptor, "person"),
    ("person", Elsewhere, "person"),
    ("contents, contrast, metal", scan, "clinical"),
    ("contents, contrast, metal", stream, "clinical"),
    ("where the body lies", stream, "_body_box"),
    ("coarse look at whole slices", scanning, "_survey"),
    ("body, averaged into slices", scanning, "_averaged"),
    ("table, clothes, lines, arms", scanning, "_around"),
    ("beam hardening", scanning, "beam_hardening"),
    ("streaks of metal", scanning, "_metal"),
    ("streaks of metal", scanning, "metal_streaks"),
    ("kernel", scanning, "blurred"),
    ("noise", scanning, "add_noise"),
    ("truth", PosedPerson, "codes"),
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """An anatomy that is there already: an AnatomySource."""

    ready: Anatomy

    def anatomy(self) -> Anatomy:
        """The anatomy."""
        return self.ready


@dataclass
class Watch:
    """Keeps the time of what is done, and of the stages inside it.

    Attributes:
        device: waited for before each look at the clock.
        stages: seconds of each stage since they were last taken.
    """

    device: torch.device
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def now(self) -> float:
        """Seconds, once all work is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """How long some work takes."""
        began = self.now()
        work()
        return self.now() - began

    def timed(self, stage: str, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, whose time goes to a stage."""

        @wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> R:
            began = self.now()
            result = function(*args, **kwargs)
            self.stages[stage] += self.now() - began
            return result

        return inner

    @contextmanager
    def stages_timed(self) -> Iterator[None]:
        """As long as this lasts, every stage is timed."""
        before = [(place, name, getattr(place, name)) for _, place, name in STAGES]
        for (stage, _, _), (place, name, function) in zip(STAGES, before, strict=True):
            setattr(place, name, self.timed(stage, function))
        try:
            yield
        finally:
            for place, name, function in before:
                setattr(place, name, function)


@dataclass(frozen=True)
class Work:
    """What was done: the seconds of each time, of the floor, and of the stages over all times."""

    name: str
    seconds: list[float]
    floor_s: float
    stages: dict[str, float]


def floor_s(watch: Watch, person: Person, shape: tuple[int, int, int], times: int) -> float:
    """Median time of sampling a person trilinearly at as many places as a volume has voxels."""
    lines = [torch.linspace(-0.8, 0.8, length, device=watch.device) for length in (min(SLAB, shape[0]), *shape[1:])]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).flip(-1)[None]
    share = shape[0] / len(lines[0])

    def sample() -> None:
        functional.grid_sample(person.hu[None, None], places, padding_mode="border", align_corners=True)

    sample()
    return share * median(watch.seconds(sample) for _ in range(times))


def draw_persons(watch: Watch, sculptor: Sculptor) -> tuple[Person, list[tuple[str, float]]]:
    """Some persons and patients; the last of them, and what each took."""
    rng = np.random.default_rng(SEED)
    bodies, contents = [], []
    for _ in range(PERSONS):
        began = watch.now()
        body = sculptor.person(draw_person(rng))
        drawn = watch.now()
        patient = clinical(body, rng)
        bodies.append(drawn - began)
        contents.append(watch.now() - drawn)
    return patient, [("person", median(bodies)), ("contents, contrast, metal", median(contents))]


def draw_patches(watch: Watch, sculptor: Sculptor, person: Person, count: int) -> Work:
    """Patches as in training."""
    patches = iter(PatchStream([sculptor], MODEL, SEED))
    list(islice(patches, WARM_UP))
    with watch.stages_timed():
        seconds = [watch.seconds(lambda: next(patches)) for _ in range(count)]
    return Work("a patch", seconds, floor_s(watch, person, MODEL.window, count), take(watch))


def make_scan(watch: Watch, source: Prepared, person: Person) -> Work:
    """A scan of both thighs with its truth."""
    recipe = ScanRecipe(SEED, thigh_grid(SCAN_SHAPE, SCAN_SPACING_MM), source=source)
    with watch.stages_timed():
        seconds = [watch.seconds(lambda: synthesise(recipe, str(watch.device)))]
    return Work("a whole scan", seconds, floor_s(watch, person, SCAN_SHAPE, 3), take(watch))


def take(watch: Watch) -> dict[str, float]:
    stages = dict(watch.stages)
    watch.stages.clear()
    return stages


def tell(console: Console, once: list[tuple[str, float]], works: list[Work], where: str) -> None:
    table = Table("done", "seconds", "x floor of a patch", title=where)
    for name, seconds in [*once, *((work.name, median(work.seconds)) for work in works)]:
        table.add_row(name, f"{seconds:.3f}", f"{seconds / works[0].floor_s:.1f}")
    for work in works:
        table.add_row(f"floor of {work.name}", f"{work.floor_s:.4f}", f"{work.floor_s / works[0].floor_s:.1f}")
        table.add_row(f"{work.name} / its floor", "", f"{median(work.seconds) / work.floor_s:.1f}")
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    for work in works:
        console.print(shares(work))


def shares(work: Work) -> Table:
    """The stages of some work, and what is left between them."""
    total, times = sum(work.seconds), len(work.seconds)
    title = f"{work.name}: mean of {times}" if times > 1 else work.name
    table = Table("stage", "seconds", "share, %", "x floor", title=title)
    rest = ("the rest", total - sum(work.stages.values()))
    for name, seconds in [*sorted(work.stages.items(), key=lambda stage: -stage[1]), rest, ("all", total)]:
        mean = seconds / times
        table.add_row(name, f"{mean:.3f}", f"{100 * seconds / total:.0f}", f"{mean / work.floor_s:.1f}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is a GPU")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: as torch wants")
    parser.add_argument("--patches", type=int, default=20)
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no GPU is at hand: leave --device out")
    if given.threads:
        torch.set_num_threads(given.threads)
    watch = Watch(torch.device(given.device))
    anatomies: list[Anatomy] = []
    once = [("anatomy", watch.seconds(lambda: anatomies.append(BuiltIn().anatomy())))]
    source = Prepared(anatomies[0])
    once.append(("sculptor", watch.seconds(lambda: sculptor_of(source, given.device))))
    sculptor = sculptor_of(source, str(watch.device))
    person, drawn = draw_persons(watch, sculptor)
    works = [draw_patches(watch, sculptor, person, given.patches), make_scan(watch, source, person)]
    name = torch.cuda.get_device_name(watch.device) if watch.device.type == "cuda" else "CPU"
    tell(Console(), [*once, *drawn], works, f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
