# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup the next incremental stands on.

Invariant: a parent is in the store, or staged to go there first, and its index is on the guest: what was compared with
is what can be restored. Where there is none, nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import List, Mapping, Optional, Sequence, Tuple

from ..errors import VmbackupError
from ..store.lineage import Standing
from ..store.manifest import VmIdentity
from ..store.names import parse_backup_id


@dataclass(frozen=True)
class Staged:
    """A backup of this guest that waits to be sent. index: path of its tree index."""

    id: str
    parent: str
    base: str
    index: str


@dataclass(frozen=True)
class Parent:
    """What to compare with. index: path; None: with nothing, all files are saved. reason: why this one, for people.

    vm: whose chain it is, by the store's word: a guest does not know its machine's UUIDs.
    stale: staged backups that the next one replaces: their parent is not where the chain stands any more.
    """

    id: str
    base: str
    index: Optional[str]
    reason: str
    vm: VmIdentity
    stale: Tuple[str, ...] = ()


def choose_parent(
    vm: str,
    standing: Optional[Standing],
    indexes: Mapping[str, str],
    staged: Sequence[Staged],
    *,
    oldest: datetime,
    differential: bool = False,
    complete: bool = False,
) -> Parent:
    """Return what the next incremental of a VM stands on.

    standing: the store's word, asked for all ids of indexes. indexes: path on the guest by backup id. staged: not
    committed, oldest first. oldest: staged backups from before are given up: the store lets no backup begin so
    late. differential: stand on the full, not on the last backup. complete: where no index serves,
    save all files. Raises full_due.
    """
    if standing is None:
        raise _full_due(vm, "the store has no backup of it")
    usable = {each: path for each, path in indexes.items() if each in standing.known}
    top = standing.base if differential else standing.tip
    line = _line(standing, staged, oldest) if top in usable else []
    stale = tuple(each.id for each in staged if each not in line)
    if line and not differential:
        last = line[-1]
        return Parent(last.id, last.base, last.index, "since {}, which is staged".format(last.id), standing.vm, stale)
    if top in usable:
        return Parent(top, standing.base, usable[top], "since {}".format(top), standing.vm, stale)
    if usable and not differential:
        newest = max(usable, key=lambda each: (parse_backup_id(each).time, each))
        reason = "since {}; this guest has no index of {}".format(newest, standing.tip)
        return Parent(newest, standing.known[newest], usable[newest], reason, standing.vm, stale)
    if complete:
        reason = "all files; this guest has no index of {}".format(top)
        return Parent(top, standing.base, None, reason, standing.vm, stale)
    raise _full_due(vm, "this guest has no index of {}, nor of another backup in the store".format(top))


def _line(standing: Standing, staged: Sequence[Staged], oldest: datetime) -> List[Staged]:
    """Return the staged backups that go on from the tip, or anew from its full; one that is older would take it back."""
    line: List[Staged] = []
    for each in staged:
        newer = parse_backup_id(each.id).time > max(parse_backup_id(standing.tip).time, oldest)
        if newer and each.parent in (standing.tip, standing.base, *(one.id for one in line)):
            line.append(each)
    return line


def _full_due(vm: str, why: str) -> VmbackupError:
    return VmbackupError(
        "full_due",
        "There is nothing that an incremental of {} could stand on: {}.".format(vm, why),
        "Run full_backup, which takes the baseline; or set complete_without_baseline (vmbackup_complete_without_baseline) "
        "to save all files once, upon a full that is there.",
    )
