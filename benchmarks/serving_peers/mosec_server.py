# SPDX-License-Identifier: Apache-2.0
"""mosec: its Rust front end, worker processes over a Unix socket, bytes in and out.

The address comes in MOSEC_ADDRESS and MOSEC_PORT.
"""

from typing import Any

import mosec
from ort_engine import OrtEngine, settings


class Worker(mosec.Worker):
    """One model."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self.engine = OrtEngine(settings())

    def deserialize(self, data: bytes) -> bytes:
        """Returns the body as it is."""
        return data

    def forward(self, data: Any) -> Any:
        """Returns the answer to one body, or to a list of them."""
        return self.engine.run(data) if isinstance(data, list) else self.engine.run([data])[0]

    def serialize(self, data: bytes) -> bytes:
        """Returns the answer as it is."""
        return data


def main() -> None:
    """Serves until it is stopped."""
    asked = settings()
    server = mosec.Server()
    server.append_worker(
        Worker,
        num=asked["workers"],
        max_batch_size=asked["max_batch"],
        max_wait_time=int(asked["wait_ms"]),
    )
    server.run()


if __name__ == "__main__":
    main()
