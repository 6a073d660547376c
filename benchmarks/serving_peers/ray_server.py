# SPDX-License-Identifier: Apache-2.0
"""Ray Serve: a deployment with replicas, `serve.batch` where batches are asked for.

What Ray reads from the environment (its optimized mode, HAProxy) is set by who starts this.
"""

import asyncio
import signal
import threading
from typing import Any

import ray
from ort_engine import OrtEngine, settings
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ASKED = settings()
OBJECT_STORE_BYTES = 100 * 2**20


class Model:
    """One replica. The engine runs on a thread, so that the next requests are read meanwhile."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.engine = OrtEngine(asked)
        self.batches = asked["max_batch"] > 1

    @serve.batch(max_batch_size=ASKED["max_batch"], batch_wait_timeout_s=ASKED["wait_ms"] / 1e3)
    async def together(self, bodies: list[bytes]) -> list[bytes]:
        """Returns the answers to a batch."""
        return await asyncio.to_thread(self.engine.run, bodies)

    async def __call__(self, request: Request) -> Response:
        """Returns the answer to a request."""
        body = await request.body()
        if self.batches:
            answer = await self.together(body)
        else:
            answer = (await asyncio.to_thread(self.engine.run, [body]))[0]
        return Response(answer, media_type="application/octet-stream")


def main() -> None:
    """Serves until it is stopped."""
    stop = threading.Event()
    ray.init(
        num_cpus=ASKED["workers"],
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="error",
        _temp_dir=ASKED["work"],
    )
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    serve.start(http_options={"host": ASKED["host"], "port": ASKED["port"]})
    deployment = serve.deployment(
        Model, num_replicas=ASKED["workers"], max_ongoing_requests=ASKED["ongoing"]
    )
    serve.run(
        deployment.bind(ASKED),
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
