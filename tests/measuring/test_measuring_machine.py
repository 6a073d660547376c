# SPDX-License-Identifier: Apache-2.0
import json

from burnish.engines.hardware import hardware
from burnish.measuring.machine import Machine, machine


def test_the_fingerprint_is_the_hardwares() -> None:
    here = machine()
    assert isinstance(here, Machine)
    assert here.fingerprint == hardware().fingerprint
    assert here.python.startswith("CPython 3")


def test_as_plain_data() -> None:
    data = machine().to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["engines"]["onnxruntime"]
    assert data["fingerprint"] == machine().fingerprint
    assert data["int8_dot"] is machine().int8_dot
    assert data["cores"] == machine().cores
