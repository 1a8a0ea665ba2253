# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scan takes and what it leaves out, as asked for.

Invariant: rules that exist are sound: roots and own folders are absolute and plain, no root lies in another, every
pattern is understood. Whether a root is there shows only in the scan.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Set, Tuple

from ..errors import VmbackupError
from .patterns import Patterns


@dataclass(frozen=True)
class ScanRules:
    """What to scan.

    paths: absolute roots. exclude: patterns as in a .gitignore file that stands in "/".
    exclude_if_present: names of files; a folder that has one is left out but for itself and that file.
    exclude_caches: treat a valid CACHEDIR.TAG so. cross_filesystems: go below mount points (never into pseudo ones).
    always_out: absolute paths that are never scanned, such as our own state folder.
    Raises scan_path_invalid, scan_pattern_invalid.
    """

    paths: Tuple[str, ...]
    exclude: Tuple[str, ...] = ()
    exclude_if_present: Tuple[str, ...] = ()
    exclude_caches: bool = False
    cross_filesystems: bool = False
    always_out: Tuple[str, ...] = ()
    patterns: Patterns = field(init=False, repr=False, compare=False)
    roots: Tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    markers: Tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    never: Tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        roots = tuple(sorted((_relative(path, "paths") for path in self.paths), key=path_key))
        if not roots:
            raise _invalid("there is no root to scan", "paths")
        for upper, lower in zip(roots, roots[1:]):
            if is_within(lower, upper):
                raise _invalid("the root /{} lies in /{}".format(os.fsdecode(lower), os.fsdecode(upper)), "paths")
        for name in self.exclude_if_present:
            if not name or "/" in name or "\0" in name:
                raise _invalid("{!r} is not the name of a file".format(name), "exclude_if_present")
        object.__setattr__(self, "roots", roots)
        object.__setattr__(self, "markers", tuple(os.fsencode(name) for name in self.exclude_if_present))
        object.__setattr__(self, "never", tuple(_relative(path, "always_out") for path in self.always_out))
        object.__setattr__(self, "patterns", Patterns(self.exclude))

    def as_data(self) -> Dict[str, Any]:
        """Return what was asked for as JSON can hold it."""
        asked = [each for each in fields(self) if each.init]
        return {each.name: getattr(self, each.name) for each in asked}

    def own_folders(self) -> Dict[bytes, Set[bytes]]:
        """Return the names that are never scanned, by the folder that holds them."""
        found: Dict[bytes, Set[bytes]] = {}
        for path in self.never:
            parent, _slash, name = path.rpartition(b"/")
            found.setdefault(parent, set()).add(name)
        return found

    def leaves_out(self, path: bytes, folder: bool) -> bool:
        """Tell whether these rules leave out a path, be it for a folder above it. Markers are not looked at."""
        if not any(is_within(path, root) or is_within(root, path) for root in self.roots):
            return True
        if any(is_within(path, own) for own in self.never):
            return True
        parents = [path[:end] for end, byte in enumerate(path) if byte == 0x2F]
        above_root = {parent for root in self.roots for parent in ancestors(root) + [root]}
        return any(self.patterns.matches(each, True) for each in parents if each not in above_root) or (
            path not in above_root and self.patterns.matches(path, folder)
        )


def path_key(path: bytes) -> bytes:
    """Return what paths are ordered by: component by component, bytewise, a folder before what it holds."""
    return path.replace(b"/", b"\0")


def is_within(path: bytes, folder: bytes) -> bool:
    """Tell whether a path is a folder or lies below it."""
    return not folder or path == folder or path.startswith(folder + b"/")


def ancestors(path: bytes) -> List[bytes]:
    """Return the folders above a path, from b"" on."""
    return ([b""] if path else []) + [path[:end] for end, byte in enumerate(path) if byte == 0x2F]


def _relative(path: str, option: str) -> bytes:
    raw = os.fsencode(path)
    plain = raw.strip(b"/")
    parts = plain.split(b"/") if plain else []
    if not raw.startswith(b"/") or b"\0" in raw or any(part in (b"", b".", b"..") for part in parts):
        raise _invalid("{!r} is not a plain absolute path".format(path), option)
    return plain


def _invalid(why: str, option: str) -> VmbackupError:
    return VmbackupError("scan_path_invalid", why, "correct `{}`".format(option))
