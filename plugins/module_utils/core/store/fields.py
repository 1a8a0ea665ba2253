# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read typed fields out of JSON that others wrote.

Invariant: a field that is missing or of another type is named in the error, by its path in the document.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from ..errors import VmbackupError


class Fields:
    """The fields of one JSON object."""

    def __init__(self, data: Dict[str, Any], path: str = "") -> None:
        self._data = data
        self._path = path

    @classmethod
    def parse(cls, data: bytes) -> Fields:
        """Parse a manifest's bytes; raises manifest_invalid unless they are one JSON object."""
        try:
            parsed = json.loads(data.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise VmbackupError("manifest_invalid", "The manifest is not JSON: {}.".format(error)) from None
        if not isinstance(parsed, dict):
            raise VmbackupError("manifest_invalid", "The manifest is not a JSON object.")
        return cls(parsed)

    def invalid(self, name: str, wanted: str) -> VmbackupError:
        """Return the error for a field that is not what was wanted."""
        return VmbackupError("manifest_invalid", "The manifest's {}{} must be {}.".format(self._path, name, wanted))

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self._data.get(name) is not None

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._data.get(name)
        if not isinstance(value, str):
            raise self.invalid(name, "a string")
        return value

    def optional_text(self, name: str) -> Optional[str]:
        """Return a string, or None for null; the key itself must be there."""
        if name not in self._data:
            raise self.invalid(name, "a string or null")
        return self.text(name) if self.has(name) else None

    def number(self, name: str) -> int:
        """Return an integer of at least 0."""
        value = self._data.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.invalid(name, "a whole number of at least 0")
        return value

    def optional_data(self, name: str) -> Optional[Dict[str, Any]]:
        """Return an object as it stands, or None."""
        value = self._data.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.invalid(name, "an object or null")
        return value

    def texts(self, name: str) -> Tuple[str, ...]:
        """Return a list of strings, empty where there is none."""
        value = self._data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.invalid(name, "a list of strings")
        return tuple(value)

    def part(self, name: str) -> Fields:
        """Return the fields of an object inside this one."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            raise self.invalid(name, "an object")
        return Fields(value, "{}{}.".format(self._path, name))

    def parts(self, name: str) -> List[Fields]:
        """Return the fields of each object in a list."""
        value = self._data.get(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.invalid(name, "a list of objects")
        return [Fields(each, "{}{}[{}].".format(self._path, name, n)) for n, each in enumerate(value)]
