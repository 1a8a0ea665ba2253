# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python3 -m tests.ci setup` makes the environment; `python3 -m tests.ci PART...` runs checks (`all`: what CI runs).

Runs on the machine's own Python, with the standard library only: it is what makes the rest.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from .packages import install_packages
from .part import Part, run_part
from .parts import GROUPS, PARTS
from .places import copy_checkout, link_checkout
from .venvs import make_venv

AT_ONCE = 2


def main(words: list[str]) -> int:
    """Run what the words name; return the exit code."""
    if words == ["setup"]:
        set_up()
        return 0
    names = list(dict.fromkeys(name for word in words for name in GROUPS.get(word, [word])))
    if not names or not set(names) <= set(PARTS):
        print(f"usage: python3 -m tests.ci setup | all | {' | '.join(sorted({*PARTS, *GROUPS}))}", file=sys.stderr)
        return 2
    set_up()
    copy_checkout()
    return run_parts(names)


def set_up() -> None:
    """Install what is missing, make the main environment, and put the checkout into a collection tree."""
    if sys.version_info < (3, 11):
        sys.exit(f"Python 3.11 or newer is needed to run this; this is {sys.version.split()[0]}.")
    install_packages()
    make_venv("main")
    link_checkout()


def run_parts(names: list[str]) -> int:
    """Run the parts, some at once; print each when it is done, then one line for each, then the sum."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(run_part, name, PARTS[name]) for name in names]
        done = [show(future.result()) for future in as_completed(running)]
    print("\npart          passed  failed  seconds")
    for part in done:
        print(f"{part.name:<12} {part.passed:>7} {part.failed:>7} {part.seconds:>8.0f}")
    failed = sum(part.failed for part in done)
    print(f"{sum(part.passed for part in done)} passed, {failed} failed")
    return 1 if failed else 0


def show(part: Part) -> Part:
    """Print a part's notes, and its whole output when something in it failed."""
    print(f"== {part.name}: {'FAILED' if part.failed else 'ok'} in {part.seconds:.0f} s", flush=True)
    for note in part.notes:
        print(f"   {note}")
    if part.failed:
        print("".join(part.output), flush=True)
    return part


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
