# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a server: generators that yield attempts and return what was answered."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.serving.client.answer import (
    accepted,
    document_of,
    index_of,
    outputs_of,
    prediction_of,
)
from burnish.serving.client.ask import Ask, Inference, get, post, predict
from burnish.serving.client.errors import DeadlineExceeded, ServerRefused, ServerUnreachable
from burnish.serving.client.exchange import Call, Due, Terms, exchange
from burnish.serving.client.prediction import Prediction

_OK, _NOT_THERE, _CANNOT_NOW = 200, 404, 503


class Verbs:
    """The verbs, on the terms of one client; `model` is asked where a call names none."""

    def __init__(self, terms: Terms, model: str | None) -> None:
        self._terms, self._model = terms, model
        self._only: str | None = None
        """The server's one model, once it was asked for."""

    def infer(
        self,
        inference: Inference,
        model: str | None,
        version: str | None,
        deadline_s: float | None,
    ) -> Call[dict[str, NDArray[Any]]]:
        """Tensors in, tensors out."""
        due = self._terms.due(deadline_s)
        name = yield from self._named(model, due)
        try:
            answer = yield from exchange(
                lambda left_s: inference.ask(name, version, left_s), self._terms, due
            )
        except ServerRefused as error:
            self._forget(error)
            raise
        return outputs_of(answer)

    def predict(
        self,
        content_type: str,
        body: bytes,
        model: str | None,
        version: str | None,
        deadline_s: float | None,
    ) -> Call[Prediction]:
        """A sample in, what the model says about it out."""
        due = self._terms.due(deadline_s)
        name = yield from self._named(model, due)
        ask = predict(name, version, content_type, body)
        try:
            answer = yield from exchange(lambda _: ask, self._terms, due)
        except ServerRefused as error:
            self._forget(error)
            raise
        return prediction_of(answer)

    def live(self) -> Call[bool]:
        """Whether the server answers."""
        return (yield from self._probe(get("v2", "health", "live")))

    def ready(self, model: str | None) -> Call[bool]:
        """Whether the server, or a model, takes requests."""
        parts = ("health",) if model is None else ("models", model)
        return (yield from self._probe(get("v2", *parts, "ready")))

    def metadata(self, model: str | None) -> Call[dict[str, Any]]:
        """The server's name, version and extensions, or a model's inputs and outputs."""
        return (yield from self._document(get("v2", *_of(model))))

    def config(self, model: str) -> Call[dict[str, Any]]:
        """A model's configuration."""
        return (yield from self._document(get("v2", "models", model, "config")))

    def statistics(self, model: str | None) -> Call[dict[str, Any]]:
        """What was counted, of all models or one."""
        parts = ("models",) if model is None else ("models", model)
        return (yield from self._document(get("v2", *parts, "stats")))

    def models(self) -> Call[list[dict[str, Any]]]:
        """All models that the server knows."""
        return (yield from self._index(self._terms.due(None)))

    def load(self, model: str) -> Call[None]:
        """Opens a model, or opens it anew."""
        yield from self._ask(post("v2", "repository", "models", model, "load", document={}))

    def unload(self, model: str) -> Call[None]:
        """Closes a model."""
        yield from self._ask(post("v2", "repository", "models", model, "unload", document={}))

    def _ask(self, ask: Ask) -> Call[Any]:
        return (yield from exchange(lambda _: ask, self._terms, self._terms.due(None)))

    def _document(self, ask: Ask) -> Call[dict[str, Any]]:
        return document_of((yield from self._ask(ask)))

    def _probe(self, ask: Ask) -> Call[bool]:
        """One attempt: what is not there now is the answer, and no error."""
        due = Due(math.inf, math.inf)
        try:
            answer = yield from exchange(lambda _: ask, self._terms, due, once=True)
        except (ServerUnreachable, DeadlineExceeded):
            return False
        if answer.status == _CANNOT_NOW:
            return False
        return accepted(answer).status == _OK

    def _index(self, due: Due) -> Call[list[dict[str, Any]]]:
        ask = post("v2", "repository", "index", document={})
        return index_of((yield from exchange(lambda _: ask, self._terms, due)))

    def _named(self, model: str | None, due: Due) -> Call[str]:
        """Returns the model that a call is for. Raises `Misuse` where that is not clear."""
        for name in (model, self._model, self._only):
            if name is not None:
                return name
        names = sorted({str(one["name"]) for one in (yield from self._index(due))})
        if len(names) != 1:
            has = f"has {', '.join(names[:20])}" if names else "has none"
            raise Misuse(
                f"expected a server with one model where none is named, and this one {has}: "
                "give model=..."
            )
        self._only = names[0]
        return names[0]

    def _forget(self, error: ServerRefused) -> None:
        """Forgets the server's one model when it may be gone."""
        if error.status == _NOT_THERE:
            self._only = None


def _of(model: str | None) -> tuple[str, ...]:
    return () if model is None else ("models", model)
