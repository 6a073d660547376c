# SPDX-License-Identifier: Apache-2.0
"""What `import burnish` gives, and what it must not load."""

from __future__ import annotations

import subprocess
import sys

import burnish

EXPORTED = [
    "AsyncClient", "BadAnswer", "Broken", "BurnishError", "Client", "DeadlineExceeded",
    "Distill", "FineTune", "Fuse", "Goal", "Measurement", "Missing", "Misuse", "Model",
    "PruneBlocks", "PruneChannels", "PruneIteratively", "PruneWeights", "QuantizeAware",
    "QuantizeStatic", "Recalibrate", "Recipe", "ServerRefused", "ServerUnreachable", "Store",
    "Task", "Unsupported", "__version__", "compare", "measure", "open", "optimize",
]  # fmt: skip

HEAVY = [
    "torch", "openvino", "onnxruntime", "onnxscript", "scipy", "sklearn", "pyarrow", "PIL",
    "rich", "typer", "jinja2", "onnx", "numpy",
]  # fmt: skip


def loaded_by(program: str) -> set[str]:
    listing = "\nimport sys; print('\\n'.join(m for m in sys.modules if '.' not in m))"
    command = [sys.executable, "-c", program + listing]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_exported_names() -> None:
    """A name that goes, or comes, is a change that users see: change this list with care."""
    assert sorted(burnish.__all__) == EXPORTED
    assert dir(burnish) == sorted(burnish.__all__)


def test_importing_loads_nothing_heavy() -> None:
    assert not loaded_by("import burnish") & set(HEAVY)


def test_the_nouns_load_no_engine_and_no_torch() -> None:
    loaded = loaded_by("import burnish as bn; bn.Model, bn.Goal, bn.Recipe, bn.Task, bn.Store")
    assert not loaded & {"torch", "openvino", "onnxruntime", "scipy", "rich", "typer"}


def test_every_exported_name_is_there() -> None:
    for name in EXPORTED:
        assert getattr(burnish, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(burnish, "optimise")
