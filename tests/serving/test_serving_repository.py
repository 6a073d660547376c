# SPDX-License-Identifier: Apache-2.0
"""The served models by name and version: swaps lose nothing, memory is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import small_models
from serving_models import bundle, close_to, eventually, images, served

from burnish.core.errors import BurnishError, Misuse
from burnish.serving.model_options import ModelOptions
from burnish.serving.oip.faults import Fault
from burnish.serving.opening import serve_bundle
from burnish.serving.repository import Repository


def test_models_are_found_by_name_and_their_latest_version(tmp_path: Path) -> None:
    async def run() -> None:
        one = bundle(tmp_path / "one")
        models = [
            ModelOptions(one, "net", "2"),
            ModelOptions(one, "net", "10"),
            ModelOptions(one, "other"),
        ]
        repository = Repository(models, serve_bundle)
        assert not repository.ready
        with pytest.raises(Fault, match="not loaded") as caught:
            repository.find("net")
        assert caught.value.status == 503
        await repository.start()
        assert repository.ready
        assert repository.find("net").version == "10"
        assert repository.find("net", "2").version == "2"
        assert repository.versions("net") == ["2", "10"]
        for name, version in (("nett", None), ("net", "3")):
            with pytest.raises(Fault) as caught:
                repository.find(name, version)
            assert caught.value.status == 404
        assert [(one["name"], one["version"], one["state"]) for one in repository.index()] == [
            ("net", "2", "READY"),
            ("net", "10", "READY"),
            ("other", "1", "READY"),
        ]
        await repository.close()
        assert not repository.models()

    asyncio.run(run())


def test_ten_swaps_under_load_answer_every_request_rightly(tmp_path: Path) -> None:
    """Two models take turns: each answer is that of one of them, as a whole."""

    async def run() -> None:
        folders = [
            bundle(tmp_path / str(seed), small_models.convolutional(seed)) for seed in range(2)
        ]
        repository = Repository([ModelOptions(folders[0], "net")], serve_bundle)
        await repository.start()
        inputs = images(3)
        truths = []
        for folder in folders:
            await repository.swap(ModelOptions(folder, "net"))
            truths.append((await repository.find("net").submit(inputs)).outputs["logits"])
        assert not close_to(*truths)
        seen, stop = [0, 0], False

        async def client() -> None:
            while not stop:
                answer = (await repository.find("net").submit(inputs)).outputs["logits"]
                which = [close_to(answer, truth) for truth in truths]
                assert sum(which) == 1
                seen[which.index(True)] += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for turn in range(10):
            before = sum(seen)
            await repository.swap(ModelOptions(folders[turn % 2], "net"))
            await eventually(lambda before=before: sum(seen) > before + 8)
        stop = True
        await asyncio.gather(*clients)
        assert min(seen) > 0
        await repository.close()

    asyncio.run(run())


def test_a_swap_that_fails_leaves_what_answers(tmp_path: Path) -> None:
    async def run() -> None:
        repository = Repository([ModelOptions(bundle(tmp_path / "one"), "net")], serve_bundle)
        await repository.start()
        before = repository.find("net")
        (tmp_path / "one" / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(Fault, match="could not be loaded"):
            await repository.load("net")
        assert repository.find("net") is before
        await before.submit(images(1))
        await repository.close()

    asyncio.run(run())


def test_unloading_waits_for_what_was_taken_and_loading_brings_it_back(tmp_path: Path) -> None:
    async def run() -> None:
        repository = Repository([ModelOptions(bundle(tmp_path / "one"), "net")], serve_bundle)
        await repository.start()
        pending = [repository.find("net").submit(images(1, seed)) for seed in range(20)]
        await repository.unload("net")
        assert all(one.done() and one.exception() is None for one in pending)
        with pytest.raises(Fault, match="unloaded") as caught:
            await repository.get("net")
        assert caught.value.status == 503
        await repository.load("net")
        await repository.find("net").submit(images(1))
        with pytest.raises(Fault) as caught:
            await repository.load("nobody")
        assert caught.value.status == 404
        await repository.close()

    asyncio.run(run())


def test_the_model_asked_longest_ago_makes_room_and_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        folders = [
            bundle(tmp_path / name, small_models.convolutional(seed))
            for seed, name in enumerate("abc")
        ]
        size = (folders[0] / "model.onnx").stat().st_size
        models = [ModelOptions(folder) for folder in folders]
        repository = Repository(models, serve_bundle, memory_bytes=round(2.5 * size))
        await repository.start()
        assert [one.name for one in repository.models()] == ["b", "c"]
        await (await repository.get("b")).submit(images(1))
        await (await repository.get("a")).submit(images(1))  # "c" was asked longest ago
        assert [one.name for one in repository.models()] == ["a", "b"]
        await repository.close()

    asyncio.run(run())


def test_what_cannot_be_opened_at_the_start_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        repository = Repository([ModelOptions(tmp_path, "net")], serve_bundle)
        with pytest.raises(BurnishError, match="is no bundle"):
            await repository.start()
        assert not repository.ready
        assert "is no bundle" in repository.index()[0]["reason"]

    asyncio.run(run())


@pytest.mark.parametrize("name", [".hidden", "a/b", "", "a b", "ü", "x" * 201])
def test_names_that_are_no_part_of_a_path_are_refused(name: str, tmp_path: Path) -> None:
    if not name:
        assert ModelOptions(tmp_path).served_name == tmp_path.name
        return
    with pytest.raises(Misuse, match="letters"):
        ModelOptions(tmp_path, name)


def test_the_bundles_own_table_says_how_it_is_served(tmp_path: Path) -> None:
    async def run() -> None:
        folder = bundle(tmp_path / "one")
        one = await serve_bundle(ModelOptions(folder))
        assert (one.batching.streams, one.max_batch_size) == (1, 8)
        await one.retire()
        chosen = {
            "threads": 1,
            "streams": 2,
            "max_batch_size": 4,
            "slo_ms": 25.0,
            "latency_by_batch": [{"batch_size": 1, "latency_ms": 1.0}],
        }
        bundle(folder, plan={"serving": chosen})
        one = await serve_bundle(ModelOptions(folder))
        assert (one.batching.streams, one.max_batch_size) == (2, 4)
        assert one.batching.slo_ms == 25.0
        await one.retire()
        bundle(folder, plan={"serving": {"threads": "x"}})
        with pytest.raises(Misuse, match="plan cannot be read"):
            await serve_bundle(ModelOptions(folder))

    asyncio.run(run())


def test_a_table_is_ready_for_shapes_of_other_sizes() -> None:
    async def run() -> None:
        model, _ = served(small_models.two_inputs(), padding={"length": (4, 16)})
        assert model.best_batch_size() >= 1
        await model.retire()

    asyncio.run(run())
