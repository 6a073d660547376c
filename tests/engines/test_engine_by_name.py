# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from burnish.core.errors import Misuse
from burnish.engines.engine import by_name, installed


def test_versions_load_no_runtime() -> None:
    program = (
        "import sys\n"
        "from burnish.core import catalogue\n"
        "for name in catalogue.names('engines'):\n"
        "    assert catalogue.find('engines', name).version()\n"
        "heavy = {'torch', 'openvino', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_installed_engines_are_those_to_race() -> None:
    names = [engine.name for engine in installed()]
    assert "onnxruntime" in names
    assert "torch" not in names  # on a CPU it is only asked for
    assert by_name("torch").name == "torch"


def test_an_unknown_engine_is_named_with_the_nearest() -> None:
    with pytest.raises(Misuse, match="did you mean 'openvino'"):
        by_name("openvin")
    with pytest.raises(Misuse, match="onnxruntime has no variants, got 'cuda:fast'"):
        by_name("onnxruntime:cuda:fast")
