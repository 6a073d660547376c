# SPDX-License-Identifier: Apache-2.0
"""Results for the tests of the reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import digits_net
import pytest
import report_results
from digits_run import Counting, Done, Failing, Refusing, optimize

from burnish.core.measurement import Measurement
from burnish.core.store import Store
from burnish.measuring import resources
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
def _short_measurements() -> Iterator[None]:
    """Throughput is still measured, for a shorter time, and memory, in one process of two."""
    peak_memory = resources.peak_memory

    def once(*args: Any, **more: Any) -> Measurement:
        return peak_memory(*args, **(more | {"n": 1}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_RATE_S", 0.02)
        patch.setattr(resources, "peak_memory", once)
        yield


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store for tests of what is chosen: a model is measured once for all of them."""
    return Store(tmp_path_factory.mktemp("shared_store"))


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, _short_measurements: None) -> Done:
    """One optimization for its size, and the same again."""
    store = Store(tmp_path_factory.mktemp("store"))
    engines = [Counting(), Refusing(), Failing()]
    more = {"engines": engines, "store": store, "command": "burnish optimize"}
    Counting.opened = 0
    first = optimize(digits_net.network(), digits_net.task(), **more)
    opened = Counting.opened
    again = optimize(digits_net.network(), digits_net.task(), **more)
    return Done(first, again, (opened, Counting.opened - opened), store)
