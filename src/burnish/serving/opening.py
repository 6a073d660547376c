# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle as a model that answers."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass

from burnish.core.bundle import Bundle
from burnish.engines import deployed
from burnish.engines.deployed import DeployedSession
from burnish.serving.admission import Limits
from burnish.serving.batching import Batching
from burnish.serving.model_options import ModelOptions
from burnish.serving.rows import Rows
from burnish.serving.served_model import ServedModel
from burnish.serving.serving_plan import ServingPlan, serving_plan
from burnish.serving.shape_buckets import Padding

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A bundle's session with how it is to be served; opening it blocks, for seconds."""

    session: DeployedSession
    rows: Rows
    plan: ServingPlan


def open_bundle(options: ModelOptions) -> Opened:
    """Returns the bundle's session, on a thread of its own. Raises what `burnish.open` raises."""
    bundle = Bundle.load(options.path)
    plan = serving_plan(bundle.manifest["plan"]).with_setting(options.threads, options.streams)
    session = deployed.open(options.path, plan.setting)
    return Opened(session, Rows(session.signature, dict(options.fill)), plan)


async def serve_bundle(options: ModelOptions) -> ServedModel:
    """Returns the bundle as a warmed-up model; opens it off the event loop."""
    opened = await asyncio.to_thread(open_bundle, options)
    plan = opened.plan
    slo_ms = options.slo_ms or plan.slo_ms or math.inf
    batching = Batching(
        streams=plan.setting.streams,
        slo_ms=slo_ms,
        limits=Limits(options.queue, options.queue_bytes),
        linger_ms=options.linger_ms,
        padding=Padding(dict(options.padding)),
    )
    most = options.max_batch_size or plan.max_batch_size
    served = ServedModel(
        options.served_name,
        options.version,
        opened.session,
        opened.rows,
        batching,
        list(plan.table),
        most,
        opened.session.classes,
        plan.axes,
    )
    await asyncio.to_thread(served.warm_up)
    _log.info(
        "loaded model=%s version=%s engine=%s threads=%d streams=%d max_batch_size=%d",
        served.name,
        served.version,
        opened.session.engine,
        plan.setting.threads,
        plan.setting.streams,
        served.max_batch_size,
    )
    return served
