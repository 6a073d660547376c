# SPDX-License-Identifier: Apache-2.0
"""LitServe: the body as bytes to a worker process, bytes back; no JSON, no form."""

from typing import Annotated, Any

import litserve
from fastapi import Body, Response
from ort_engine import OrtEngine, settings


class Api(litserve.LitAPI):
    """One model."""

    def setup(self, device: str) -> None:
        """Opens the model, in the worker."""
        self.engine = OrtEngine(settings())

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """Returns the body as it is."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Returns the bodies; the engine stacks them."""
        return inputs

    def predict(self, bodies: Any) -> Any:
        """Returns the answer to one body, or to a list of them."""
        return self.engine.run(bodies) if isinstance(bodies, list) else self.engine.run([bodies])[0]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Returns the answers one by one."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Returns the answer as a response that FastAPI passes on as it is."""
        return Response(output, media_type="application/octet-stream")


def main() -> None:
    """Serves until it is stopped."""
    asked = settings()
    api = Api(max_batch_size=asked["max_batch"], batch_timeout=asked["wait_ms"] / 1e3)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=asked["workers"],
        fast_queue=bool(asked.get("fast_queue")),
    )
    server.run(
        host=asked["host"],
        port=asked["port"],
        num_api_servers=asked.get("api_servers", 1),
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
