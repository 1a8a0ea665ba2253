# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns that leave entries out, with the meaning that gitignore gives them.

Invariant: paths are bytes below "/" without a leading slash; the last pattern that matches decides, for the entry alone:
what lies below a folder that is left out is never asked about.
"""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional, Pattern, Sequence, Tuple

from ..errors import VmbackupError

_ANY_CHARACTER = rb"[^/\0]"
_SPECIAL = re.compile(rb"\\(.)|(\*+)|(\?)|\[([!^]?)(\]?[^\]/]*)\]|([^\\*?\[])", re.DOTALL)


class _Run(NamedTuple):
    """Neighbouring patterns of one kind, as one regular expression for each type of entry."""

    takes_back: bool
    any_type: Optional[Pattern[bytes]]
    folder: Pattern[bytes]


class Patterns:
    """Compiled patterns; raises scan_pattern_invalid for one that cannot be understood."""

    def __init__(self, patterns: Sequence[str]) -> None:
        parsed = [_parse(pattern) for pattern in patterns]
        self._runs = _runs(parsed)
        names = [each.where for each in parsed if not each.takes_back and not each.anchored]
        folders = [each.where for each in parsed if not each.takes_back and each.anchored]
        self._names = re.compile(rb"(?:\A|\0)(?:" + b"|".join(names) + rb")(?=\0|\Z)") if names else None
        self._folders = _either(folders) if folders else None

    def may_match(self, folder: bytes, names: bytes) -> bool:
        """Tell whether any of a folder's names, joined by NUL, could be left out; a quick look before `matches`."""
        return (self._names is not None and self._names.search(names) is not None) or (
            self._folders is not None and self._folders.fullmatch(folder) is not None
        )

    def matches(self, path: bytes, folder: bool) -> bool:
        """Tell whether the patterns leave out this path, its parents aside."""
        for run in reversed(self._runs):
            expression = run.folder if folder else run.any_type
            if expression is not None and expression.fullmatch(path):
                return not run.takes_back
        return False


class _Parsed(NamedTuple):
    """One pattern. expression: of whole paths. where: of names if it is not anchored, else of the folders it looks into."""

    takes_back: bool
    folder_only: bool
    anchored: bool
    expression: bytes
    where: bytes


def _parse(pattern: str) -> _Parsed:
    body = os.fsencode(pattern)
    takes_back = body.startswith(b"!")
    if takes_back:
        body = body[1:]
    folder_only = body.endswith(b"/")
    if folder_only:
        body = body[:-1]
    anchored = b"/" in body
    parts = body[1:].split(b"/") if body.startswith(b"/") else body.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or b"\0" in body:
        raise _invalid(pattern, "it has an empty part, '.', '..' or a NUL")
    globs = [_translate(pattern, part) if part.strip(b"*") or part == b"*" else b"**" for part in parts]
    if globs == [b"**"] and not anchored:
        globs = [_ANY_CHARACTER + b"+"]
    where = _folders_of(globs) if anchored else globs[0]
    return _Parsed(takes_back, folder_only, anchored, _join(globs, anchored), where)


def _folders_of(globs: List[bytes]) -> bytes:
    """Return the expression of the folders in which an anchored pattern can match."""
    above = list(globs if globs[-1] == b"**" else globs[:-1])
    if not above or above[-1] != b"**":
        return _join(above, True) if above else b""
    while above and above[-1] == b"**":
        above.pop()
    return _join(above, True) + rb"(?:/.*)?" if above else b".*"


def _join(globs: List[bytes], anchored: bool) -> bytes:
    """Return the expression of a whole path; a part of two asterisks stands for any number of folders."""
    expression = b"" if anchored else rb"(?:.*/)?"
    for glob in globs[:-1]:
        expression += rb"(?:.*/)?" if glob == b"**" else glob + b"/"
    return expression + (b".+" if globs[-1] == b"**" else globs[-1])


def _translate(pattern: str, part: bytes) -> bytes:
    """Return the expression of one name."""
    expression, position = b"", 0
    while position < len(part):
        found = _SPECIAL.match(part, position)
        if found is None or (found.group(5) or b"").startswith(b"[:"):
            raise _invalid(pattern, "a bracket or a backslash has nothing to close it, or a named class is used")
        expression += _token(found)
        position = found.end()
    try:
        re.compile(expression)
    except re.error as error:
        raise _invalid(pattern, str(error)) from error
    return expression


def _token(found: "re.Match[bytes]") -> bytes:
    escaped, stars, question, negation, characters, plain = found.groups()
    if stars:
        return _ANY_CHARACTER + b"*"
    if question:
        return _ANY_CHARACTER
    if characters is not None:
        inside = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", characters)
        return rb"(?![/\0])[" + (b"^" if negation else b"") + inside + b"]"
    return re.escape(escaped or plain)


def _runs(parsed: Sequence[_Parsed]) -> Tuple[_Run, ...]:
    groups: List[List[_Parsed]] = []
    for each in parsed:
        if not groups or groups[-1][0].takes_back != each.takes_back:
            groups.append([])
        groups[-1].append(each)
    return tuple(_run(group) for group in groups)


def _run(group: Sequence[_Parsed]) -> _Run:
    any_type = [each.expression for each in group if not each.folder_only]
    folder = [each.expression for each in group]
    return _Run(group[0].takes_back, _either(any_type) if any_type else None, _either(folder))


def _either(expressions: Sequence[bytes]) -> Pattern[bytes]:
    return re.compile(b"|".join(expressions), re.DOTALL)


def _invalid(pattern: str, why: str) -> VmbackupError:
    return VmbackupError(
        "scan_pattern_invalid",
        "the pattern {!r} cannot be understood: {}".format(pattern, why),
        "correct `exclude`; patterns are written as in a .gitignore file",
    )
