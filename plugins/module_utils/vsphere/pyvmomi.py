# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pyVmomi, where it is installed: the one place that imports it.

Invariant: every module of ours can be imported without it (for its documentation, and to say `missing_library`
itself); the names are None then, so nothing may touch them before Session.open has found the library there.
"""

from __future__ import annotations

try:
    from pyVmomi import vim, vmodl
except ImportError:
    vim = vmodl = None

__all__ = ["vim", "vmodl"]
