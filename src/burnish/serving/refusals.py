# SPDX-License-Identifier: Apache-2.0
"""What a client is told whose request is not answered for want of time or room."""

from __future__ import annotations

from burnish.serving.admission import Reason, Rejection
from burnish.serving.oip.faults import Fault

CANNOT_NOW, NOT_THERE, TOO_LATE, TOO_MANY = 503, 404, 504, 429
_STATUS = {Reason.TOO_LARGE: 413, Reason.IMPOSSIBLE: TOO_LATE, Reason.LATE: TOO_LATE}


class Refused(Fault):
    """A request that is not answered for want of time or room; `retry_after_ms` may be None."""

    def __init__(self, message: str, status: int, retry_after_ms: float | None) -> None:
        super().__init__(message, status)
        self.retry_after_ms = retry_after_ms


def refusal(model: str, rejection: Rejection) -> Refused:
    """Returns what the client of a model is told of the policy's rejection."""
    status = _STATUS.get(rejection.reason, TOO_MANY)
    return Refused(f"{model}: {rejection.reason}", status, rejection.retry_after_ms)
