# SPDX-License-Identifier: Apache-2.0
"""Results for the tests of the reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import digits_net
import pytest
import report_results
from digits_run import Counting, Done, Failing, Refusing, optimize

from burnish.core.store import Store
from burnish.optimizing import candidates
from burnish.optimizing.result import Result


@pytest.fixture
def met_result() -> Result:
    """A result that meets its goal."""
    return report_results.met()


@pytest.fixture(params=report_results.EVERY, ids=lambda make: make.__name__)
def any_result(request: pytest.FixtureRequest) -> Result:
    """Each of the results in turn."""
    return cast("Result", request.param())


@pytest.fixture(scope="session", autouse=True)
def _short_throughput() -> Iterator[None]:
    """Throughput is still measured, for a shorter time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_RATE_S", 0.02)
        yield


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, _short_throughput: None) -> Done:
    """One optimization for its size, and the same again."""
    store = Store(tmp_path_factory.mktemp("store"))
    engines = [Counting(), Refusing(), Failing()]
    more = {"engines": engines, "store": store, "command": "burnish optimize"}
    Counting.opened = 0
    first = optimize(digits_net.network(), digits_net.task(), **more)
    opened = Counting.opened
    again = optimize(digits_net.network(), digits_net.task(), **more)
    return Done(first, again, (opened, Counting.opened - opened), store)
