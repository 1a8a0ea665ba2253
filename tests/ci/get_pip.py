# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-test runs in place of get-pip.py: installs pip with the wheel that Python itself brings.

ansible-test fetches get-pip.py from a host of its own; where that is not reachable sanity tests could not start.
"""

from __future__ import annotations

import ensurepip
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the bundled pip with the arguments meant for get-pip.py, but for those that only get-pip.py knows."""
    wheel = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    sys.path.insert(0, str(wheel))
    wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
    sys.argv = ["pip", "install", "--upgrade", "pip", *wanted]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
