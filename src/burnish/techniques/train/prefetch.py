# SPDX-License-Identifier: Apache-2.0
"""Makes the next items of an iterator in a thread while the present one is used.

>>> list(prefetched(iter(range(3))))
[0, 1, 2]
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_WAIT_S = 0.2


def prefetched(items: Iterator[Item], depth: int = 2) -> Generator[Item]:
    """Yields the items in order, up to `depth` of them made ahead.

    What the iterator raises is raised here, in its place. The thread ends with this
    iterator, also when it is closed or left early.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put((kind, value), timeout=_WAIT_S)
                return

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            put("error", error)

    thread = threading.Thread(target=work, name="burnish-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()
        thread.join()
