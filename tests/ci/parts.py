# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each part of the checks runs. A new check goes into the part that it belongs to, or becomes one in PARTS."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .part import Part
from .places import CACHE, CHECKOUT, COPIES, COPY, LINKS, MAIN_PYTHON, environment, link_checkout, venv
from .venvs import make_venv

IN_COPY = {"cwd": COPY}
CORE_TESTS = "tests/unit/plugins/module_utils/core"
# The versions of get-pip.py that ansible-core 2.17, 2.18 to 2.19, and 2.20 to 2.21 look for.
GET_PIP = ("23_1_2", "24_2", "25_2")
# galaxy-importer ends with 0 whatever it found.
COMPLAINT = re.compile(r"^(ERROR|WARNING|FATAL)", re.MULTILINE)


def lint(part: Part) -> None:
    """Style and types."""
    part.sh("ruff", "format", "--check", "--no-cache", ".")
    part.sh("ruff", "check", "--no-cache", ".")
    part.sh("yamllint", "--strict", ".")
    types = {**environment(), "MYPYPATH": str(LINKS), "MYPY_CACHE_DIR": str(CACHE / "mypy")}
    part.sh("mypy", "-p", "ansible_collections.vmbackup.esx.plugins.module_utils.core", env=types)
    go = {**environment(), "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(CACHE / "go")}
    part.sh("sh", "-c", 'out=$(gofmt -l tests/lab); echo "$out"; test -z "$out"', env=go)
    lint_env = environment(collections=COPIES)
    part.sh("ansible-lint", "--offline", "--profile", "production", env=lint_env, **IN_COPY)
    part.sh("antsibull-changelog", "lint", env=lint_env, **IN_COPY)


def unit(part: Part) -> None:
    part.pytest("tests/unit", "--ansible-unit-inject-only")


def unit38(part: Part) -> None:
    _core_tests(part, "core38")


def unit313(part: Part) -> None:
    _core_tests(part, "core313")


def sanity(part: Part) -> None:
    """ansible-test's own checks, in a true copy: it refuses a symlink."""
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in GET_PIP:
        script = cache / f"get_pip_{version}.py"
        if not script.exists():
            shutil.copyfile(Path(__file__).with_name("get_pip.py"), script)
    # Its own environment sees only what lies beside the copy.
    _link_dependencies(COPIES)
    env = environment(collections=COPIES)
    part.sh("ansible-test", "sanity", "--venv", "--python", MAIN_PYTHON, "--color", "no", env=env, **IN_COPY)


def docs(part: Part) -> None:
    options = ["--plugin-docs", "--validate-collection-refs=dependent", "--skip-rstcheck"]
    part.sh("antsibull-docs", "lint-collection-docs", ".", *options, env=environment(collections=COPIES), **IN_COPY)


def galaxy(part: Part) -> None:
    """Build the collection and have Galaxy's importer judge it."""
    make_venv("galaxy")
    # The importer reads the documentation with no collection beside ours, but for those of its Python.
    _link_dependencies(_site_packages("galaxy"))
    out = CACHE / "galaxy"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if not part.sh("ansible-galaxy", "collection", "build", COPY, "--output-path", out):
        return
    config = out / "importer.cfg"
    config.write_text("[galaxy-importer]\nRUN_ANSIBLE_TEST = False\nCHECK_REQUIRED_TAGS = True\n")
    env = {**environment(venv_name="galaxy"), "GALAXY_IMPORTER_CONFIG": str(config)}
    archive = next(out.glob("vmbackup-esx-*.tar.gz"))
    part.sh("python", "-m", "galaxy_importer.main", archive, cwd=out, env=env, judge=_importer_is_content)


def integration(part: Part) -> None:
    """The real playbooks against the lab, and the lab's own tests."""
    part.pytest("tests/lab", "tests/integration", "--ansible-unit-inject-only", "--durations=5")


def faults(part: Part) -> None:
    """What goes wrong, against a lab of its own."""
    part.pytest("tests/faults", "--ansible-unit-inject-only", "--durations=5")


def oldest(part: Part) -> None:
    _quick_run(part, "oldest")


def newest(part: Part) -> None:
    _quick_run(part, "newest")


# Longest first: two run at once.
PARTS = {
    "faults": faults,
    "integration": integration,
    "sanity": sanity,
    "lint": lint,
    "galaxy": galaxy,
    "unit": unit,
    "newest": newest,
    "oldest": oldest,
    "unit38": unit38,
    "unit313": unit313,
    "docs": docs,
}
# What `make` calls them by where that is not the part's own name.
GROUPS = {
    "integration": ["faults", "integration"],
    "matrix": ["oldest", "newest"],
    "unit": ["unit", "unit38", "unit313"],
    "all": list(PARTS),
}


def _core_tests(part: Part, name: str) -> None:
    python = make_venv(name) / "bin" / "python"
    env = {**environment(venv_name=name), "PYTHONPATH": str(LINKS)}
    part.pytest(CORE_TESTS, env=env, python=python)


def _quick_run(part: Part, name: str) -> None:
    """Read every playbook and module with another ansible-core, and back up one VM with it."""
    bin_folder = make_venv(name) / "bin"
    tree = CACHE / f"tree-{name}"
    link_checkout(tree)
    _link_dependencies(tree)
    env = environment(venv_name=name, collections=tree)
    inventory = CHECKOUT / "inventory.example" / "static"
    playbooks = sorted((CHECKOUT / "playbooks").glob("*.yml"))
    part.sh("ansible-playbook", "--syntax-check", "-i", inventory, *playbooks, env=env)
    modules = sorted(path.stem for path in (CHECKOUT / "plugins" / "modules").glob("*.py"))
    part.sh("ansible-doc", *(f"vmbackup.esx.{module}" for module in modules), env=env)
    quick = {**environment(collections=tree), "VMBACKUP_TEST_ANSIBLE": str(bin_folder)}
    part.pytest("tests/integration", "-m", "quick", "--ansible-unit-inject-only", env=quick)


def _link_dependencies(tree: Path) -> None:
    """Put the collections that ours stands on beside it, from the main environment."""
    packages = _site_packages("main") / "ansible_collections"
    for namespace in ("community", "vmware"):
        place = tree / "ansible_collections" / namespace / "vmware"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(packages / namespace / "vmware")


def _site_packages(name: str) -> Path:
    return next((venv(name) / "lib").glob("python3.*")) / "site-packages"


def _importer_is_content(code: int, output: str) -> bool:
    return code == 0 and COMPLAINT.search(output) is None and os.linesep in output
