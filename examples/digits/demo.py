# SPDX-License-Identifier: Apache-2.0
"""From a trained network to a bundle that answers, in a few minutes on two cores.

    python examples/digits/demo.py

Trains a small residual network on the 1,797 handwritten digits that come with
scikit-learn, makes it smaller and faster, proves that it still reads digits, and lets the
result read one.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from network import train
from rich.console import Console
from sklearn.datasets import load_digits

import burnish as bn
from burnish.engines.torch import TorchEager

OUT = Path(__file__).parents[2] / "out" / "digits"
console = Console()


def main() -> None:
    """Runs the five steps."""
    console.rule("1. Data: 1,000 digits to learn from, 797 others to judge by")
    write_data()
    task = bn.Task.load(Path(__file__).parent / "task.toml")

    console.rule("2. Train a small residual network in PyTorch")
    started = time.perf_counter()
    whole = next(iter(task.split("training").batches(1000)))
    with console.status("training") as status:
        network = train(
            torch.from_numpy(whole.inputs["image"]),
            torch.from_numpy(whole.labels),
            epochs=5,
            progress=lambda work, done, total: status.update(f"{work}: {done} of {total} epochs"),
        )
    console.print(
        f"{time.perf_counter() - started:.0f} s; reads {accuracy(network, task):.2f} % of the "
        "797 digits that it has never seen"
    )

    console.rule("3. Optimize: at most 1 point of accuracy may go")
    model = bn.Model.from_torch(network, {"image": whole.inputs["image"][:2]}, source="DigitNet")
    model.save(OUT / "digits.onnx")
    with console.status("optimizing") as status:
        result = bn.optimize(
            model,
            task,
            bn.Goal(max_drop=1.0),
            budget="45 s",
            source=TorchEager(network, ["image"], ["output"]),
            store=bn.Store(OUT / "store"),
            progress=lambda work, done, total: status.update(
                f"{work}: {done} of {total}" if total else work
            ),
            command="make demo",
        )
    console.print(result.table(console.width), highlight=False, markup=False, end="")

    console.rule("4. Save the bundle")
    bundle = result.save(OUT / "bundle")
    console.print(f"bundle: {bundle.path}\nreport: {bundle.path / 'report.html'}", soft_wrap=True)

    console.rule("5. Open the bundle and read a digit")
    with np.load(OUT / "test.npz") as test:
        image, digit = test["image"][0], test["digit"][0]
    with bn.open(bundle.path) as session:
        prediction = session.predict(image)
    console.print(ascii_art(image), highlight=False)
    console.print(f"read as {prediction.label}, {prediction.score:.1%} sure; it is a {digit}")


def write_data() -> None:
    """Writes scikit-learn's digits as train.npz and test.npz, shuffled with a fixed seed."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    OUT.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", order[:1000]), ("test", order[1000:])):
        np.savez(OUT / f"{name}.npz", image=images[rows], digit=digits.target[rows])


def accuracy(network: torch.nn.Module, task: bn.Task) -> float:
    """Returns the network's top-1 on the validation data, in percent."""
    right = 0
    for batch in task.split("validation").batches(64):
        with torch.inference_mode():
            answers = network(torch.from_numpy(batch.inputs["image"])).argmax(1).numpy()
        right += int((answers == batch.labels).sum())
    return 100 * right / len(task.split("validation"))


def ascii_art(image: np.ndarray) -> str:
    """Returns an 8×8 image as text, two characters a pixel."""
    shades = " .:-=+*#%@"
    return "\n".join(
        "    " + "".join(2 * shades[int(pixel) * 9 // 255] for pixel in row)
        for row in image[..., 0]
    )


if __name__ == "__main__":
    main()
