# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks of this controller: one file per VM says which playbook process owns its backup.

Invariant: a lock proves death only when everything speaks for it; whatever is unclear proves nothing, and the lease of
the snapshot decides. The file is never replaced, so that a lock held on it by a packing module stays visible.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

from ..errors import VmbackupError

_ANCESTORS = 32


def write_lock(
    lock_dir: str,
    instance_uuid: str,
    *,
    backup_id: str,
    controller_id: str,
    mover_is_local: bool,
    owner: Optional[int],
) -> None:
    """Note that a backup of a VM belongs to a process of this controller.

    lock_dir: made when missing. owner: pid of the playbook, as find_owner gives it; None proves nothing later.
    mover_is_local: whether the packing module runs on this controller, and so would hold the lock while it lives.
    Raises vm_busy when a packing module of another run holds the lock, lock_dir_unusable.
    """
    content = {
        "backup_id": backup_id,
        "controller_id": controller_id,
        "owner": owner,
        "owner_start": None if owner is None else _start_time(owner),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "mover_is_local": mover_is_local,
    }
    with _opened(lock_dir, instance_uuid) as file:
        if not _take(file):
            raise _busy(instance_uuid, _content(file))
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(content, sort_keys=True).encode(), 0)
        os.fsync(file)


@contextmanager
def hold(lock_dir: str, instance_uuid: str, backup_id: str) -> Iterator[None]:
    """Hold a VM's lock while packing it on the controller: as long as it is held, nobody is taken for dead.

    Raises vm_busy when it is held already, or is another backup's; lock_dir_unusable.
    """
    with _opened(lock_dir, instance_uuid) as file:
        taken, content = _take(file), _content(file)
        if not taken or content.get("backup_id", backup_id) != backup_id:
            raise _busy(instance_uuid, content)
        yield


def proves_death(lock_dir: str, instance_uuid: str, *, backup_id: str, controller_id: str) -> bool:
    """Tell whether a lock of this controller proves that the owner of a backup is dead."""
    if not _path(lock_dir, instance_uuid).is_file():
        return False
    namespace = _pid_namespace()
    with _opened(lock_dir, instance_uuid) as file:
        content = _content(file)
        return (
            namespace is not None
            and content.get("pid_namespace") == namespace
            and content.get("controller_id") == controller_id
            and content.get("backup_id") == backup_id
            and content.get("boot_id") == _boot_id()
            and content.get("mover_is_local") is True
            and _is_dead(content.get("owner"), content.get("owner_start"))
            and _take(file)  # last: a look at a living run must not come between it and its lock
        )


def is_held(lock_dir: str, instance_uuid: str) -> bool:
    """Tell whether a packing module on this controller holds a VM's lock."""
    if not _path(lock_dir, instance_uuid).is_file():
        return False
    with _opened(lock_dir, instance_uuid) as file:
        return not _take(file)


def find_owner(pid: int) -> Optional[int]:
    """Return the pid of the playbook that started the process `pid`, or None.

    The first ancestor that runs an ansible program is the worker; its parent, where that is one too, is the playbook.
    The wrapper of a module (AnsiballZ) and the shell that starts it name ansible only in their paths.
    """
    parent = _parent(pid)
    for _step in range(_ANCESTORS):
        if parent is None or parent <= 1:
            return None
        if _is_ansible(parent):
            above = _parent(parent)
            return above if above is not None and _is_ansible(above) else parent
        parent = _parent(parent)
    return None


def _is_ansible(pid: int) -> bool:
    try:
        words = os.fsdecode(Path("/proc/{}/cmdline".format(pid)).read_bytes()).split("\0")
    except OSError:
        return False
    script = next((word for word in words[1:] if not word.startswith("-")), "")  # behind python and its options
    names = [os.path.basename(word) for word in (words[0], script)]
    return any(name == "ansible" or (name.startswith("ansible-") and " " not in name) for name in names)


def _stat(pid: int) -> Optional[Tuple[int, int]]:
    """Return parent and start time, fields 4 and 22 of /proc/<pid>/stat (proc(5)); None for a process that is gone."""
    try:
        text = Path("/proc/{}/stat".format(pid)).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    if fields[0] in "ZX":
        return None
    return int(fields[1]), int(fields[19])


def _parent(pid: int) -> Optional[int]:
    stat = _stat(pid)
    return None if stat is None else stat[0]


def _start_time(pid: int) -> Optional[int]:
    stat = _stat(pid)
    return None if stat is None else stat[1]


def _is_dead(pid: Any, started: Any) -> bool:
    return isinstance(pid, int) and isinstance(started, int) and _start_time(pid) != started


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _pid_namespace() -> Optional[str]:
    """Return what pids count in, since a container shares the boot id with its host; None: /proc shows another one's."""
    if os.readlink("/proc/self") != str(os.getpid()):
        return None
    return os.readlink("/proc/self/ns/pid")


def _path(lock_dir: str, instance_uuid: str) -> Path:
    return Path(lock_dir) / "{}.lock".format(instance_uuid.lower().replace("/", "_"))


@contextmanager
def _opened(lock_dir: str, instance_uuid: str) -> Iterator[int]:
    path = _path(lock_dir, instance_uuid)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VmbackupError(
            "lock_dir_unusable",
            "The lock file {} cannot be used: {}".format(path, error.strerror),
            "set lock_dir to a folder that the user of this playbook may write",
        ) from error
    try:
        yield file
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(file: int) -> Dict[str, Any]:
    try:
        content = json.loads(os.pread(file, 65536, 0).decode())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _busy(instance_uuid: str, content: Dict[str, Any]) -> VmbackupError:
    return VmbackupError(
        "vm_busy",
        "The VM with instance UUID {} is being backed up on this controller as {}".format(
            instance_uuid, content.get("backup_id", "another backup")
        ),
        "wait for that run to end; a dead run's locks free themselves",
    )
