"""``diffc demo``: trains a small network on hand-written digits, and shows what happened.

One native call per step computes the loss, its gradients and the update of Adam. Afterwards the
output folder holds the learning curve, the weights and the text of every stage of the step.
scikit-learn (the data), matplotlib (the picture) and rich (the bar) are the extra ``demo``.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffc.cli import demo_files, demo_model
from diffc.cli.demo_progress import progress
from diffc.errors import UsageError
from diffc.jitted import Compiled
from diffc.train import Log, accuracy, minibatches

EPOCHS = 40
SEED = 1
FOLDER = "diffc-demo"
MODULES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}


class Result(NamedTuple):
    """What training gives."""

    params: demo_model.Params
    log: Log
    compiled: Compiled
    compile_seconds: float
    step_seconds: float


def add(commands: Any) -> None:
    """Adds the subcommand to the command line."""
    parser = commands.add_parser(
        "demo",
        help="train a small network on hand-written digits, and show what happened",
        description=__doc__.partition("\n\n")[2].replace("``", ""),
    )
    parser.add_argument(
        "--out", default=FOLDER, metavar="FOLDER", help="where results go (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=_positive, default=EPOCHS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=_count, default=SEED, metavar="N", help="of split, weights and batches"
    )
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"needs a number from 0 up, found {text}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"needs a number from 1 up, found {text}")
    return number


def run(options: argparse.Namespace) -> int:
    """The subcommand; returns the exit status.

    Raises:
        UsageError: the extra ``demo`` is not installed, or the folder can't be made.
    """
    missing = [name for module, name in MODULES.items() if not _is_installed(module)]
    if missing:
        raise UsageError(f"the demo needs {', '.join(missing)}: pip install diffc[demo]")
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be made: {error.strerror}") from None
    result = train(options.seed, options.epochs)
    report(result, folder, options.seed)
    return 0


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def train(seed: int, epochs: int) -> Result:
    """Trains the network; shows the progress."""
    rng = np.random.default_rng(seed)
    data = demo_model.load(rng)
    params = demo_model.initial_params(rng)
    step, optimizer = demo_model.make_step()
    scores = demo_model.make_scores()
    state = optimizer.init(params)
    batch = demo_model.BATCH
    steps = len(data.labels) // batch
    _say_what(data, steps, seed)

    start = time.perf_counter()
    compiled = step.compile(params, state, data.images[:batch], data.labels[:batch])
    compile_seconds = time.perf_counter() - start
    print(f"compiled the step in {compile_seconds:.2f} s; training\n")

    log = Log("epoch", "loss", "accuracy")
    seconds: list[float] = []
    with progress(epochs, steps) as shown:
        for epoch in range(1, epochs + 1):
            total = 0.0
            for x, y in minibatches((data.images, data.labels), batch, rng):
                start = time.perf_counter()
                loss, params, state = step(params, state, x, y)
                seconds.append(time.perf_counter() - start)
                total += float(loss)
                shown.step(float(loss))
            held_out = accuracy(scores(params, data.held_images), data.held_labels)
            log.add(epoch=epoch, loss=total / steps, accuracy=held_out)
            shown.epoch(epoch, total / steps, held_out)
    return Result(params, log, compiled, compile_seconds, float(np.median(seconds)))


def _say_what(data: demo_model.Digits, steps: int, seed: int) -> None:
    sizes = "-".join(map(str, demo_model.SIZES))
    print(
        f"{len(data.labels)} hand-written digits to train on, {len(data.held_labels)} held out "
        f"(stratified, seed {seed})\n"
        f"{sizes} ReLU network, softmax cross-entropy, Adam, f32: {steps} steps an epoch, "
        f"batch {demo_model.BATCH}"
    )


def report(result: Result, folder: Path, seed: int) -> None:
    """Writes the files, prints the numbers and where the files lie."""
    curve, weights, stages = folder / "curve.png", folder / "weights.npz", folder / "stages"
    sizes = "-".join(map(str, demo_model.SIZES))
    title = f"Hand-written digits: {sizes} ReLU network, Adam, seed {seed}"
    demo_files.save_curve(curve, result.log, title)
    demo_files.save_weights(weights, result.params)
    result.log.save(folder / "log.csv")
    texts = demo_files.save_stages(stages, result.compiled)
    held_out = result.log["accuracy"][-1]
    peak = result.compiled.memory().peak
    print(
        f"\nheld-out accuracy     {held_out:.2%}\n"
        f"time per step         {result.step_seconds * 1e6:.1f} µs (median; one native call: loss, "
        "gradients, update)\n"
        f"planned peak memory   {peak / 1024:.1f} KiB beside params, state and batch\n"
        f"learning curve        {curve}\n"
        f"weights               {weights}\n"
        f"log                   {folder / 'log.csv'}\n"
        f"stages of the step    {texts[0]} ... {texts[-1].name}"
    )
