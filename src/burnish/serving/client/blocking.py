# SPDX-License-Identifier: Apache-2.0
"""`Client`: asks a server, and waits for its answers."""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from burnish.serving.client.ask import Inference
from burnish.serving.client.exchange import Call, T, Terms
from burnish.serving.client.prediction import Prediction
from burnish.serving.client.retrying import Retrying
from burnish.serving.client.sample import Sample, sample_body
from burnish.serving.client.transport import Wire, place
from burnish.serving.client.verbs import Verbs

if TYPE_CHECKING:
    import httpx


class Client:
    """A server, to be asked from any number of threads; connections are kept between calls.

    url: "http://127.0.0.1:8000"; https as well.
    model: the one to ask where a call names none; without it, the server's only one.
    token: one of those that the server takes.
    timeout_s: for one attempt; a call's deadline_s is for the whole call.
    retries: after an answer 429 or 503, a refused connection, or one dropped before an answer.
    max_response_bytes: of one answer, also when it is decompressed.
    certificate: a PEM file with the certificates to trust, for servers that signed their own.

    transport, clock, sleep and random are for tests, and for sockets of another kind. Calls
    raise `ServerRefused`, `ServerUnreachable`, `DeadlineExceeded` and `BadAnswer`, and `Misuse`
    for what cannot be asked.
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
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._verbs = Verbs(Terms(timeout_s, Retrying(retries), clock, random), model)
        self._sleep = sleep
        self._wire = Wire(place(url, token, max_response_bytes, clock, certificate), transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client cannot be used any more."""
        self._wire.close()

    def infer(
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
        """Returns the model's outputs for inputs by name.

        outputs: the names of those that are wanted, all without. deadline_s: for the whole
        call; the server is told, and refuses early what it cannot answer in time. priority:
        0 the most urgent. id: comes back with the answer, for logs between. binary: tensors as
        bytes, else as JSON. compress: with gzip, both ways. Strings and `bytes` are BYTES, and
        come back as arrays of `bytes`; bfloat16 is that of ml_dtypes.
        """
        inference = Inference(inputs, outputs, priority, id, binary, compress)
        return self._run(self._verbs.infer(inference, model, version, deadline_s))

    def predict(
        self,
        sample: Sample,
        *,
        model: str | None = None,
        version: str | None = None,
        deadline_s: float | None = None,
    ) -> Prediction:
        """Returns what a bundle says about one raw sample, which the server preprocesses.

        sample: an image's bytes, the `Path` of a file, a text (a str is never taken for a
        path), a row of numbers, or a mapping of the model's inputs by name.
        """
        content_type, body = sample_body(sample)
        return self._run(self._verbs.predict(content_type, body, model, version, deadline_s))

    def live(self) -> bool:
        """Returns whether the server answers; no retries."""
        return self._run(self._verbs.live())

    def ready(self, model: str | None = None) -> bool:
        """Returns whether the server, or a model, takes requests; no retries."""
        return self._run(self._verbs.ready(model))

    def metadata(self, model: str | None = None) -> dict[str, Any]:
        """Returns the server's name, version and extensions, or a model's inputs and outputs."""
        return self._run(self._verbs.metadata(model))

    def config(self, model: str) -> dict[str, Any]:
        """Returns a model's configuration."""
        return self._run(self._verbs.config(model))

    def statistics(self, model: str | None = None) -> dict[str, Any]:
        """Returns what the server counted, of all models or one."""
        return self._run(self._verbs.statistics(model))

    def models(self) -> list[dict[str, Any]]:
        """Returns name, version, state and reason of all models that the server knows."""
        return self._run(self._verbs.models())

    def load(self, model: str) -> None:
        """Has the server open a model, or open it anew, where it lets clients do so."""
        self._run(self._verbs.load(model))

    def unload(self, model: str) -> None:
        """Has the server close a model, where it lets clients do so."""
        self._run(self._verbs.unload(model))

    def _run(self, call: Call[T]) -> T:
        try:
            attempt = next(call)
            while True:
                if attempt.after_s > 0:
                    self._sleep(attempt.after_s)
                attempt = call.send(self._wire.send(attempt))
        except StopIteration as done:
            answer: T = done.value
            return answer
