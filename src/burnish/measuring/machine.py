# SPDX-License-Identifier: Apache-2.0
"""The machine behind every measurement: its hardware, and the software that ran on it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from burnish.core import catalogue
from burnish.engines.hardware import Hardware, hardware


@dataclass(frozen=True)
class Machine(Hardware):
    """The hardware, and the operating system and Python on it.

    `fingerprint` covers the hardware alone: an upgrade shows in `to_dict`, and in the
    identity of the engine that each measurement carries.
    """

    os: str
    python: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data: the facts, the fingerprint, and installed engines' versions."""
        versions = {
            name: catalogue.find("engines", name).version() for name in catalogue.names("engines")
        }
        return {
            **asdict(self),
            "instruction_sets": list(self.instruction_sets),
            "gpus": list(self.gpus),
            "int8_dot": self.int8_dot,
            "fingerprint": self.fingerprint,
            "engines": {name: version for name, version in versions.items() if version},
        }


@cache
def machine() -> Machine:
    """Returns this machine, as far as this process may use it; read once."""
    return Machine(
        **asdict(hardware()),
        os=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )
