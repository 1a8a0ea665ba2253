# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Where the store is."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - Where the store is. Give either O(store.host), for a store behind SSH, or O(store.path), for a folder here.
    type: dict
    suboptions:
      host:
        description:
          - Name or address of the store, for SSH.
        type: str
      port:
        description:
          - Port of its SSH server.
        type: int
        default: 22
      user:
        description:
          - User that owns the store.
        type: str
        default: vmbackup
      key_file:
        description:
          - Private key, on the host where this module runs, that the store knows. By default the user's own keys are tried.
        type: path
      known_hosts:
        description:
          - File with the store's host key. By default the user's own known_hosts.
        type: path
      host_key:
        description:
          - The store's host key itself, as C(ssh-keyscan) prints it or as in a C(.pub) file. Goes before O(store.known_hosts).
        type: str
      timeout:
        description:
          - Seconds without an answer after which the host, or a link to it, counts as lost and is tried again.
        type: int
        default: 45
      path:
        description:
          - Root folder of a store that is mounted here, or is here.
        type: path
"""
