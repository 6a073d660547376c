# SPDX-License-Identifier: Apache-2.0
import json
import threading
import time

import pytest
from small_models import convolutional, random_inputs

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.engines.engine import Session, by_name
from burnish.measuring.throughput import throughput


class Sleeping(Session):
    """Takes 5 ms a call however many samples, and counts calls that overlap."""

    def __init__(self, setting: Setting) -> None:
        self.signature = convolutional().signature
        self.setting = setting
        self.engine = "sleeping 1 (cpu)"
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def execute(self, inputs: dict) -> dict:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.005)
        with self.lock:
            self.now -= 1
        return {}


def test_counts_samples_over_streams_and_batches() -> None:
    made: list[Sleeping] = []

    def open(setting: Setting) -> Session:
        made.append(Sleeping(setting))
        return made[-1]

    points = throughput(
        open,
        lambda size: random_inputs(convolutional(), size),
        [Setting(1, 1), Setting(1, 4)],
        [1, 8],
        seconds_each=0.25,
    )
    assert [(p.setting.streams, p.batch_size) for p in points] == [(1, 1), (1, 8), (4, 1), (4, 8)]
    for point in points:
        expected = point.setting.streams * point.batch_size / 0.005
        assert 0.5 * expected < point.samples_per_s.value <= expected
        assert point.samples_per_s.low <= point.samples_per_s.value <= point.samples_per_s.high
        assert 5 <= point.latency_ms < 10
        assert point.samples_per_s.conditions["batch"] == point.batch_size
        assert json.loads(json.dumps(point.to_dict()))["batch_size"] == point.batch_size
    assert [one.most for one in made] == [1, 4]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_real_engines(name: str) -> None:
    model = convolutional()
    points = throughput(
        lambda setting: by_name(name).open(model, setting),
        lambda size: random_inputs(model, size),
        [Setting(1, 2)],
        [1, 16],
        seconds_each=0.2,
    )
    assert [point.batch_size for point in points] == [1, 16]
    for point in points:  # how they compare is for benchmarks to say: the machine may be busy
        rate = point.samples_per_s
        assert 0 < rate.low <= rate.value <= rate.high
        assert point.setting == Setting(1, 2)


def test_failures_come_out() -> None:
    class Failing(Sleeping):
        def execute(self, inputs: dict) -> dict:
            raise Unsupported("no")

    inputs = random_inputs(convolutional(), 1)
    with pytest.raises(Unsupported, match="no"):
        throughput(Failing, lambda size: inputs, [Setting(1, 2)], [1], 0.1)
    with pytest.raises(Misuse, match="above 0"):
        throughput(Failing, lambda size: inputs, [Setting()], [0], 0.1)
