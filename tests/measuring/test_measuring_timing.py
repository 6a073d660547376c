# SPDX-License-Identifier: Apache-2.0
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_models import convolutional, random_inputs, unknown_operator

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.engines.engine import Session, installed
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.timing import Contender, _Block, _rounds_to_use, _Runner, race

INPUTS = random_inputs(convolutional(), 1)


class Busy(Session):
    """Spins for a known time, so that the race has a truth to find."""

    def __init__(self, seconds: list[float], fails_at: int = 1 << 30) -> None:
        self.signature = convolutional().signature
        self.setting = Setting()
        self.engine = "busy 1 (cpu)"
        self.seconds, self.fails_at = seconds, fails_at
        self.calls, self.closed, self.collecting = 0, False, False

    def execute(self, inputs: dict) -> dict:
        until = time.perf_counter() + self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        if self.calls >= self.fails_at:
            raise Unsupported("node 'x' gave up")
        self.collecting |= gc.isenabled() and self.calls > 1
        while time.perf_counter() < until:
            pass
        return {}

    def close(self) -> None:
        self.closed = True


def busy(key: str, *seconds: float, made: list | None = None, fails_at: int = 1 << 30) -> Contender:
    def open() -> Session:
        session = Busy(list(seconds), fails_at)
        if made is not None:
            made.append(session)
        return session

    return Contender(key, open, INPUTS)


def test_finds_the_known_latency_and_ratio() -> None:
    made: list[Busy] = []
    contenders = [busy("slow", 0.002, made=made), busy("fast", 0.001, made=made)]
    timed = race(contenders, baseline="slow", budget_s=2)
    slow, fast = timed["slow"], timed["fast"]
    assert list(timed) == ["slow", "fast"]
    assert slow.latency.value == pytest.approx(2.0, rel=0.1)
    assert fast.latency.value == pytest.approx(1.0, rel=0.1)
    assert slow.speedup is None
    assert fast.speedup is not None
    assert fast.speedup.low <= 2.0 <= fast.speedup.high * 1.05
    assert fast.speedup.value == pytest.approx(2.0, rel=0.1)
    assert fast.latency.low <= fast.latency.value <= fast.latency.high
    assert fast.latency.engine == "busy 1 (cpu)"
    assert fast.latency.conditions == {"threads": 1, "streams": 1, "batch": 1}
    assert fast.latency.n == fast.n_calls > 0
    assert len(fast.round_medians_ms) == fast.speedup.n >= 3 * 2
    assert len(made) >= 6
    assert all(one.closed for one in made)
    assert not any(one.collecting for one in made)
    assert gc.isenabled()


def test_stops_when_the_ratio_is_tight() -> None:
    start = time.perf_counter()
    race([busy("a", 0.001), busy("b", 0.001)], baseline="a", budget_s=60, precision_ratio=0.5)
    assert time.perf_counter() - start < 10


def test_keeps_to_its_budget() -> None:
    start = time.perf_counter()
    race([busy("a", 0.001), busy("b", 0.001)], baseline="a", budget_s=1, precision_ratio=1e-9)
    assert time.perf_counter() - start < 2


def test_warm_up_is_found_not_fixed() -> None:
    falling = [0.004] * 10 + [0.001]
    timed = race([busy("a", *falling), busy("b", 0.001)], baseline="b", budget_s=2)
    assert timed["a"].warmup_calls > 10
    assert timed["a"].latency.value == pytest.approx(1.0, rel=0.1)


def test_a_failure_is_reported_and_the_others_go_on() -> None:
    def cannot() -> Session:
        return OnnxRuntime().open(unknown_operator(), Setting())

    made: list[Busy] = []
    contenders = [
        Contender("refused", cannot, INPUTS),
        busy("breaks", 0.001, fails_at=60, made=made),
        busy("base", 0.001),
        Contender("wrong", lambda: Busy([0.001]), {}),
    ]
    timed = race(contenders, baseline="base", budget_s=1)
    assert "strange_7" in str(timed["refused"].failed)
    assert timed["breaks"].failed == "node 'x' gave up"
    assert "missing input image" in str(timed["wrong"].failed)
    assert np.isnan(timed["refused"].latency.value)
    assert timed["refused"].latency.n == 0
    assert timed["base"].failed is None
    assert timed["base"].n_calls > 0
    assert all(one.closed for one in made)


def test_of_several_baselines_the_fastest_counts() -> None:
    contenders = [busy("slow", 0.002), busy("fast", 0.001), busy("breaks", 0.0005, fails_at=1)]
    contenders.append(busy("other", 0.004))
    timed = race(contenders, baseline=["slow", "breaks", "fast"], budget_s=1)
    assert timed["fast"].speedup is None
    assert timed["slow"].speedup is not None
    assert timed["slow"].speedup.value == pytest.approx(0.5, rel=0.1)
    assert timed["other"].speedup is not None
    assert timed["other"].speedup.value == pytest.approx(0.25, rel=0.1)


def test_a_failed_baseline_leaves_latencies() -> None:
    timed = race([busy("base", 0.001, fails_at=1), busy("a", 0.001)], baseline="base", budget_s=0.5)
    assert timed["base"].failed
    assert timed["a"].speedup is None
    assert timed["a"].latency.value == pytest.approx(1.0, rel=0.1)


def test_percentiles_only_where_the_calls_support_them() -> None:
    few = race([busy("a", 0.05)], baseline="a", budget_s=0.5)["a"]
    assert "p99" not in few.percentiles_ms
    many = race([busy("a", 0.00005)], baseline="a", budget_s=3, precision_ratio=1e-9)["a"]
    assert many.n_calls >= 1000
    ordered = [many.percentiles_ms[name] for name in ("p50", "p90", "p95", "p99")]
    assert ordered == sorted(ordered)
    assert many.noise_ratio < 1


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux tells, others not")
def test_other_programs_show() -> None:
    program = "import time; end = time.time() + 20\nwhile time.time() < end: pass"
    cores = len(os.sched_getaffinity(0))
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2 * cores)]
    try:
        disturbed = race([busy("a", 0.02)], baseline="a", budget_s=2)["a"]
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert disturbed.waited_ratio > 0.1


def test_disturbed_rounds_are_left_out_while_enough_remain() -> None:
    def runners(*waited: list[float]) -> dict[str, _Runner]:
        calm, other = _Runner(busy("calm", 1)), _Runner(busy("other", 1))
        for one in waited:
            calm.sessions.append([_Block(np.ones(3), 1.0, 0.0) for _ in one])
            other.sessions.append([_Block(np.ones(3), 1.0, ratio) for ratio in one])
        return {"calm": calm, "other": other}

    mixed = runners([0, 0.5, 0, 0], [0, 0, 2, 0])
    assert _rounds_to_use(mixed) == [[0, 2, 3], [0, 1, 3]]
    hopeless = runners([1, 1, 1, 0], [1, 1, 1, 0])
    assert _rounds_to_use(hopeless) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    one_session_alone = runners([0] * 9, [1] * 9)
    assert _rounds_to_use(one_session_alone) == [list(range(9)), list(range(9))]


def test_misuse_is_gathered() -> None:
    with pytest.raises(Misuse, match=r"must differ.*none of the contenders.*above 0"):
        race([busy("a", 0.1), busy("a", 0.1)], baseline="b", budget_s=0)


def test_real_engines_race() -> None:
    model = convolutional()
    contenders = [
        Contender(engine.name, lambda engine=engine: engine.open(model, Setting()), INPUTS)
        for engine in installed()
    ]
    timed = race(contenders, baseline="onnxruntime", budget_s=2)
    for engine in installed():
        one = timed[engine.name]
        assert one.failed is None
        assert 0.005 < one.latency.value < 50
        assert one.latency.engine == engine.identity
