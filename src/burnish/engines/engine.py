# SPDX-License-Identifier: Apache-2.0
"""The contract of every engine: a Model becomes a Session on named hardware.

>>> [engine.name for engine in installed()]  # doctest: +ELLIPSIS
['onnxruntime'...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from burnish.core import catalogue
from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse
from burnish.core.model import Model, Signature
from burnish.core.technique import Skipped


class Session(ABC):
    """A model that is loaded and ready: arrays in, arrays out.

    `run` may be called from as many threads at once as the setting has streams.
    """

    signature: Signature
    setting: Setting
    engine: str
    """The identity of the engine that made it."""

    @abstractmethod
    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs inputs that fit the signature; returns outputs by name, the caller's to keep."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns every output by name for these inputs, which must fit the signature.

        Raises `Misuse` naming each input that is missing, unknown, or of the wrong dtype
        or shape.
        """
        check(self.signature, inputs)
        return self.execute(inputs)

    def close(self) -> None:
        """Frees what the session holds; it must not be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Engine(ABC):
    """A runtime on a device. One that is registered can be made without arguments."""

    name: str
    """What `by_name` takes: the registered name, and for a variant its words (`a:b:c`)."""
    device: str = "cpu"
    extra: ClassVar[str | None] = None
    """The extra of Burnish that installs the runtime; None when the core does."""

    @classmethod
    @abstractmethod
    def version(cls) -> str | None:
        """Returns the runtime's version, or None when not installed; loads nothing heavy."""

    @classmethod
    def variant(cls, words: Sequence[str]) -> Self:
        """Returns the engine with the options that follow its name. Raises `Misuse`."""
        if words:
            raise Misuse(f"the engine {cls.name} has no variants, got {':'.join(words)!r}")
        return cls()

    @classmethod
    def offered(cls) -> Sequence[Engine]:
        """Returns the variants to use where no engine is named; none when only asked for."""
        return (cls(),)

    @property
    def identity(self) -> str:
        """Name, version and device, as recorded with every measurement."""
        return f"{self.name} {self.version()} ({self.device})"

    @abstractmethod
    def refusals(self, model: Model) -> tuple[Skipped, ...]:
        """Returns what this engine cannot run in the model, and why; () when nothing is known."""

    @abstractmethod
    def open(self, model: Model, setting: Setting) -> Session:
        """Returns a session. Raises `Unsupported`, naming node and operator where known."""


def check(signature: Signature, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raises `Misuse` that lists every way in which the inputs do not fit the signature.

    Dimensions with the same name must have the same size.
    """
    faults: list[str] = []
    sizes: dict[str, tuple[int, str]] = {}
    known = {spec.name for spec in signature.inputs}
    faults += [f"unknown input {name!r}" for name in sorted(set(inputs) - known)]
    for spec in signature.inputs:
        if spec.name not in inputs:
            faults.append(f"missing input {spec}")
            continue
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            faults.append(f"{spec.name} must be a numpy array, got {type(array).__name__}")
            continue
        if array.dtype != np.dtype(spec.dtype):
            faults.append(f"{spec.name} must have dtype {spec.dtype}, got {array.dtype}")
        fits = len(array.shape) == len(spec.shape)
        for got, size in zip(array.shape, spec.shape, strict=False):
            if isinstance(size, int):
                fits = fits and got == size
            elif size is not None:
                first, where = sizes.setdefault(size, (got, spec.name))
                if first != got:
                    faults.append(f"{spec.name} has {size}={got} but {where} has {size}={first}")
        if not fits:
            faults.append(
                f"{spec.name} must have shape {list(spec.shape)}, got {list(array.shape)}"
            )
    if faults:
        raise Misuse("the inputs do not fit the model: " + "; ".join(faults))


def installed() -> list[Engine]:
    """Returns what the engines whose runtime is installed offer here, by name."""
    classes = [catalogue.find("engines", name) for name in catalogue.names("engines")]
    return [one for cls in classes if cls.version() is not None for one in cls.offered()]


def by_name(name: str) -> Engine:
    """Returns one engine: "openvino", or a variant of one as "torch:cuda:bfloat16".

    Raises `Misuse` for the name of none; `Missing` when not installed.
    """
    registered, *words = name.split(":")
    cls = catalogue.find("engines", registered)
    if cls.version() is None:
        raise Missing(f"the engine {name}", registered, cls.extra)
    engine: Engine = cls.variant(words)
    return engine
