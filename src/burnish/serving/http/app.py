# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: which route answers, and what becomes of what it raises."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any

from burnish.core.errors import BurnishError
from burnish.serving.counts import Histogram
from burnish.serving.gate import UNAUTHORIZED, Rate, Tokens
from burnish.serving.http.inference import Inferred, infer
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
from burnish.serving.http.predict import predict
from burnish.serving.large_json import LargeJson
from burnish.serving.oip.faults import OUR_FAULT, Fault
from burnish.serving.oip.framing import Limits as JsonLimits
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
from burnish.serving.tracing import Traced, Tracing

_log = logging.getLogger(__name__)
_access = logging.getLogger("burnish.serving.access")

_NOT_ALLOWED = 405
_FORBIDDEN = 403
_REQUEST_ID = b"x-request-id"


@dataclass(frozen=True)
class Policy:
    """What the server allows. `repository_control`: whether clients may load and unload."""

    body: BodyLimits = field(default_factory=BodyLimits)
    json: JsonLimits = field(default_factory=JsonLimits)
    tokens: tuple[str, ...] = ()
    rate_per_s: float | None = None
    repository_control: bool = False


class App:
    """The application over a repository; `loop_lag` is what the heartbeat measures."""

    def __init__(self, repository: Repository, policy: Policy, loop_lag: Histogram) -> None:
        self.repository, self.policy, self.loop_lag = repository, policy, loop_lag
        self.draining = False
        self.large_json = LargeJson(policy.json)
        self._tokens, self._rate = Tokens(policy.tokens), Rate(policy.rate_per_s)
        self._version = installed_version("burnish")
        self._ids = itertools.count(1)
        self._tracing = Tracing()
        self._started = f"{time.time_ns():x}"

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        client = scope.get("client")
        extensions = scope.get("extensions") or {}
        call = Call(
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
        identifier = call.headers.get(_REQUEST_ID) or f"{self._started}-{next(self._ids)}".encode()
        extra = [(_REQUEST_ID, identifier[:200])]
        if self.draining:
            extra.append((b"connection", b"close"))
        began_ms = time.perf_counter() * 1e3
        inferred: Inferred | None = None
        try:
            answered = await self._answered(call)
            if isinstance(answered, Inferred):
                inferred, reply = answered, answered.reply
            else:
                reply = answered
        except Gone:
            _access.info("gone id=%s path=%s", identifier.decode("latin-1"), _one_line(call.path))
            return
        except Fault as fault:
            reply = Reply.fault(fault)
            if fault.status == UNAUTHORIZED:
                extra.append((b"www-authenticate", b"Bearer"))
            if isinstance(fault, _NotAllowed):
                extra.append((b"allow", fault.allow))
            if fault.status in (408, 413) or b"expect" in call.headers:
                extra.append((b"connection", b"close"))  # its body is not read, or may not come
        except BurnishError as error:
            _log.error("failed id=%s error=%s", identifier.decode("latin-1"), error)
            reply = Reply.fault(Fault(str(error), OUR_FAULT))
        except Exception:  # noqa: BLE001 - the worker: the log has the detail
            _log.exception(
                "failed id=%s path=%s", identifier.decode("latin-1"), _one_line(call.path)
            )
            reply = Reply.fault(Fault("the server failed to answer", OUR_FAULT))
        sending_ms = time.perf_counter() * 1e3
        await reply.send(call, tuple(extra))
        if inferred is not None:
            done_ms = time.perf_counter() * 1e3
            stages = inferred.served.counts.stages
            stages["respond"].add(done_ms - sending_ms)
            stages["total"].add(done_ms - began_ms)
            if self._tracing.on:
                self._trace(call, inferred, identifier, began_ms, done_ms)
        if _access.isEnabledFor(logging.INFO):
            _access.info(
                "answered id=%s client=%s method=%s path=%s status=%d ms=%.3f",
                identifier.decode("latin-1"),
                call.client,
                call.method,
                _one_line(call.path),
                reply.status,
                time.perf_counter() * 1e3 - began_ms,
            )

    def _trace(
        self, call: Call, inferred: Inferred, identifier: bytes, began_ms: float, done_ms: float
    ) -> None:
        ended_ns = time.time_ns()
        traced = Traced(
            inferred.served,
            inferred.answer,
            identifier.decode("latin-1"),
            inferred.queued_ms - began_ms,
            ended_ns - round((done_ms - began_ms) * 1e6),
            ended_ns,
        )
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers.items()
        }
        self._tracing.record(headers, traced)

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
            raise _NotAllowed("GET, HEAD", call)
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


class _NotAllowed(Fault):
    """Another method than the route has; `allow` is the header's value."""

    def __init__(self, allow: str, call: Call) -> None:
        first = allow.split(",")[0]
        super().__init__(f"expected {first} for {call.path[:200]}, got {call.method}", _NOT_ALLOWED)
        self.allow = allow.encode()


def _one_line(path: str) -> str:
    """Returns a path as it was sent: decoded, it may hold anything."""
    return urllib.parse.quote(path[:1000])


def _need_post(call: Call) -> None:
    if call.method != "POST":
        raise _NotAllowed("POST", call)


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
