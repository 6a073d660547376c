# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: which route answers, and what becomes of what it raises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from typing import Any

from burnish.core.errors import Broken
from burnish.serving.counts import Histogram
from burnish.serving.gate import Rate, Tokens
from burnish.serving.http.inference import infer
from burnish.serving.http.message import (
    WHEN_GONE,
    WHOLE_BODY,
    WHOLE_REPLY,
    BodyLimits,
    Call,
    Gone,
    Receive,
    Reply,
    Send,
    read_body,
)
from burnish.serving.http.outcome import CLOSE, Inferred, NotAllowed, Outcomes
from burnish.serving.http.policy import Policy
from burnish.serving.http.predict import predict
from burnish.serving.http.repeat import Repeat, repeat
from burnish.serving.large_json import LargeJson
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import parse
from burnish.serving.oip.metadata import (
    EXTENSIONS,
    live_document,
    model_config,
    model_metadata,
    ready_document,
    server_metadata,
)
from burnish.serving.oip.statistics import statistics_document
from burnish.serving.refusals import CANNOT_NOW, NOT_THERE, Refused
from burnish.serving.repository import Repository
from burnish.serving.served_model import ServedModel
from burnish.serving.showing.metrics import seen, written
from burnish.serving.showing.openapi import api_page, openapi
from burnish.serving.showing.status import live_page, snapshot
from burnish.serving.statistics_of import statistics_of

_FORBIDDEN = 403


class App:
    """The application over a repository; `loop_lag` is what the heartbeat measures."""

    def __init__(self, repository: Repository, policy: Policy, loop_lag: Histogram) -> None:
        self.repository, self.policy, self.loop_lag = repository, policy, loop_lag
        self.draining = False
        self.large_json = LargeJson(policy.json)
        self._tokens, self._rate = Tokens(policy.tokens), Rate(policy.rate_per_s)
        self._version = installed_version("burnish")
        self.outcomes = Outcomes()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        call = _call(scope, receive, send)
        identifier = self.outcomes.identifier(call)
        extra = self.outcomes.headers(identifier)
        if self.draining:
            extra += (CLOSE,)
        began_ms = time.perf_counter() * 1e3
        inferred: Inferred | None = None
        try:
            answered = await self._answered(call)
            if isinstance(answered, Inferred):
                inferred, reply = answered, answered.reply
            else:
                reply = answered
        except Gone:
            self.outcomes.gone(call, identifier)
            return
        except Exception as error:  # noqa: BLE001 - the worker: the log has the detail
            reply, more = self.outcomes.failed(error, call, identifier)
            extra += more
        sending_ms = time.perf_counter() * 1e3
        await reply.send(call, extra)
        self.outcomes.answered(call, identifier, reply.status, inferred, began_ms, sending_ms)

    def repeated(self, scope: Mapping[str, Any]) -> Repeat | None:
        """Returns how to answer a request with a head that was answered before, or None where
        that is not for `repeat`."""
        call = _call(scope, _nothing, _nothing)
        match call.path.split("/")[1:]:
            case ["v2", "models", name, "infer"]:
                version = None
            case ["v2", "models", name, "versions", version, "infer"]:
                pass
            case _:
                return None
        try:
            self._tokens.check(call.header(b"authorization"))
        except Fault:  # the usual way says so each time
            return None
        return repeat(self, call, name, version)

    def check_rate(self, call: Call) -> None:
        """Raises `Refused` when the client has asked for more than its share."""
        self._rate.check(call.client)

    async def _answered(self, call: Call) -> Reply | Inferred:
        parts = call.path.split("/")[1:]  # decoded already
        if parts[:3] != ["v2", "health", "live"] and parts[:3] != ["v2", "health", "ready"]:
            if parts not in ([""], ["docs"]):  # the pages hold nothing, and ask for the token
                self._tokens.check(call.header(b"authorization"))
            self._rate.check(call.client)
        match parts:
            case ["v2", "models", name, "infer"]:
                return await self._infer(call, name, None)
            case ["v2", "models", name, "versions", version, "infer"]:
                return await self._infer(call, name, version)
            case ["v1", "models", name, "predict"]:
                return await self._predict(call, name, None)
            case ["v1", "models", name, "versions", version, "predict"]:
                return await self._predict(call, name, version)
            case ["v2", "repository", *rest]:
                return await self._repository(call, rest)
        if call.method not in ("GET", "HEAD"):
            if parts != ["metrics"]:
                self._get(parts, call)  # a 404 comes before a 405
            raise NotAllowed("GET, HEAD", call)
        if parts == ["metrics"]:
            now = seen(self.repository, self.loop_lag)
            accept = call.header(b"accept")
            body, content_type = await asyncio.to_thread(written, now, accept)
            return Reply(200, (body,), content_type)
        return self._get(parts, call)

    async def _infer(self, call: Call, name: str, version: str | None) -> Inferred:
        _need_post(call)
        self._refuse_when_draining()
        return await infer(
            call,
            self.repository,
            name,
            version,
            self.policy.body,
            self.policy.json,
            self.large_json,
        )

    async def _predict(self, call: Call, name: str, version: str | None) -> Inferred:
        _need_post(call)
        self._refuse_when_draining()
        return await predict(call, self.repository, name, version, self.policy.body)

    def _refuse_when_draining(self) -> None:
        if not self.repository.ready and not self.draining:
            raise Refused("the server is starting", CANNOT_NOW, 1000.0)

    def _get(self, parts: list[str], call: Call) -> Reply:
        repository = self.repository
        match parts:
            case ["v2"] | ["v2", ""]:
                extensions = (*EXTENSIONS, "model_repository")
                return Reply.json(server_metadata(self._version, tuple(sorted(extensions))))
            case ["v2", "health", "live"]:
                return Reply.json(live_document(True))
            case ["v2", "health", "ready"]:
                ready = repository.ready and not self.draining
                return Reply.json({"live": True, "ready": ready}, 200 if ready else CANNOT_NOW)
            case ["v2", "models", "stats"]:
                return _statistics(repository.models())
            case ["v2", "models", name, *rest]:
                version = None
                if rest[:1] == ["versions"] and len(rest) > 1:
                    version, rest = rest[1], rest[2:]
                return self._model(name, version, rest, call)
            case ["status.json"]:
                return Reply.json(snapshot(repository, self.loop_lag))
            case ["openapi.json"]:
                return Reply.json(openapi(repository, self._version))
            case [""]:
                return _page(live_page())
            case ["docs"]:
                return _page(api_page())
        raise Fault(
            f"there is nothing at {call.path[:200]}: GET /docs lists what there is", NOT_THERE
        )

    def _model(self, name: str, version: str | None, rest: list[str], call: Call) -> Reply:
        repository = self.repository
        if rest == ["ready"]:
            try:
                repository.find(name, version)
            except Fault as fault:
                if fault.status != CANNOT_NOW:
                    raise
                return Reply.json(ready_document(name, False), CANNOT_NOW)
            ready = not self.draining
            return Reply.json(ready_document(name, ready), 200 if ready else CANNOT_NOW)
        if rest not in ([], [""], ["config"], ["stats"]):
            raise Fault(
                f"nothing at {call.path[:200]}: a model has infer, ready, config and stats",
                NOT_THERE,
            )
        served = repository.find(name, version)
        if rest == ["config"]:
            most = served.max_batch_size if served.rows.batched else 0
            return Reply.json(
                model_config(served.name, served.signature, most, served.batching.streams)
            )
        if rest == ["stats"]:
            return _statistics([served])
        return Reply.json(model_metadata(name, served.signature, repository.versions(name)))

    async def _repository(self, call: Call, rest: list[str]) -> Reply:
        match rest:
            case ["index"]:
                _need_post(call)
                body = await read_body(call, BodyLimits(1 << 20, self.policy.body.seconds))
                ready_only = bool(body) and parse(body).get("ready") is True
                index = self.repository.index()
                return Reply.json(
                    [one for one in index if one["state"] == "READY" or not ready_only]
                )
            case ["models", name, "load" | "unload" as what]:
                _need_post(call)
                body = await read_body(call, BodyLimits(1 << 20, self.policy.body.seconds))
                if not self.policy.repository_control:
                    raise Fault(
                        "loading and unloading by clients is off: start the server with "
                        "--repository-control",
                        _FORBIDDEN,
                    )
                if what == "load" and body and parse(body).get("parameters"):
                    raise Fault(
                        "a model is loaded as the server's configuration says: give no parameters"
                    )
                await (
                    self.repository.load(name) if what == "load" else self.repository.unload(name)
                )
                return Reply.json({})
        raise Fault(f"there is nothing at {call.path[:200]}", NOT_THERE)


def _call(scope: Mapping[str, Any], receive: Receive, send: Send) -> Call:
    client, extensions = scope.get("client"), scope.get("extensions") or {}
    return Call(
        scope["method"],
        scope["path"],
        dict(scope["headers"]),
        scope.get("query_string", b""),
        receive,
        send,
        client[0] if client else "",
        extensions.get(WHOLE_BODY),
        extensions.get(WHEN_GONE),
        extensions.get(WHOLE_REPLY),
    )


async def _nothing(_: Any = None) -> Any:
    raise Broken("a request that is repeated has no ASGI messages")


def _need_post(call: Call) -> None:
    if call.method != "POST":
        raise NotAllowed("POST", call)


def _statistics(models: list[ServedModel]) -> Reply:
    return Reply.json(
        statistics_document(statistics_of(one.name, one.version, one.counts) for one in models)
    )


def _page(html: bytes) -> Reply:
    policy = (
        b"default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    return Reply(
        200,
        (html,),
        "text/html; charset=utf-8",
        ((b"content-security-policy", policy), (b"x-content-type-options", b"nosniff")),
    )
