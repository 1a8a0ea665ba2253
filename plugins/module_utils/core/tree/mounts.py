# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file system a device number belongs to.

Invariant: what the kernel's list of mounts does not name (a subvolume of btrfs) is another file system, never a pseudo one.
"""

from __future__ import annotations

import os
from typing import Dict

# Their entries are the kernel's state or gone with the next boot.
PSEUDO = frozenset(
    b"autofs bdev binder binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs fusectl hugetlbfs "
    b"mqueue nfsd nsfs pipefs proc pstore ramfs resctrl rpc_pipefs securityfs selinuxfs smackfs sockfs sysfs tmpfs tracefs".split()
)


class Mounts:
    """The mounts of this process, read when first asked for."""

    def __init__(self) -> None:
        self._types: Dict[int, bytes] = {}
        self._asked: Dict[int, bytes] = {}

    def filesystem(self, device: int) -> bytes:
        """Return the type of the file system with this st_dev, b"" if it is not listed."""
        if device not in self._asked:
            self._read()
            self._asked[device] = self._types.get(device, b"")
        return self._asked[device]

    def _read(self) -> None:
        try:
            with open("/proc/self/mountinfo", "rb") as listed:
                lines = listed.read().splitlines()
        except OSError:
            return  # without /proc everything that is mounted is another file system
        for line in lines:
            before, _separator, after = line.partition(b" - ")
            fields = before.split()
            if len(fields) > 2 and after:
                major, _colon, minor = fields[2].partition(b":")
                self._types[os.makedev(int(major), int(minor))] = after.split()[0]
