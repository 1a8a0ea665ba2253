# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as fixtures: one for a test run, with VMs made for each test."""

from tests.lab.fixtures import fresh_vm, lab, play

__all__ = ["fresh_vm", "lab", "play"]
