# SPDX-License-Identifier: Apache-2.0
"""Lets every test folder import the published contracts and their small models."""

import sys
from pathlib import Path

import burnish  # noqa: F401 - before any test imports a runtime, so that none reports home

sys.path.insert(0, str(Path(__file__).parent / "contracts"))
