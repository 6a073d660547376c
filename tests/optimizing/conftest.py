# SPDX-License-Identifier: Apache-2.0
"""Results for the tests of the reports."""

from __future__ import annotations

from typing import cast

import pytest
import report_results

from burnish.optimizing.result import Result


@pytest.fixture
def met_result() -> Result:
    """A result that meets its goal."""
    return report_results.met()


@pytest.fixture(params=report_results.EVERY, ids=lambda make: make.__name__)
def any_result(request: pytest.FixtureRequest) -> Result:
    """Each of the results in turn."""
    return cast("Result", request.param())
