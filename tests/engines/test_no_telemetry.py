# SPDX-License-Identifier: Apache-2.0
"""No engine reports home, nor writes an identifier: each is loaded in a fresh home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.core import catalogue

CONTRACTS = Path(__file__).parents[1] / "contracts"
PROGRAM = """
import sys
from small_models import convolutional, random_inputs
from burnish.core.candidate import Setting
from burnish.engines.engine import by_name
with by_name(sys.argv[1]).open(convolutional(), Setting()) as session:
    session.run(random_inputs(convolutional(), 1))
loaded = [name for name in sys.modules if name.split(".")[0].endswith("_telemetry")]
assert not loaded, loaded
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_nothing_is_loaded_or_written(name: str, tmp_path: Path) -> None:
    if catalogue.find("engines", name).version() is None:
        pytest.skip(f"{name} is not installed")
    # Runtimes stay silent where they see a build server: this must not look like one.
    quiet = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST")
    environment = {key: value for key, value in os.environ.items() if key not in quiet}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(CONTRACTS)
    subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, name], env=environment, check=True, timeout=120
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
