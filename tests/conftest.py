# SPDX-License-Identifier: Apache-2.0
"""Lets every test folder import the published contracts, and sets what all tests share."""

import signal
import sys
from pathlib import Path

import burnish  # noqa: F401 - before any test imports a runtime, so that none reports home

sys.path.insert(0, str(Path(__file__).parent / "contracts"))

# A job that a shell started in the background ignores Ctrl-C, and so would the programs
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
