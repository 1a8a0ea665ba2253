# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RECOVER.txt: how to get a backup back with nothing but tar, gzip and sha256sum.

Written for a tired administrator on a machine without this collection: what it is, four steps, what is missing.
"""

from __future__ import annotations

import shlex
from typing import List

from .manifest import Manifest
from .names import SUMS

_CONSISTENCY = {
    "application": "the guest was quiesced, so its file systems (and applications that take part) were in order",
    "crash": "as after a power cut: the guest checks its journals when it starts",
    "powered_off": "the VM was powered off, so its disks are as it left them",
    "files": "files copied one by one while the guest ran",
}

_FULL_STEPS = """\
3. Put the unpacked folder on a datastore: upload it in the ESX host client (Storage, Datastore browser), or
   scp it to /vmfs/volumes/DATASTORE/ on the ESX host. To turn a disk into a native (thin) one, on the ESX host:
       vmkfstools -i NAME.vmdk -d thin NEW.vmdk
   then use NEW.vmdk under the old name.
4. Register and start it, on the ESX host:
       vim-cmd solo/registervm /vmfs/volumes/DATASTORE/FOLDER/NAME.vmx
   or in the client: "Register VM", choose the .vmx. Asked whether it was moved or copied: "moved" when the old
   VM is gone, "copied" when the old one still runs (then it gets a new MAC address and UUID).
   Do not start both on one network.
"""

_INCREMENTAL_STEPS = """\
   For a few files, name them behind that command as `tar tzf` shows them.
3. This backup holds only what changed since its parent, {parent}.
   For everything as of this backup: restore the full {base} first, start the VM
   apart from the network, then take the incrementals that lead from there to here, oldest first (each names its parent
   in its manifest.json). For each, in its folder, as root; TARGET is / in the guest, or the folder of an unpacked tree:
       {delete}
       {unpack}
   The first line takes away what was deleted meanwhile ("deleted" in manifest.json), the second brings the rest.
4. The file tree.idx names all that existed at this moment.
"""

_DELETE = (
    'python3 -c \'import json,os,subprocess,sys; [subprocess.call(["rm","-rf","--",os.path.join(sys.argv[1],n.rstrip("/"))]) '
    'for n in json.load(open("manifest.json",encoding="utf-8",errors="surrogateescape"))["deleted"]]\' TARGET'
)


def recover_text(manifest: Manifest) -> str:
    """Return the text of RECOVER.txt for a backup."""
    lines = _heading(manifest) + [
        "",
        "1. Check that everything here is intact (in this folder):",
        "       sha256sum -c {}".format(SUMS),
        "2. Unpack, where there is room for {}:".format(_room(manifest)),
        "       mkdir restored && {}".format(_unpack(manifest, "restored")),
    ]
    steps = _FULL_STEPS if manifest.kind == "full" else _INCREMENTAL_STEPS
    unpack = _unpack(manifest, "TARGET")
    lines += steps.format(base=manifest.base, parent=manifest.parent, delete=_DELETE, unpack=unpack).splitlines()
    return "\n".join(lines + _contents(manifest)) + "\n"


def _heading(manifest: Manifest) -> List[str]:
    vm = manifest.vm
    return [
        "Backup {} of the VM {}".format(manifest.id, _line(vm.name)),
        "",
        "in vSphere:   {} on {}, {}".format(_line(vm.vsphere_name), _line(vm.esx_host), _line(vm.guest_os)),
        "UUIDs:        instance {}, BIOS {}".format(_line(vm.instance_uuid), _line(vm.bios_uuid)),
        "as of:        {}".format(manifest.as_of),
        "consistency:  {}: {}".format(manifest.consistency, _CONSISTENCY[manifest.consistency]),
    ]


def _room(manifest: Manifest) -> str:
    size = sum(entry.size for entry in manifest.files) + (manifest.changes or {}).get("bytes_saved", 0)
    return "{:.1f} GiB (zeros included)".format(size / (1 << 30))


def _unpack(manifest: Manifest, folder: str) -> str:
    command = "tar xzf {} -C {}".format(shlex.quote(manifest.archive.name), folder)
    if manifest.kind == "full":
        return command
    # tar would write names in the charset of another locale
    return (
        "LC_ALL=C.UTF-8 "
        + command
        + " --acls --xattrs --xattrs-include='*' --numeric-owner --anchored --exclude=.vmbackup/members.idx"
    )


def _contents(manifest: Manifest) -> List[str]:
    lines: List[str] = []
    if manifest.kind == "full":
        lines += ["", "In the archive:"]
        lines += ["  {:>16}  {}  ({})".format(e.size, _line(e.name), e.role) for e in manifest.files]
    lines += ["", "NOT in this backup:" if manifest.left_out else "Nothing was left out."]
    lines += ["  {} ({}): {}".format(_line(e.what), e.kind, _line(e.reason)) for e in manifest.left_out]
    return lines


def _line(text: str) -> str:
    """Keep a name from breaking the page: control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
