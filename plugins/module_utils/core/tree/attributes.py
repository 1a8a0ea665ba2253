# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extended attributes, ACLs and labels of a file, as the PAX records that GNU tar, star and libarchive share.

Invariant: what is read is what `tar --acls --xattrs --xattrs-include='*'` sets again; owners in ACLs are numbers.

Sources: GNU tar 1.34, src/xheader.c and src/xattrs.c; linux/posix_acl_xattr.h for the binary form of ACLs.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Dict, Iterator, List, Optional, Tuple, Union

_ACLS = {"system.posix_acl_access": b"SCHILY.acl.access", "system.posix_acl_default": b"SCHILY.acl.default"}
_LABEL = "security.selinux"
_UNSUPPORTED = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)

_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_VERSION = 2
_TAGS = {1: b"user:", 2: b"user:", 4: b"group:", 8: b"group:", 16: b"mask:", 32: b"other:"}
_NAMED = (2, 8)


def attribute_records(file: Union[int, bytes]) -> Dict[bytes, bytes]:
    """Return the records of a file. file: a descriptor, or a path that is not followed. Raises OSError."""
    return dict(_records(file))


def _records(file: Union[int, bytes]) -> Iterator[Tuple[bytes, bytes]]:
    for name in _names(file):
        try:
            value = os.getxattr(file, name, follow_symlinks=isinstance(file, int))
        except OSError as error:
            if error.errno == errno.ENODATA:  # it went meanwhile
                continue
            raise
        text = acl_text(value) if name in _ACLS else None
        if text is not None:
            yield _ACLS[name], text
        elif name == _LABEL:
            yield b"RHT.security.selinux", value.rstrip(b"\0")
        else:
            encoded = os.fsencode(name).replace(b"%", b"%25").replace(b"=", b"%3D")
            yield b"SCHILY.xattr." + encoded, value


def _names(file: Union[int, bytes]) -> List[str]:
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return []
        raise


def acl_text(value: bytes) -> Optional[bytes]:
    """Return a POSIX ACL in its short text form with numeric owners; None for one that is not understood.

    Such a one is kept as it is, like any other attribute.
    """
    known = len(value) % _ACL_ENTRY.size == _ACL_HEADER.size and _ACL_HEADER.unpack_from(value)[0] == _ACL_VERSION
    parts = list(_ACL_ENTRY.iter_unpack(value[_ACL_HEADER.size :])) if known else []
    if not parts or not all(tag in _TAGS for tag, _permissions, _number in parts):
        return None
    entries = []
    for tag, permissions, number in parts:
        who = b"%d" % number if tag in _NAMED else b""
        granted = bytes(
            letter if permissions & bit else ord("-") for bit, letter in ((4, ord("r")), (2, ord("w")), (1, ord("x")))
        )
        entries.append(_TAGS[tag] + who + b":" + granted)
    return b",".join(entries)
