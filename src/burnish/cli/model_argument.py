# SPDX-License-Identifier: Apache-2.0
"""The MODEL of a command: an ONNX file, a bundle, or a function that makes a module."""

from __future__ import annotations

import difflib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from burnish.core.bundle import Bundle
from burnish.core.errors import BurnishError, Misuse
from burnish.core.model import Model
from burnish.core.task import Arrays, Task
from burnish.data.functions import find_function
from burnish.engines.engine import Engine
from burnish.engines.torch import TorchEager

_FORMS = "an .onnx file, a bundle's folder, or file.py:function that returns an nn.Module"
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
_BATCH = 2
_STANDARD = sysconfig.get_path("stdlib")


@dataclass(frozen=True)
class GivenModel:
    """The model, what to call it, and for a module the engine that runs the module itself."""

    name: str
    model: Model
    source: Engine | None = None


def load_model(text: str, task: Task | None = None) -> GivenModel:
    """Returns the model that the argument names.

    `task` gives example inputs for a function that returns a module alone, and the names
    of its inputs. Raises `Misuse` when there is no such model.
    """
    path = Path(text)
    place, _, function = text.rpartition(":")
    if text and path.is_dir():
        return GivenModel(path.resolve().name, Bundle.load(path).model)
    if path.is_file():
        return GivenModel(path.name, _from_file(path))
    if place and all(part.isidentifier() for part in function.split(".")):
        return _from_function(text, place, function, task)
    raise Misuse(f"there is no model {text!r}{_nearest(path)}; expected {_FORMS}")


def _from_file(path: Path) -> Model:
    if path.suffix == ".py":
        raise Misuse(f"{path} is a program: name its function, as {path}:function")
    if path.suffix in _WEIGHTS:
        raise Misuse(
            f"{path} holds weights and no network: write a function that makes the module and "
            "loads them, and give file.py:function"
        )
    if path.suffix != ".onnx":
        raise Misuse(f"{path} ends in {path.suffix or 'no suffix'!r}; expected {_FORMS}")
    return Model.load(path)


def _nearest(path: Path) -> str:
    try:
        beside = [one.name for one in path.parent.iterdir()]
    except OSError:
        return f": there is no folder {str(path.parent)!r}"
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f": did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _from_function(text: str, place: str, function: str, task: Task | None) -> GivenModel:
    file = Path(place)
    if file.suffix == ".py":
        if not file.is_file():
            raise Misuse(f"there is no file {place!r}{_nearest(file)}")
        if not file.stem.isidentifier():
            raise Misuse(f"{place!r}: rename the file, so that Python can import {file.stem!r}")
        made = _call(text, f"{file.stem}:{function}", file.parent)
    else:
        made = _call(text, text, Path.cwd())
    module, examples = made, None
    if isinstance(made, tuple) and len(made) == 2:
        module, examples = made
    if not hasattr(module, "named_parameters") or not hasattr(module, "forward"):
        raise Misuse(
            f"{text} must return an nn.Module, or (module, example_inputs); "
            f"got {type(module).__name__}"
        )
    inputs = _first_samples(task)
    names: tuple[str, ...] | None = None
    if examples is None:
        if inputs is None:
            raise Misuse(
                f"importing {text} needs example inputs: give --task, or return "
                "(module, example_inputs)"
            )
        examples, names = _as_examples(module, inputs)
    elif inputs is not None and len(inputs) == 1 and _is_one(examples):
        names = tuple(inputs)
    model = Model.from_torch(module, examples, input_names=names, source=text)
    signature = model.signature
    source = TorchEager(
        module, [one.name for one in signature.inputs], [one.name for one in signature.outputs]
    )
    return GivenModel(text, model, source)


def _call(text: str, name: str, folder: Path) -> Any:
    """Returns what the user's function gives; any error in it is the user's."""
    try:
        found = find_function(name, folder)
        # A module that stands ready needs no call.
        ready = hasattr(found, "named_parameters") and not isinstance(found, type)
        return found if ready else found()
    except BurnishError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise Misuse(f"{text} failed{_where(error)}: {type(error).__name__}: {error}") from error


def _where(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}, line {error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    # The user's own line says more than the library's that it led to.
    own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, _STANDARD))]
    last = (own or frames)[-1:]
    return f" at {last[0].filename}, line {last[0].lineno}" if last else ""


def _first_samples(task: Task | None) -> Arrays | None:
    """Returns a batch of two samples' inputs: a batch of one hides what depends on it."""
    if task is None:
        return None
    samples = task.calibration or task.validation or task.training
    batch = next(samples.batches(_BATCH, _BATCH), None) if samples is not None else None
    if batch is None:
        return None
    rows = np.arange(_BATCH) % len(batch)
    return {name: np.ascontiguousarray(array[rows]) for name, array in batch.inputs.items()}


def _as_examples(module: Any, inputs: Arrays) -> tuple[Any, tuple[str, ...] | None]:
    """Returns the examples by forward's names where they are its own, else by position."""
    if set(inputs) <= set(inspect.signature(module.forward).parameters):
        return dict(inputs), None
    return tuple(inputs.values()), tuple(inputs)


def _is_one(examples: Any) -> bool:
    if isinstance(examples, tuple | list):
        return len(examples) == 1
    return not isinstance(examples, Mapping)
