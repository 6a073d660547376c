# SPDX-License-Identifier: Apache-2.0
"""Finds the Python function that a task file names: "package.module:function".

A task file that names functions is a program: load only files that you would run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from burnish.core.errors import Misuse


def find_function(text: str, folder: Path) -> Any:
    """Returns the callable named "package.module:function".

    A file `package/module.py` in `folder` (the task file's) comes before an installed
    module. Raises `Misuse` when there is no such module or function.
    """
    module_name, _, name = text.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise Misuse(f'a function is written "package.module:function", got {text!r}')
    file = folder.absolute().joinpath(*module_name.split(".")).with_suffix(".py")
    try:
        found: Any = _from_file(file) if file.is_file() else importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Misuse(
            f"{text!r}: no module {error.name!r}, neither installed nor at {str(file)!r}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise Misuse(f"{text!r}: the module {module_name!r} has no {name!r}")
        found = getattr(found, part)
    if not callable(found) and not hasattr(found, "rows"):
        raise Misuse(f"{text!r} is no function but a {type(found).__name__}")
    return found


def _from_file(file: Path) -> ModuleType:
    # The name holds the path, so that two tasks may each have a file called data.py.
    name = f"burnish_task_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Misuse(f"cannot import {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))  # its neighbours import as they do when it is run
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.parent))
    return module
