# SPDX-License-Identifier: Apache-2.0
"""A union-find over channel atoms, in numpy, that remembers why an atom must stay.

An atom stands for one position along one axis of a tensor. Atoms that are joined are kept
or cut together; a lock spreads to all that an atom is joined with, whenever that happens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""The atoms along one axis, one for each position."""

_UNLOCKED = np.iinfo(np.int64).max


class Atoms:
    """Atoms are numbered from 0 in the order in which they were made.

    >>> atoms = Atoms()
    >>> one, two = atoms.new(3), atoms.new(3)
    >>> atoms.join(one[1:], two[:2])
    >>> atoms.find(two).tolist()
    [1, 2, 5]
    >>> atoms.lock(one[2:], "it is read")
    >>> atoms.reasons(two)
    [None, 'it is read', None]
    """

    def __init__(self) -> None:
        self._parent: Ids = np.arange(1024, dtype=np.int64)
        self._lock: Ids = np.full(1024, _UNLOCKED, dtype=np.int64)
        self._count = 0
        self._reasons: list[str] = []

    def __len__(self) -> int:
        return self._count

    def new(self, count: int) -> Ids:
        """Returns that many atoms, joined with none."""
        ids = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        if self._count > self._parent.size:
            size = max(2 * self._parent.size, self._count)
            self._parent = np.concatenate((self._parent, np.arange(self._parent.size, size)))
            more = np.full(size - self._lock.size, _UNLOCKED, dtype=np.int64)
            self._lock = np.concatenate((self._lock, more))
        return ids

    def find(self, ids: Ids) -> Ids:
        """Returns for each atom the lowest one that it is joined with."""
        roots = self._parent[ids]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[ids] = roots
        return roots

    def join(self, one: Ids, other: Ids) -> None:
        """Joins the atoms at each place of two arrays of equal length."""
        while True:
            first, second = self.find(one), self.find(other)
            apart = first != second
            if not apart.any():
                return
            low = np.minimum(first, second)[apart]
            high = np.maximum(first, second)[apart]
            # An atom that occurs twice in `high` gets one of its parents now, the other in
            # the next round.
            self._parent[high] = low
            # What is above may have been put below another in this round: hence the roots.
            np.minimum.at(self._lock, self.find(high), self._lock[high])

    def lock(self, ids: Ids, reason: str) -> None:
        """Locks atoms that are not locked yet."""
        if not ids.size:
            return
        if not self._reasons or self._reasons[-1] != reason:
            self._reasons.append(reason)
        np.minimum.at(self._lock, self.find(ids), len(self._reasons) - 1)

    def locked(self, ids: Ids) -> NDArray[np.bool_]:
        """Returns which of the atoms must stay."""
        held: NDArray[np.bool_] = self.lock_numbers(ids) != _UNLOCKED
        return held

    def lock_numbers(self, ids: Ids) -> Ids:
        """Returns for each atom the number of its first reason, a large number for none."""
        return self._lock[self.find(ids)]

    def reasons(self, ids: Ids) -> list[str | None]:
        """Returns for each atom why it must stay, or None."""
        numbers = self.lock_numbers(ids).tolist()
        return [None if one == _UNLOCKED else self._reasons[one] for one in numbers]
