# SPDX-License-Identifier: Apache-2.0
"""The models that are served, by name and version: load, swap, unload, list.

A swap opens and warms the new one while the old one answers, then puts it in its place; the
old one answers what it has taken and closes. Where memory is bounded, the model that was
asked longest ago makes room, and is opened again when it is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from burnish.core.errors import BurnishError, unknown
from burnish.serving.model_options import ModelOptions
from burnish.serving.oip.faults import Fault
from burnish.serving.refusals import CANNOT_NOW, NOT_THERE
from burnish.serving.served_model import ServedModel

_log = logging.getLogger(__name__)

Open = Callable[[ModelOptions], Awaitable[ServedModel]]


@dataclass
class _Place:
    """One version of one model: what it is, and what answers for it now."""

    options: ModelOptions
    served: ServedModel | None = None
    reason: str = ""
    """Why nothing answers."""
    used_s: float = 0.0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """The served models. Used on one event loop."""

    def __init__(
        self, models: Iterable[ModelOptions], open: Open, memory_bytes: int | None = None
    ) -> None:
        """`memory_bytes` bounds the files of the models that are open at once; None: no bound."""
        self._open = open
        self._memory_bytes = memory_bytes
        self._places: dict[str, dict[str, _Place]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.ready = False
        """Whether all models that were asked for at the start are open."""
        for options in models:
            self._add(options)

    def _add(self, options: ModelOptions) -> _Place:
        versions = self._places.setdefault(options.served_name, {})
        place = versions.get(options.version)
        if place is None:
            place = versions[options.version] = _Place(options)
        return place

    async def start(self) -> None:
        """Opens all models, one after the other. Raises what opening raises."""
        for versions in list(self._places.values()):
            for place in versions.values():
                await self._fill(place)
        self.ready = True

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Returns what answers for a model, its latest version unless told.

        Raises `Fault`: 404 for what is not known, 503 for what is not open.
        """
        place = self._place(name, version)
        place.used_s = time.monotonic()
        if place.served is None:
            raise Fault(
                f"the model {name!r} is not loaded: {place.reason or 'not yet'}", CANNOT_NOW
            )
        return place.served

    async def get(self, name: str, version: str | None = None) -> ServedModel:
        """Returns what `find` returns; a model that made room for others is opened again."""
        place = self._place(name, version)
        if place.served is None and place.reason == _MADE_ROOM:
            try:
                await self._fill(place)
            except BurnishError as error:
                place.reason = _MADE_ROOM
                _log.error("not-opened model=%s reason=%s", name, error)
                raise Fault(f"the model {name!r} cannot be opened again", CANNOT_NOW) from error
        return self.find(name, version)

    def models(self) -> list[ServedModel]:
        """Returns all that answers now, by name and version."""
        return [
            place.served
            for _, versions in sorted(self._places.items())
            for _, place in sorted(versions.items(), key=lambda one: _order(one[0]))
            if place.served is not None
        ]

    def versions(self, name: str) -> list[str]:
        """Returns the versions of a model that answer now."""
        places = self._places.get(name, {})
        return sorted((one for one, place in places.items() if place.served), key=_order)

    def index(self) -> list[dict[str, Any]]:
        """Returns name, version, state and reason of all models that are known."""
        return [
            {
                "name": name,
                "version": version,
                "state": "READY" if place.served is not None else "UNAVAILABLE",
                "reason": "" if place.served is not None else place.reason,
            }
            for name, versions in sorted(self._places.items())
            for version, place in sorted(versions.items(), key=lambda one: _order(one[0]))
        ]

    async def load(self, name: str) -> None:
        """Opens a model that is known, all its versions, anew: a swap where it is open.

        Raises `Fault`: 404 for a name that is not in the configuration, 400 when it cannot
        be opened; what was open stays then.
        """
        if name not in self._places:
            raise self._unknown(name)
        for place in list(self._places[name].values()):
            await self._swap(place, place.options)

    async def swap(self, options: ModelOptions) -> None:
        """Serves what the options say, in place of what has the same name and version."""
        await self._swap(self._add(options), options)

    async def unload(self, name: str) -> None:
        """Closes a model when it has answered what it has taken. Raises `Fault` for no such."""
        if name not in self._places:
            raise self._unknown(name)
        for place in self._places[name].values():
            place.reason = "unloaded"
            await self._empty(place)

    def remove(self, name: str) -> None:
        """Forgets a model that is no longer in the configuration; it answers what it has."""
        for place in self._places.pop(name, {}).values():
            if place.served is not None:
                self._retire(place.served)

    async def close(self) -> None:
        """Closes all models when they have answered what they have taken."""
        self.ready = False
        for versions in self._places.values():
            for place in versions.values():
                if place.served is not None:
                    self._retire(place.served)
                    place.served, place.reason = None, "the server is stopping"
        await asyncio.gather(*self._retiring)

    def _place(self, name: str, version: str | None) -> _Place:
        versions = self._places.get(name)
        if versions is None:
            raise self._unknown(name)
        if version is not None:
            if version not in versions:
                known = ", ".join(sorted(versions, key=_order))
                raise Fault(f"the model {name!r} has no version {version!r}: {known}", NOT_THERE)
            return versions[version]
        if len(versions) == 1:
            return next(iter(versions.values()))
        open_ = [one for one, place in versions.items() if place.served is not None]
        return versions[max(open_ or versions, key=_order)]

    def _unknown(self, name: str) -> Fault:
        return Fault(str(unknown("model", name[:200], self._places)), NOT_THERE)

    async def _fill(self, place: _Place) -> None:
        async with place.opening:
            if place.served is None:
                await self._make_room(place)
                try:
                    place.served = await self._open(place.options)
                except BurnishError as error:
                    place.reason = str(error)
                    raise
                place.reason, place.used_s = "", time.monotonic()

    async def _swap(self, place: _Place, options: ModelOptions) -> None:
        async with place.opening:
            try:
                new = await self._open(options)
            except BurnishError as error:
                if place.served is None:
                    place.reason = str(error)
                raise Fault(f"{options.served_name} could not be loaded: {error}") from error
            old, place.served, place.options = place.served, new, options
            place.reason, place.used_s = "", time.monotonic()
        if old is not None:
            self._retire(old)
            _log.info("swapped model=%s version=%s", new.name, new.version)

    def _retire(self, served: ServedModel) -> None:
        task = asyncio.get_running_loop().create_task(served.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _empty(self, place: _Place) -> None:
        served, place.served = place.served, None
        if served is not None:
            await served.retire()

    async def _make_room(self, place: _Place) -> None:
        if self._memory_bytes is None:
            return
        need = _file_bytes(place.options)
        while True:
            open_ = [
                one
                for versions in self._places.values()
                for one in versions.values()
                if one.served is not None
            ]
            held = sum(_file_bytes(one.options) for one in open_)
            if held + need <= self._memory_bytes or not open_:
                return
            oldest = min(open_, key=lambda one: one.used_s)
            oldest.reason = _MADE_ROOM
            _log.info("unloaded model=%s reason=memory", oldest.options.served_name)
            await self._empty(oldest)


_MADE_ROOM = "it made room for another model: ask again"


def _file_bytes(options: ModelOptions) -> int:
    return sum(one.stat().st_size for one in options.path.glob("model.onnx*"))


def _order(version: str) -> tuple[int, int, str]:
    """Returns what versions are sorted by: numbers by size, after names."""
    return (1, int(version), "") if version.isdigit() else (0, 0, version)
