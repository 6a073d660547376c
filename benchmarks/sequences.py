# SPDX-License-Identifier: Apache-2.0
"""Serves a sequence model in four ways, and asks for many lengths at once.

    python benchmarks/sequences.py [--seconds 8] [--rounds 3] [--clients 16]

A four-layer transformer encoder over token ids with a mask, not trained, in float. Requests
hold one sequence each, of lengths as in text: many short, few long, 4 to 128. Served

- in buckets: those up to 16, 32, 64, 96, 128 run together, padded to the longest that meet;
- in one bucket: all run together, padded to the longest that meet;
- padded to the most: the clients send all with 128 words, and all run together;
- alone: as they are, one at a time, as many at once as there are cores.

The same clients ask all of them, in a closed loop, in turns; each answer is compared with the
engine's own for that sequence as it is. Prints answers a second and latencies: medians
over the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_server import Server

from burnish import AsyncClient
from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.machine import machine
from burnish.measuring.throughput import throughput
from serving import ranged

WORDS, WIDTH, INNER, LAYERS, CLASSES, MOST = 1000, 256, 1024, 4, 10, 128
BUCKETS = [16, 32, 64, 96, 128]
MOST_BATCH = 16
FULL = "padded to the most"
WAYS = {
    "in buckets": f"padding = {{ sequence = {BUCKETS} }}",
    "in one bucket": f"padding = {{ sequence = [{MOST}] }}",
    FULL: "",
    "alone": "max_batch_size = 1",
}


def encoder() -> onnx.ModelProto:
    """Returns the network: (batch, sequence) ids and mask to (batch, 10)."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(name: str, *shape: int) -> str:
        return constant(name, (rng.normal(size=shape) / shape[0] ** 0.5).astype(np.float32))

    def add(op: str, inputs: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    one = constant("one", np.array(1, np.float32))
    far = constant("far", np.array(1e4, np.float32))
    scale = constant("scale", np.array(WIDTH**-0.5, np.float32))
    after, last = constant("after", np.array([1])), constant("last", np.array([2]))
    gain, shift = (
        constant("gain", np.ones(WIDTH, np.float32)),
        constant("shift", np.zeros(WIDTH, np.float32)),
    )
    add("Cast", ["mask"], "kept", to=TensorProto.FLOAT)
    add("Mul", [add("Sub", [add("Unsqueeze", ["kept", after], "keys"), one], "gone"), far], "bias")
    x = add("Gather", [weight("words", WORDS, WIDTH), "ids"], "embedded")
    for n in range(LAYERS):
        q, k, v = (add("MatMul", [x, weight(f"w{c}{n}", WIDTH, WIDTH)], f"{c}{n}") for c in "qkv")
        k = add("Transpose", [k], f"turned{n}", perm=[0, 2, 1])
        scores = add("Mul", [add("MatMul", [q, k], f"raw{n}"), scale], f"scaled{n}")
        shares = add("Softmax", [add("Add", [scores, "bias"], f"masked{n}")], f"shares{n}", axis=-1)
        x = add("Add", [x, add("MatMul", [shares, v], f"seen{n}")], f"sum{n}")
        x = add("LayerNormalization", [x, gain, shift], f"norm{n}")
        inner = add(
            "Relu", [add("MatMul", [x, weight(f"up{n}", WIDTH, INNER)], f"up_{n}")], f"in{n}"
        )
        x = add(
            "Add",
            [x, add("MatMul", [inner, weight(f"down{n}", INNER, WIDTH)], f"out{n}")],
            f"end{n}",
        )
    rows = add("Unsqueeze", ["kept", last], "rows")
    total = add("ReduceSum", [add("Mul", [x, rows], "own"), after], "total", keepdims=0)
    count = add("ReduceSum", ["kept", after], "count", keepdims=1)
    add("MatMul", [add("Div", [total, count], "mean"), weight("head", WIDTH, CLASSES)], "scores")
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def inputs(rows: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns sequences of one length."""
    ids = rng.integers(0, WORDS, (rows, length))
    return {"ids": ids, "mask": np.ones_like(ids)}


def write_bundle(folder: Path) -> tuple[Path, Model]:
    """Writes the bundle, with its measured latencies at the largest length."""
    file = folder / "encoder.onnx"
    file.write_bytes(encoder().SerializeToString())
    model, engine = Model.load(file), OnnxRuntime()
    setting = Setting(1, machine().cores)
    points = throughput(
        lambda one: engine.open(model, one),
        lambda batch: inputs(batch, MOST, np.random.default_rng(0)),
        [setting],
        [1, 2, 4, 8, MOST_BATCH],
        0.5,
    )
    rows = [{"batch_size": one.batch_size, "latency_ms": one.latency_ms} for one in points]
    serving = {"threads": 1, "streams": setting.streams, "max_batch_size": MOST_BATCH}
    serving |= {"latency_by_batch": rows, "measured": {"axes": {"sequence": MOST}}}
    plan = {"engine": engine.name, "threads": 1, "streams": setting.streams, "serving": serving}
    manifest = {"plan": plan, "preprocessing": None, "classes": []}
    return Bundle.write(folder / "bundle", model, model, manifest, {}).path, model


def padded(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a sequence with as many words as there can be."""
    return {
        name: np.pad(array, ((0, 0), (0, MOST - array.shape[1]))) for name, array in given.items()
    }


def lengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns lengths from 4 to 128: an exponential of mean 36 on top of 4."""
    return np.minimum(MOST, 4 + rng.exponential(36, n)).astype(int)


async def ask(
    port: int, clients: int, seconds: float, cases: list[tuple[dict[str, np.ndarray], np.ndarray]]
) -> tuple[float, list[float]]:
    """Returns answers a second and their latencies in milliseconds; raises for a wrong one."""
    until_s = time.perf_counter() + seconds
    latencies: list[float] = []

    async def one(number: int) -> None:
        async with AsyncClient(f"http://127.0.0.1:{port}", "text") as client:
            place = number
            while time.perf_counter() < until_s:
                given, expected = cases[place % len(cases)]
                began_s = time.perf_counter()
                got = await client.infer(given)
                latencies.append((time.perf_counter() - began_s) * 1e3)
                if not np.allclose(got["scores"], expected, rtol=1e-3, atol=1e-4):
                    raise SystemExit(f"a wrong answer for {given['ids'].shape[1]} words")
                place += clients

    began_s = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return len(latencies) / (time.perf_counter() - began_s), latencies


def main() -> None:
    """Runs it, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    own = parser.parse_args()
    rng = np.random.default_rng(1)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    middle: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle, model = write_bundle(folder)
        with OnnxRuntime().open(model, Setting()) as session:
            given = [inputs(1, length, rng) for length in lengths(512, rng)]
            cases = [(one, session.execute(one)["scores"]) for one in given]
        servers = {}
        for way, said in WAYS.items():
            file = folder / f"{len(servers)}.toml"
            file.write_text(
                "[server]\nport = 0\ngrpc_port = 0\nhealth_port = 0\n"
                f'[models.text]\npath = "{bundle}"\n{said}\n'
            )
            servers[way] = Server("--config", file)
        for turn in range(own.rounds):
            for way, server in servers.items():
                print(f"round {turn + 1} of {own.rounds}: {way}", file=sys.stderr)
                sent = [(padded(one), y) for one, y in cases] if way == FULL else cases
                asyncio.run(ask(server.port, own.clients, 1.0, sent))
                rate, latencies = asyncio.run(ask(server.port, own.clients, own.seconds, sent))
                rates[way].append(rate)
                middle[way].append(float(np.median(latencies)))
        for server in servers.values():
            server.stop()
    print(
        f"{machine().cpu_model}, {machine().cores} cores, shared by server and {own.clients} "
        f"clients; {own.rounds} rounds of {own.seconds:g} s. Lengths 4 to {MOST}, mean "
        f"{np.mean([one['ids'].shape[1] for one, _ in cases]):.0f}. All answers right.\n"
    )
    print("| served | answers/s | against alone | p50 ms |\n|---|---:|---:|---:|")
    for way, found in rates.items():
        ratio = [one / other for one, other in zip(found, rates["alone"], strict=True)]
        print(f"| {way} | {ranged(found, 0)} | {ranged(ratio, 2)} | {ranged(middle[way], 1)} |")


if __name__ == "__main__":
    main()
