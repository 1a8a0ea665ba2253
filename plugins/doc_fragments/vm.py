# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options of glue/vm_options.py."""

    DOCUMENTATION = r"""
options:
  vm:
    description:
      - Name of the VM in the store, by convention its inventory name.
    type: str
    required: true
  vm_name:
    description:
      - Name of the VM in vSphere, as people write it. A slash in a name may also be given as C(%2f), as vSphere stores it.
      - By default the value of O(vm).
    type: str
  vm_uuid:
    description:
      - Instance UUID of the VM. Decides when it is set, whatever the names are.
    type: str
  vm_folder:
    description:
      - Folder of the VM, when several have its name. Either the whole path, such as C(/DC0/vm/prod), or the end of it.
    type: str
  vm_moid:
    description:
      - Managed object id of the VM, such as C(vm-42). Decides before all other options.
    type: str
  backup_id:
    description:
      - Id of the backup, such as C(20261122T010000Z-full-7f3a). All modules of one backup take the same.
    type: str
  controller_id:
    description:
      - Stable name of this controller. It must be the same in every run, also in a container, and differ between controllers.
    type: str
    required: true
  run:
    description:
      - Name of the run, for people, such as a job's number.
    type: str
    default: ""
  lock_dir:
    description:
      - Folder on the controller for its lock files and its marks of removals that were begun. It must outlive the run to be of use.
    type: path
    default: ~/.vmbackup/locks
  mover_is_local:
    description:
      - Whether M(vmbackup.esx.vm_archive) runs on this controller. Only then can a dead run be recognised before its lease ends.
    type: bool
    default: false
  quiesce:
    description:
      - Whether VMware Tools quiesces the guest for the snapshot. With V(preferred), a snapshot without it is taken when it
        fails, and the result says so.
    type: str
    choices: [required, preferred, never]
    default: preferred
  allow:
    description:
      - Codes of findings that are reported and do not stop the backup, though it misses something by them.
    type: list
    elements: str
    default: []
  exclude_disks:
    description:
      - Labels of disks that are left out, such as C(Hard disk 2). The manifest names them.
    type: list
    elements: str
    default: []
  transport:
    description:
      - How frozen files are read. V(datastore) reads them over HTTPS from VMFS and NFS datastores, of disks with one flat
        extent and with deltas of the kind vmfsSparse above it. V(auto) takes the first way that can read the VM.
      - A delta whose grains are scattered is copied to the mover to be read, where it needs as much room while its disk is
        packed. The copy has no name and goes with the process. It lies on the file system of the archive; when that is
        streamed, in the folder that E(TMPDIR) names, by default C(/var/tmp).
    type: str
    choices: [auto, datastore]
    default: auto
  task_timeout:
    description:
      - Seconds for which a vSphere task may make no progress before it counts as hung.
      - A download that stands still is taken up again after as long, at the latest after 60 seconds.
    type: int
    default: 900
"""
