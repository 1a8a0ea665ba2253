# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python environments of the checks, each made once and stamped by its requirements.

Invariant: a stamped environment holds exactly what its requirement file names for exactly that Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .places import MAIN_PYTHON, REQUIREMENTS, venv

# Environment: the Python that it is for.
PYTHONS = {
    "main": MAIN_PYTHON,
    "galaxy": MAIN_PYTHON,
    "oldest": "3.11",
    "newest": "3.13",
    "core38": "3.8",
    "core313": "3.13",
}


class NoPython(Exception):
    """This machine has no such Python: the part that needs it is skipped, and says so."""


def make_venv(name: str) -> Path:
    """Make the environment unless its stamp is right; return its folder.

    Raises NoPython when its Python is missing, RuntimeError with pip's words when pip fails.
    """
    folder, requirements = venv(name), REQUIREMENTS / f"requirements-{name}.txt"
    python = find_python(PYTHONS[name])
    stamp_file = folder / "stamp"
    stamp = hashlib.sha256(python.encode() + requirements.read_bytes()).hexdigest()
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return folder
    print(f"Making the Python environment {name} in {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(python, "-m", "venv", str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run(*pip, "-r", str(requirements))
    stamp_file.write_text(stamp)
    return folder


def find_python(version: str) -> str:
    """Return a Python of that version: this one, one on the PATH, or one of pyenv's."""
    if version == MAIN_PYTHON:
        # Not the venv's own: an environment made from an environment would lose its base.
        return str(Path(sys.base_prefix) / "bin" / f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"))]
    on_path = shutil.which(f"python{version}")
    for candidate in [on_path, *candidates] if on_path else candidates:
        told = subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True, check=False)
        if told.returncode == 0:
            return candidate
    raise NoPython(f"no Python {version} here (neither python{version} on the PATH nor in pyenv)")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}")
