"""Distributions and environments for the tests of plug-ins.

An environment of its own sees what is installed in the present one, so that nothing large is copied, and has its own
distributions beside that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).parent / "example"

Entries = Mapping[str, Mapping[str, str]]
"""Entry points by group and name."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a folder."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def vastus(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the command `vastus` in it."""
        return subprocess.run(
            [self.python, "-m", "node.cli.main", *arguments],
            cwd=cwd,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def install(self, folder: Path) -> None:
        """Build and install the distribution of a folder; needs no network."""
        command = [
            str(self.python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
        ]
        done = subprocess.run([*command, str(folder)], env=clean_environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def clean_environ() -> dict[str, str]:
    """The environment without our settings, with wide tables and one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VASTUS", "PYTHON"))}
    return {**kept, "COLUMNS": "220", "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def make_environment(folder: Path) -> Environment:
    """A new environment over the present one; the program itself is found first, as where it is installed whole."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    environment = Environment(folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    present = sysconfig.get_paths()["purelib"]
    line = f"import site, sys; site.addsitedir({present!r}); sys.path.insert(0, {str(REPO)!r})\n"
    (site / "over.pth").write_text(line, encoding="utf-8")
    return environment


def example_in(folder: Path) -> Path:
    """A copy of the example with its model package written, ready to be installed."""
    copy = folder / "example"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "package", "build", "*.egg-info"))
    subprocess.run([sys.executable, "make_package.py"], cwd=copy, env=clean_environ(), check=True, capture_output=True)
    return copy


def distribution_in(folder: Path, name: str, entries: Entries, modules: Mapping[str, str]) -> Path:
    """The source of a small distribution `name`, version 9.9: modules by name with their text."""
    source = folder / name
    source.mkdir(parents=True)
    for module, text in modules.items():
        (source / f"{module}.py").write_text(text, encoding="utf-8")
    groups = "".join(
        f'[project.entry-points."{group}"]\n' + "".join(f'{key} = "{place}"\n' for key, place in named.items())
        for group, named in entries.items()
    )
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "9.9"\n{groups}[tool.setuptools]\npy-modules = {sorted(modules)!r}\n',
        encoding="utf-8",
    )
    return source


def metadata_in(folder: Path, name: str, entries: Entries, modules: Mapping[str, str]) -> None:
    """The same as if it was installed into a folder, by its metadata and modules alone."""
    info = folder / f"{name.replace('-', '_')}-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n", encoding="utf-8")
    (info / "top_level.txt").write_text("\n".join(modules), encoding="utf-8")
    lines = (
        line for group, named in entries.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in named.items()))
    )
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
