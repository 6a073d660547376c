# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle for use: `burnish.open`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.engines.engine import Session, by_name
from burnish.engines.hardware import hardware

_log = logging.getLogger(__name__)
_FALLBACK = "onnxruntime"
_CHUNK = 32
_MOST_FILE_BYTES = 256 * 1024**2

Preprocess = Callable[[Any], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Prediction:
    """What the model says about one sample.

    `outputs` are by name, without the batch axis. For a classifier with class names,
    `label` is the likeliest class, `score` its probability, and `scores` every class with
    its probability, likeliest first (a softmax of the output, unless that is already a
    distribution). A probability is the model's own and may be badly calibrated.
    """

    outputs: Mapping[str, NDArray[Any]]
    label: str | None = None
    score: float | None = None
    scores: tuple[tuple[str, float], ...] = ()


class DeployedSession(Session):
    """A bundle's model on its planned engine, with its preprocessing and class names.

    `warnings` says in which ways this is not what was measured: other hardware, another
    engine or version.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        preprocessing: Preprocess | None,
        warnings: tuple[str, ...],
    ) -> None:
        self.bundle = bundle
        self.signature = session.signature
        self.setting = session.setting
        self.engine = session.engine
        self.classes = tuple(map(str, bundle.manifest.get("classes") or ()))
        self.warnings = warnings
        self._session = session
        self._preprocessing = preprocessing or self._as_given

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._session.execute(inputs)

    def close(self) -> None:
        self._session.close()

    def predict(self, raw: Any) -> Prediction | list[Prediction]:
        """Returns the prediction for one raw sample, or a list of them for a list of samples.

        A raw sample is what the task's data held: an image's bytes or its file's path, an
        array or a tuple (a row), or a dict of these by input. A bundle without
        preprocessing takes arrays that fit the model, without the batch axis.
        Raises `Misuse` when a sample does not fit, naming which.
        """
        if isinstance(raw, list):
            return list(self._predictions(raw))
        return next(self._predictions([raw]))

    def _predictions(self, samples: Sequence[Any]) -> Iterator[Prediction]:
        chunk = self._chunk()
        for start in range(0, len(samples), chunk):
            ready = []
            for position, raw in enumerate(samples[start : start + chunk], start):
                try:
                    ready.append(self.prepare(_read(raw)))
                except Misuse as error:
                    raise Misuse(f"sample {position}: {error}") from error
            for same in _runs_of_one_shape(ready):
                outputs = self.run(
                    {name: np.stack([one[name] for one in same]) for name in same[0]}
                )
                for place in range(len(same)):
                    yield self.prediction({name: all_[place] for name, all_ in outputs.items()})

    def _chunk(self) -> int:
        """Returns how many samples go in one run: 1 where the model's batch size is fixed."""
        firsts = [spec.shape[0] if spec.shape else 1 for spec in self.signature.inputs]
        return 1 if any(isinstance(first, int) for first in firsts) else _CHUNK

    def _as_given(self, raw: Any) -> Mapping[str, NDArray[Any]]:
        names = [spec.name for spec in self.signature.inputs]
        if isinstance(raw, Mapping):
            given = raw
        elif len(names) == 1:
            given = {names[0]: raw}
        else:
            raise Misuse(f"the model has inputs {names}: give a dict of them")
        if set(given) != set(names):
            raise Misuse(f"expected the inputs {names}, got {sorted(map(str, given))}")
        arrays = {}
        for spec in self.signature.inputs:
            value = given[spec.name]
            if isinstance(value, str | bytes):
                raise Misuse(
                    f"{spec.name} is {type(value).__name__}, and this bundle has no "
                    "preprocessing: give an array"
                )
            # A plain row is Python floats; arrays keep their type, which `run` checks.
            is_array = isinstance(value, np.ndarray)
            arrays[spec.name] = value if is_array else np.asarray(value, spec.dtype)
        return arrays

    def prepare(self, raw: Any) -> Mapping[str, NDArray[Any]]:
        """Returns the inputs for one raw sample, without the batch axis; reads no path."""
        return self._preprocessing(raw)

    def prediction(self, outputs: Mapping[str, NDArray[Any]]) -> Prediction:
        """Returns what outputs for one sample, without the batch axis, say."""
        n = len(self.classes)
        fitting = [
            array
            for array in outputs.values()
            if n > 1 and array.shape == (n,) and array.dtype.kind == "f"
        ]
        if not fitting:
            return Prediction(outputs)
        scores = _probabilities(fitting[0])
        order = np.argsort(-scores, kind="stable")
        ranked = tuple((self.classes[one], float(scores[one])) for one in order)
        return Prediction(outputs, ranked[0][0], ranked[0][1], ranked)


def open(path: str | Path, setting: Setting | None = None) -> DeployedSession:
    """Returns a ready session for the bundle in a folder, with the planned threads or others.

    The planned engine is used where it is installed and takes the model here, else ONNX
    Runtime; that, and other hardware or versions than were measured, is logged as a
    warning and kept in `warnings`. Raises `Misuse` when the folder is no sound bundle.
    """
    bundle = Bundle.load(path)
    plan, warnings = bundle.manifest["plan"], []
    try:
        name = str(plan["engine"])
        planned = Setting(threads=int(plan["threads"]), streams=int(plan["streams"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Misuse(
            f"the bundle {bundle.path} is damaged: its plan {plan!r}: {error!r}"
        ) from error
    setting = setting or planned
    try:
        session = by_name(name).open(bundle.model, setting)
    except (Missing, Unsupported) as error:
        if name == _FALLBACK:
            raise
        warnings.append(f"planned engine {name} cannot be used, taking {_FALLBACK}: {error}")
        session = by_name(_FALLBACK).open(bundle.model, setting)
    measured_on = plan.get("engine_identity")
    if measured_on and session.engine != measured_on and not warnings:
        warnings.append(f"measured with {measured_on}, running with {session.engine}")
    machine = bundle.manifest.get("machine") or {}
    if machine.get("fingerprint") and machine["fingerprint"] != hardware().fingerprint:
        warnings.append(
            f"measured on other hardware ({machine.get('cpu_model', 'unknown')}, "
            f"{machine.get('cores', '?')} cores) than this ({hardware().cpu_model}, "
            f"{hardware().cores} cores): its latencies do not hold here"
        )
    for warning in warnings:
        _log.warning("deployed bundle=%s warning=%s", bundle.path, warning)
    return DeployedSession(bundle, session, _preprocessing(bundle), tuple(warnings))


def _preprocessing(bundle: Bundle) -> Preprocess | None:
    data = bundle.manifest.get("preprocessing")
    if data is None:
        return None
    from burnish.data.preprocessing import preprocessing_from_dict

    return preprocessing_from_dict(data)


def _read(raw: Any) -> Any:
    """Returns the sample with each path replaced by the file's bytes."""
    if isinstance(raw, Mapping):
        return {name: _read(value) for name, value in raw.items()}
    if not isinstance(raw, str | Path):
        return raw
    path = Path(raw)
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise Misuse(f"{path} has more than {_MOST_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read the sample {path}: {error}") from error


def _runs_of_one_shape(
    samples: Sequence[Mapping[str, NDArray[Any]]],
) -> Iterator[list[Mapping[str, NDArray[Any]]]]:
    """Yields neighbours that can be stacked, in order."""
    group: list[Mapping[str, NDArray[Any]]] = []
    before = None
    for sample in samples:
        form = {name: (array.shape, array.dtype) for name, array in sample.items()}
        if group and form != before:
            yield group
            group = []
        group.append(sample)
        before = form
    if group:
        yield group


def _probabilities(row: NDArray[Any]) -> NDArray[np.float64]:
    values = row.astype(np.float64)
    if (values >= 0).all() and abs(values.sum() - 1) < 1e-3:
        return values
    exponentials = np.exp(values - values.max())
    result: NDArray[np.float64] = exponentials / exponentials.sum()
    return result
