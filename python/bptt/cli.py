"""The command `bptt`: train a character model, write text with it, look at its gradient, measure
this machine.

A command that cannot do what was asked says so in one line on stderr and returns 2; what cannot be
asked (an unknown option, a number that is none) argparse refuses in the same way.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bptt.io import write_atomically

if TYPE_CHECKING:
    from bptt.charmodel import CharacterModel

TEMPERATURE = 0.8

# What `bptt flow` measures if nothing else is asked, and what `bptt train` ends with: some seconds
# for the default model.
FLOW_STEPS, FLOW_BATCH, FLOW_MAX_LAG = 256, 8, 63


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text) if text.strip().lstrip("+").isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, neither of them."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < 1):
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """All commands and their options; `run` of a parsed line is what does it."""
    top = Parser(prog="bptt", description="Recurrent networks by backpropagation through time.")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a character model on a text file",
        description="Trains a character model on FILE and tells the bits per character of its last "
        "tenth, which it does not train on. Ctrl-C ends the run; the model is saved all the same.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    train.set_defaults(run=run_train)
    option = train.add_argument
    option("file", metavar="FILE", nargs="?", type=Path, help="UTF-8 text (default: Python's help)")
    option("--cell", choices=("lstm", "gru", "rnn"), default="lstm", help="the recurrent cell")
    option("--embedding", metavar="E", type=count, default=64, help="numbers for a character")
    option("--hidden", metavar="H", type=count, default=256, help="hidden units")
    option("--batch", metavar="N", type=count, default=32, help="streams the text is cut into")
    option("--k1", metavar="STEPS", type=count, default=64, help="time steps from update to update")
    option("--k2", metavar="STEPS", type=count, help="time steps propagated back (default: k1)")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--updates", metavar="U", type=count, help="end after U (default: 2000)")
    length.add_argument("--epochs", metavar="E", type=count, help="end after E times the text")
    length.add_argument("--minutes", metavar="M", type=positive, help="end after M minutes")
    option("--lr", metavar="RATE", type=positive, default=2e-3, help="Adam's learning rate")
    option("--clip", metavar="NORM", type=positive, default=1.0, help="largest gradient norm")
    option("--seed", metavar="S", type=seed, default=0, help="of weights and sample")
    option("--out", metavar="FOLDER", type=Path, default=Path("bptt-model"), help="where files go")

    sample = commands.add_parser(
        "sample",
        help="write text with a trained model",
        description="Writes text with a model that `bptt train` saved.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sample.set_defaults(run=run_sample)
    option = sample.add_argument
    option("model", metavar="MODEL", type=Path, help="a model.safetensors")
    option("--prompt", metavar="TEXT", default="", help="what the text begins with")
    option("--length", metavar="L", type=count, default=500, help="characters to write")
    option("--temperature", metavar="T", type=positive, default=TEMPERATURE, help="lower: tamer")
    option("--seed", metavar="S", type=seed, help="(default: another text each time)")

    bench = commands.add_parser(
        "bench",
        help="this machine: bptt beside PyTorch and JAX",
        description="Times one training step of each cell, beside PyTorch and JAX where they are "
        "installed. The long form, with everything else, is the folder benchmarks/ of the sources.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.set_defaults(run=run_bench)
    option = bench.add_argument
    option("--threads", metavar="N", type=count, help="(default: as many as bptt uses)")
    option("--seconds", metavar="S", type=positive, default=0.5, help="that a row takes")

    flow = commands.add_parser(
        "flow",
        help="show how far back a model's gradient reaches",
        description="Takes the gradient of a model that `bptt train` saved apart by the steps that "
        "it travelled back through time, on pieces of FILE, and recommends a window.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flow.set_defaults(run=run_flow)
    option = flow.add_argument
    option("model", metavar="MODEL", type=Path, help="a model.safetensors")
    option("file", metavar="FILE", nargs="?", type=Path, help="UTF-8 text (default: Python's help)")
    option("--steps", metavar="T", type=count, default=FLOW_STEPS, help="time steps of a piece")
    option("--batch", metavar="N", type=count, default=FLOW_BATCH, help="pieces of text")
    option("--max-lag", metavar="K", type=count, default=FLOW_MAX_LAG, help="the longest lag")
    option("--tolerance", metavar="SHARE", type=share, default=0.05, help="of the full gradient")
    option("--out", metavar="FOLDER", type=Path, help="where the picture goes (default: MODEL's)")
    return top


def run_train(chosen: argparse.Namespace) -> int:
    """`bptt train`."""
    from bptt import plot
    from bptt.charmodel import BITS, CharacterModel, Options, help_text, read_text, train

    text = help_text() if chosen.file is None else read_text(chosen.file)
    if chosen.updates is chosen.epochs is chosen.minutes is None:
        chosen.updates = 2000
    if chosen.k2 is None:
        chosen.k2 = chosen.k1
    options = Options(**{name: getattr(chosen, name) for name in Options._fields})
    model = CharacterModel(
        "".join(set(text)), chosen.cell, chosen.embedding, chosen.hidden, chosen.seed
    )
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "model.safetensors"
    parameters = sum(array.size for array in model.network.parameters.values())
    print(
        f"{chosen.file or 'the text of Python help'}: {len(text):,} characters, "
        f"{len(model.vocabulary)} different ones; the last tenth is held out\n"
        f"{chosen.cell}, {chosen.hidden} hidden units, {parameters:,} parameters",
        flush=True,
    )
    with stopping_by_signal() as stopped:
        try:
            report = train(model, text, options, path, stopped)
        except ArithmeticError as error:
            print(f"bptt: {error}; {path} holds the last good model, if any", file=sys.stderr)
            return 1
        if stopped():
            print("stopped by a signal")
    speed = sum(record.steps for record in report.history.records) / report.seconds
    print(
        f"{len(report.history):,} updates in {report.seconds:.1f} s, "
        f"{speed:,.0f} time steps per second of {chosen.batch} characters each\n"
        f"bits per character: {report.training_bits:.3f} training, "
        f"{report.held_out_bits:.3f} held out"
    )
    if not stopped():
        print(short_flow(model, text, chosen.k2))
    written = [path.name]
    if plot.available():
        bits = [BITS * loss for loss in report.history.loss]
        norms = report.history.gradient_norm
        plot.training_curve(
            chosen.out / "loss.png", bits, report.held_out, norms=norms, clip=chosen.clip
        )
        written.append("loss.png")
    sample = model.generate(500, temperature=TEMPERATURE, seed=chosen.seed)
    write_atomically(chosen.out / "sample.txt", sample.encode())
    written.append("sample.txt")
    print(f"wrote {', '.join(written)} to {chosen.out}; a sample:\n\n{sample}")
    return 0


def run_sample(chosen: argparse.Namespace) -> int:
    """`bptt sample`."""
    from bptt.charmodel import CharacterModel

    model = CharacterModel.load(chosen.model)
    print(model.generate(chosen.length, chosen.prompt, chosen.temperature, chosen.seed))
    return 0


def run_bench(chosen: argparse.Namespace) -> int:
    """`bptt bench`."""
    from bptt import bench
    from bptt.runtime import get_num_threads

    for line in bench.report(chosen.threads or get_num_threads(), chosen.seconds):
        print(line, flush=True)
    return 0


def run_flow(chosen: argparse.Namespace) -> int:
    """`bptt flow`."""
    from bptt import plot
    from bptt.charmodel import CharacterModel, help_text, measure_flow, read_text

    model = CharacterModel.load(chosen.model)
    text = help_text() if chosen.file is None else read_text(chosen.file)
    by_way = model.configuration["cell"] == "lstm"
    flow = measure_flow(model, text, chosen.steps, chosen.batch, chosen.max_lag, by_way)
    T, N, _ = flow.dh.shape
    print(f"{N} pieces of {chosen.file or 'the text of Python help'}, {T} characters each")
    print(flow.report(chosen.tolerance))
    if plot.available():
        folder = chosen.out or chosen.model.parent
        folder.mkdir(parents=True, exist_ok=True)
        flow.plot(folder / "flow.png", tolerance=chosen.tolerance)
        print(f"wrote flow.png to {folder}")
    return 0


def short_flow(model: CharacterModel, text: str, k2: int) -> str:
    """What `bptt flow` recommends for the same text, beside the window that was trained with."""
    from bptt.charmodel import measure_flow

    if len(text) < 8 * FLOW_BATCH:
        return "gradient flow: the text is too short to tell"
    flow = measure_flow(model, text, FLOW_STEPS, FLOW_BATCH, FLOW_MAX_LAG)
    found = flow.recommend_window()
    lines = [f"gradient flow: {found}; trained with {k2} (`bptt flow` tells more)"]
    return "\n".join(lines + [f"warning: {sentence}" for sentence in flow.warnings])


@contextmanager
def stopping_by_signal() -> Iterator[Callable[[], bool]]:
    """Within it, Ctrl-C and SIGTERM only make the function that it gives return true.

    So an update is never cut in two. After the first signal the handlers are those of before: a
    second Ctrl-C interrupts at once.
    """
    arrived = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(*_: object) -> None:
        nonlocal arrived
        arrived = True
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: arrived
    finally:
        restore()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: this process's own); returns the exit code."""
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except ValueError as error:
        message = str(error)
    except KeyboardInterrupt:
        return 130
    print(f"bptt: {message}", file=sys.stderr)
    return 2
