# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Which files of a guest, and where it keeps its state."""

    DOCUMENTATION = r"""
options:
  vm:
    description:
      - Name of the VM in the store.
    type: str
    required: true
  paths:
    description:
      - Absolute folders to look at, with all below them. None may lie in another.
    type: list
    elements: str
    default: ["/"]
  exclude:
    description:
      - Patterns of what is left out, as in a C(.gitignore) file that stands in C(/).
      - A pattern without a slash matches a name at any depth; one with a slash at its start or inside is anchored at C(/); one with a
        slash at its end matches folders only. C(*), C(?), C([a-z]) and C(**) work. C(!) takes back; the last pattern that matches
        counts. Nothing below a folder that is left out can be taken back.
    type: list
    elements: str
    default: []
  exclude_if_present:
    description:
      - Names of marker files. Of a folder that holds one, only the folder and the marker are saved.
    type: list
    elements: str
    default: []
  exclude_caches:
    description:
      - Whether a folder with a valid C(CACHEDIR.TAG) is treated so.
    type: bool
    default: true
  cross_filesystems:
    description:
      - Whether file systems that are mounted below O(paths) are looked at, too. Pseudo file systems (proc, sysfs, tmpfs and their like) never are.
      - What is left out so is named in the result and in the manifest.
    type: bool
    default: false
  state_dir:
    description:
      - Folder on the guest for the indexes of its files, about 30 bytes a file. Never part of a backup.
    type: path
    default: /var/lib/vmbackup
  priority:
    description:
      - V(idle) runs with the lowest priority for CPU and disk, so that the guest's users do not notice.
    type: str
    choices: [idle, normal]
    default: idle
"""
