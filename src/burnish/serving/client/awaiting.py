# SPDX-License-Identifier: Apache-2.0
"""`AsyncClient`: asks a server, and lets other coroutines run until it answers."""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from burnish.serving.client.ask import Inference
from burnish.serving.client.exchange import Call, T, Terms
from burnish.serving.client.prediction import Prediction
from burnish.serving.client.retrying import Retrying
from burnish.serving.client.sample import Sample, sample_body
from burnish.serving.client.transport import AsyncWire, place
from burnish.serving.client.verbs import Verbs

if TYPE_CHECKING:
    import httpx


class AsyncClient:
    """What `Client` is, with coroutines, on one event loop of asyncio; see there.

    The first attempt of a call begins when the coroutine runs. A call that is cancelled closes
    its connection, by which the server takes the request out of its queue.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        *,
        max_response_bytes: int = 2**30,
        certificate: str | Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._verbs = Verbs(Terms(timeout_s, Retrying(retries), clock, random), model)
        self._sleep = sleep
        self._wire = AsyncWire(place(url, token, max_response_bytes, clock, certificate), transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client cannot be used any more."""
        await self._wire.close()

    async def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        deadline_s: float | None = None,
        priority: int = 0,
        id: str | None = None,
        binary: bool = True,
        compress: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Returns the model's outputs for inputs by name, as `Client.infer` does."""
        inference = Inference(inputs, outputs, priority, id, binary, compress)
        return await self._run(self._verbs.infer(inference, model, version, deadline_s))

    async def predict(
        self,
        sample: Sample,
        *,
        model: str | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """Returns what a bundle says about one raw sample, as `Client.predict` does."""
        content_type, body = await asyncio.to_thread(sample_body, sample)
        return await self._run(self._verbs.predict(content_type, body, model, version, deadline_s))

    async def live(self) -> bool:
        """Returns whether the server answers; no retries."""
        return await self._run(self._verbs.live())

    async def ready(self, model: str | None = None) -> bool:
        """Returns whether the server, or a model, takes requests; no retries."""
        return await self._run(self._verbs.ready(model))

    async def metadata(self, model: str | None = None) -> dict[str, Any]:
        """Returns the server's name, version and extensions, or a model's inputs and outputs."""
        return await self._run(self._verbs.metadata(model))

    async def config(self, model: str) -> dict[str, Any]:
        """Returns a model's configuration."""
        return await self._run(self._verbs.config(model))

    async def statistics(self, model: str | None = None) -> dict[str, Any]:
        """Returns what the server counted, of all models or one."""
        return await self._run(self._verbs.statistics(model))

    async def models(self) -> list[dict[str, Any]]:
        """Returns name, version, state and reason of all models that the server knows."""
        return await self._run(self._verbs.models())

    async def load(self, model: str) -> None:
        """Has the server open a model, or open it anew, where it lets clients do so."""
        await self._run(self._verbs.load(model))

    async def unload(self, model: str) -> None:
        """Has the server close a model, where it lets clients do so."""
        await self._run(self._verbs.unload(model))

    async def _run(self, call: Call[T]) -> T:
        try:
            attempt = next(call)
            while True:
                if attempt.after_s > 0:
                    await self._sleep(attempt.after_s)
                attempt = call.send(await self._wire.send(attempt))
        except StopIteration as done:
            answer: T = done.value
            return answer
