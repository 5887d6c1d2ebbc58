"""Makes docs/benchmarks.md and its two pictures of what run.py wrote.

python benchmarks/report.py benchmarks/results.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import GOALS, Row, ceiling, over_needed, peak

from bptt.bench import geometric_mean

DOCS = Path(__file__).parents[1] / "docs"
RATIOS, ROOFLINE = "benchmarks-ratios.png", "benchmarks-roofline.png"

INTRODUCTION = """\
# Benchmarks

This page is made by `python benchmarks/report.py`; its numbers come from
`python benchmarks/run.py --{size}`, which took {seconds} seconds.

All is float32. The contestants of a row take turns in one process, so that a machine whose speed
drifts does so for all of them; between two turns the process sleeps until the threads of the last
one have stopped spinning. Before it is timed JAX has compiled, and all are checked to give the same
result. Each number of threads is a process of its own that may use as many processors.

Times are medians with the quartiles in brackets. `ratio` is the best peer's median over bptt's:
above 1 bptt is faster. In the same turns run a product of two matrices of 1024 x 1024 (`sgemm`: MKL
through PyTorch, or NumPy's where that is not installed), a `copy` of 16 MB a thread and, for one
sequence, the product of a matrix of 1 MB a thread with a vector (`sgemv`). The last columns say
what share of their rates bptt reaches by the FLOP and the bytes that a row needs at least; they are
counted in `benchmarks/common.py`. Data that stay in caches can exceed the bandwidth of `copy`.

`ceiling` is the ratio that no program could exceed: the best peer's time over that of the row's
FLOP at the fastest rate of products that anybody, `sgemm` among them, reached in any row of this
run with as many threads, all else for nothing. `reached` is bptt's share of it, ratio over ceiling.

## The machine
"""

TITLES = {
    "training": "One training step",
    "inference": "Inference",
    "streaming": "One streaming step from Python",
    "update": "A whole update of the character model",
    "lengths": "Variable lengths",
    "memory": "Memory of one training step",
    "scaling": "Scaling",
    "denormals": "Inputs that are denormal",
}
ABOUT = {
    "training": "Forward and backward of one layer, gradients of x and of all parameters.",
    "inference": "All steps, forward only, by a frozen layer (`Layer.freeze`): as ONNX Runtime has "
    "in its session, it has made beforehand what can be made of the weights.",
    "streaming": "D = 1, one sequence, the state kept from call to call. The column bptt is "
    "`bptt.Stream`.",
    "update": "Embedding E, recurrent layer, linear layer; forward, softmax cross-entropy over V "
    "characters, backward, clipping at 1.0, Adam.",
    "lengths": "The training step of sequences of different lengths, `filled` of all steps being "
    "valid; the column bptt is with `lengths`. FLOP and bytes are of the valid steps. `over share` "
    "is what bptt costs, beyond a fixed overhead (that of a call whose lengths are all 0), over "
    "`filled` times what it costs padded. It is the median over turns, in each of which "
    "the three ran one after the other.",
    "memory": "The peak of resident memory during one training step above what stands when the "
    "inputs are there, each in a process of its own, MB. `over needed` is bptt's peak, x and dy "
    "included, over what a step must hold: tape, input and gradients, these being dL/dy (which the "
    "loss hands over), dL/dx and those of the parameters.",
    "denormals": "A training step whose x and dy are denormal numbers, biases zero. `slower` is "
    "the ratio to the same step on ordinary numbers.",
    "scaling": "Microseconds of a training step, a time step and a sequence. `100 steps` is a call "
    "of so many, in the same turns: the gain over it is what a longer call saves of a call's own "
    "time. `calls apart` are as many calls at once as there are threads, on one thread each: they "
    "share nothing but the machine, and their gain over one thread is what it has to give.",
}
SIZES = ("cell", "T", "N", "D", "H", "V", "E", "filled", "slower")
CEILINGS = ("training", "inference")
KINDS = {  # what is measured beside the contestants, and its unit
    "sgemm": "GFLOP/s",
    "copy": "GB/s",
    "sgemv": "GFLOP/s",
}


def page(result: dict[str, Any]) -> str:
    """The whole text."""
    return "\n".join(lines(result)).rstrip() + "\n"


def lines(result: dict[str, Any]) -> Iterator[str]:
    rows: list[Row] = result["rows"]
    yield INTRODUCTION.format(**result)
    yield from table(["machine", ""], [[k, str(v)] for k, v in result["machine"].items()])
    for name, unit in KINDS.items():
        for threads in threads_of(rows):
            some = [row["rates"] for row in of(rows, threads=threads) if "rates" in row]
            rates = sorted(rate[name] / 1e9 for rate in some if name in rate)
            if rates:
                lower, median, upper = (rates[len(rates) * q // 4] for q in (1, 2, 3))
                told = f"{median:.0f} {unit} ({lower:.0f} to {upper:.0f})"
                yield f"- {name}, {count(threads)}: {told}"
    for threads in threads_of(rows):
        fastest = peak(of(rows, threads=threads)) / 1e9
        yield f"- the fastest product, {count(threads)}: {fastest:.0f} GFLOP/s"
    yield from ["", *(f"{sentence}." for sentence in result["absent"]), ""]
    yield from summary(rows)
    yield from profiles(rows)
    yield from [f"![ratio per row]({RATIOS})", "", f"![roofline]({ROOFLINE})", ""]
    for benchmark, title in TITLES.items():
        for threads in threads_of(of(rows, benchmark=benchmark)):
            some = of(rows, benchmark=benchmark, threads=threads)
            yield from [f"## {title}, {count(threads)}", "", ABOUT[benchmark], ""]
            if benchmark == "memory":
                yield from memory(some)
            elif benchmark == "scaling":
                yield from scaling(some)
            else:
                yield from timed(some, peak(of(rows, threads=threads)))
            yield ""


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Of each benchmark with peers: the mean and the least ratio."""
    yield from ["## In short", ""]
    body = []
    for benchmark, title in TITLES.items():
        for threads in threads_of(of(rows, benchmark=benchmark)):
            some = [r for r in of(rows, benchmark=benchmark, threads=threads) if "ratio" in r]
            if not some:
                continue
            least = min(some, key=lambda row: row["ratio"])
            sizes = " ".join(str(least[key]) for key in SIZES if key in least)
            mean = geometric_mean([row["ratio"] for row in some])
            where = f"{sizes} ({least['best_peer']})"
            numbers = [f"{mean:.2f}", f"{least['ratio']:.2f}"]
            body.append([title, str(threads), str(len(some)), *numbers, where])
    head = ["benchmark", "threads", "rows", "geometric mean", "least ratio", "in the row"]
    yield from [*table(head, body), ""]
    yield from ceilings(rows)


def ceilings(rows: Sequence[Row]) -> Iterator[str]:
    """How far bptt is ahead, how far anybody could be, and in how many rows that bars the goal."""
    body = []
    for benchmark in CEILINGS:
        for threads in threads_of(of(rows, benchmark=benchmark)):
            some = [r for r in of(rows, benchmark=benchmark, threads=threads) if "ratio" in r]
            if not some:
                continue
            bounds = [ceiling(row, peak(of(rows, threads=threads))) for row in some]
            ratios = [row["ratio"] for row in some]
            goal = GOALS[benchmark]
            barred = sum(bound < goal for bound in bounds)
            missed = sum(r < goal <= bound for r, bound in zip(ratios, bounds, strict=True))
            means = [f"{geometric_mean(numbers):.2f}" for numbers in (ratios, bounds)]
            counts = (str(missed), str(barred))
            body.append([TITLES[benchmark], str(threads), *means, str(goal), *counts])
    if body:
        head = ["benchmark", "threads", "mean ratio", "mean ceiling", "goal of a row"]
        head += ["ratio below the goal, ceiling not", "ceiling below the goal"]
        yield from [*table(head, body), ""]


PROFILES = """\
## Where the time of the lowest rows goes

By `python benchmarks/profile_rows.py`, which repeats bptt's call of each row whose ratio is below
its goal ({goals}) under Linux's `perf`: the share of the time
in products, in packing their operands, in the cells' own passes (activations, gates, states), in
waiting for other threads, and in all else. It is another run: `ms` is the row's time, `profiled,
ms` that of a call under `perf`, and where they differ the machine was faster or slower then; the
column `products, GFLOP/s` is of then, too. `products alone` is what the ratio would be if those
shares held and all but the products took no time: where it is below the goal, only faster products
could reach it.
"""


def profiles(rows: Sequence[Row]) -> Iterator[str]:
    """Of each row that was looked at: the share of each kind of work, and what that means."""
    some = [row for row in rows if "profile" in row]
    if not some:
        return
    yield PROFILES.format(goals=", ".join(f"{name} {goal}" for name, goal in GOALS.items()))
    kinds = list(some[0]["profile"]["shares"])
    body = []
    for row in some:
        found = row["profile"]
        cells = [row["benchmark"], str(row["threads"])]
        cells += [str(row.get(key, row.get("E"))) for key in ("cell", *"TNDH")]
        times = (row["times"]["bptt"]["median"], found["median"])
        cells += [f"{row['ratio']:.2f}", *(f"{1e3 * seconds:.3g}" for seconds in times)]
        cells += [f"{found['shares'][kind]:.0%}" for kind in kinds]
        cells.append(f"{found['product_rate'] / 1e9:.0f}")
        cells.append(f"{row['ratio'] / found['shares']['products']:.2f}")
        body.append(cells)
    head = [
        "benchmark",
        "threads",
        "cell",
        "T",
        "N",
        "D or E",
        "H",
        "ratio",
        "ms",
        "profiled, ms",
        *kinds,
    ]
    yield from [*table([*head, "products, GFLOP/s", "products alone"], body), ""]


def timed(rows: Sequence[Row], fastest: float) -> Iterator[str]:
    """Times of all contestants; `fastest` is the peak of all rows with as many threads."""
    with_ceiling = rows[0]["benchmark"] in CEILINGS
    sizes = [key for key in SIZES if any(key in row for row in rows)]
    names = names_of(rows, "times")
    kinds = [k for k in KINDS if any(k in row.get("shares", {}) for row in rows)]
    smallest = min(row["times"][names[0]]["median"] for row in rows)
    unit, factor = ("us", 1e6) if smallest < 1e-5 else ("ms", 1e3)
    body = []
    for row in rows:
        cells = [str(row.get(key, "")) for key in sizes]
        cells += [time_of(row["times"].get(name), factor) for name in names]
        cells.append(f"{row['ratio']:.2f}" if "ratio" in row else "")
        if with_ceiling:
            bound = ceiling(row, fastest) if "ratio" in row else 0.0
            cells += [f"{bound:.2f}", f"{row['ratio'] / bound:.0%}"] if bound else ["", ""]
        shares = row.get("shares", {})
        cells += [f"{shares[kind]:.0%}" if kind in shares else "" for kind in kinds]
        if row["benchmark"] == "lengths":
            cells.append(time_of(row["over_share"], 1))
        body.append(cells)
    head = [*sizes, *(f"{name}, {unit}" for name in names), "ratio"]
    head += ["ceiling", "reached"] * with_ceiling
    head += [f"of {kind}" for kind in kinds]
    head += ["over share"] * (rows[0]["benchmark"] == "lengths")
    yield from table(head, body)
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        yield from ["", f"Geometric mean of the ratios: {geometric_mean(ratios):.2f}."]


def memory(rows: Sequence[Row]) -> Iterator[str]:
    names = names_of(rows, "bytes")
    body = [
        [str(row[key]) for key in ("cell", "T", "N", "D", "H")]
        + [f"{row['bytes'][name] / 1e6:.0f}" for name in names]
        + [f"{row['tape'] / 1e6:.0f}", f"{row['ratio']:.2f}" if "ratio" in row else ""]
        + [f"{over_needed(row):.3f}"]
        for row in rows
    ]
    head = ["cell", "T", "N", "D", "H", *names, "the tape alone", "ratio", "over needed"]
    yield from table(head, body)


def scaling(rows: Sequence[Row]) -> Iterator[str]:
    bases = {"T": "bptt, 100 steps", "threads": "bptt 1 threads"}  # of the gains
    for along in ("T", "N", "H", "threads"):
        some = [row for row in rows if row["along"] == along]
        if not some:
            continue
        yield from [f"### Along {along}", ""]
        names = names_of(some, "us_a_step_and_sequence")
        times = [row["us_a_step_and_sequence"] for row in some]
        base = bases.get(along)
        faster = [name for name in names if base is not None and name != base]
        gains = [[its[base] / its[name] for name in faster] for its in times]
        body = [
            [str(row[key]) for key in ("cell", "T", "N", "D", "H")]
            + [f"{its[name]:.3g}" for name in names]
            + [f"{row['shares']['sgemm']:.0%}"]
            + [f"{gain:.2f}" for gain in gain_of]
            for row, its, gain_of in zip(some, times, gains, strict=True)
        ]
        if faster:
            medians = [f"{median(gain_of):.2f}" for gain_of in zip(*gains, strict=True)]
            body.append(["median", *[""] * (len(names) + 5), *medians])
        head = ["cell", "T", "N", "D", "H", *names, "of sgemm", *[f"gain, {n}" for n in faster]]
        yield from [*table(head, body), ""]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for cells in body:
        yield f"| {' | '.join(cells)} |"
    yield ""


def time_of(timing: Any, factor: float) -> str:
    if timing is None:
        return ""
    median, lower, upper = (factor * timing[key] for key in ("median", "lower", "upper"))
    return f"{median:.3g} ({lower:.3g} to {upper:.3g})"


def count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def of(rows: Sequence[Row], **facts: Any) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in facts.items())]


def threads_of(rows: Sequence[Row]) -> list[int]:
    return sorted({row["threads"] for row in rows})


def names_of(rows: Sequence[Row], key: str) -> list[str]:
    """The contestants of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row[key]))


# ---- pictures ------------------------------------------------------------------------------------

REST = "All else"  # the panel of all that has few rows
COLOURS = {"rnn": "tab:green", "lstm": "tab:blue", "gru": "tab:orange"}


def ratios_picture(rows: Sequence[Row], path: Path) -> None:
    """One point a row; panels for training and inference, and one for all that has few rows."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, NullFormatter

    rows = [row for row in rows if "ratio" in row and row["benchmark"] != "scaling"]
    panels: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{TITLES[row['benchmark']]}, {count(row['threads'])}"
        large = row["benchmark"] in ("training", "inference")
        panels.setdefault(title if large else REST, []).append(row)
    panels |= {REST: panels.pop(REST)} if REST in panels else {}  # it comes last
    figure = Figure(figsize=(9, 2.6 * max(1, len(panels))), layout="constrained")
    all_axes = figure.subplots(max(1, len(panels)), squeeze=False)[:, 0]
    for axes, (title, some) in zip(all_axes, panels.items(), strict=False):
        labels = [label(row, title == REST) for row in some]
        places = list(dict.fromkeys(labels))
        for cell, colour in COLOURS.items():
            mine = [i for i, row in enumerate(some) if row["cell"] == cell]
            at = [places.index(labels[i]) for i in mine]
            axes.scatter(at, [some[i]["ratio"] for i in mine], color=colour, label=cell, s=22)
        axes.axhline(1, color="black", linewidth=1)
        axes.set(yscale="log", ylabel="best peer / bptt")
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        crowded = max(row["ratio"] for row in some) > 10 * min(row["ratio"] for row in some)
        axes.yaxis.set_minor_formatter(NullFormatter() if crowded else FormatStrFormatter("%g"))
        axes.tick_params(axis="y", which="both", labelsize=7)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(places)), places, fontsize=7)
        axes.grid(alpha=0.3, which="both", axis="y")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def label(row: Row, with_name: bool) -> str:
    """What stands below a row's point."""
    if with_name:
        return f"{row['benchmark']}\nH{row['H']}\n{count(row['threads'])}"
    return "\n".join(f"{key}{row[key]}" for key in ("T", "N", "D", "H"))


def roofline_picture(rows: Sequence[Row], path: Path) -> None:
    """FLOP/s over FLOP a byte under the measured peaks; one panel a number of threads."""
    from matplotlib.figure import Figure

    marks = {"training": "o", "inference": "^", "update": "s", "lengths": "D"}
    numbers = threads_of(rows)
    figure = Figure(figsize=(5.2 * len(numbers), 4.6), layout="constrained")
    for axes, threads in zip(
        figure.subplots(1, len(numbers), squeeze=False)[0], numbers, strict=True
    ):
        some = [row for row in of(rows, threads=threads) if row["benchmark"] in marks]
        for row in some:
            own = row["times"]["bptt"]["median"]
            hollow = row["N"] == 1
            axes.scatter(
                row["flop"] / row["traffic"],
                row["flop"] / own / 1e9,
                marker=marks[row["benchmark"]],
                facecolor="none" if hollow else COLOURS[row["cell"]],
                edgecolor=COLOURS[row["cell"]],
                s=22,
            )
        peak, copy = (
            sorted(row["rates"][kind] for row in some)[len(some) // 2] / 1e9
            for kind in ("sgemm", "copy")
        )
        intensities = [row["flop"] / row["traffic"] for row in some]
        left, right = min(intensities) / 2, max(max(intensities) * 2, 2 * peak / copy)
        corner = peak / copy
        axes.plot([left, corner, right], [left * copy, peak, peak], color="black", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s")
        title = f"{count(threads)}: sgemm {peak:.0f} GFLOP/s, copy {copy:.0f} GB/s"
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3, which="both")
        for name, mark in marks.items():
            axes.scatter([], [], marker=mark, color="0.5", label=name)
        for cell, colour in COLOURS.items():
            axes.scatter([], [], color=colour, label=cell)
        axes.scatter([], [], facecolor="none", edgecolor="0.5", label="N = 1")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="what run.py wrote")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder that the page goes to")
    chosen = parser.parse_args()
    result = json.loads(chosen.result.read_text(encoding="utf-8"))
    (chosen.out / "benchmarks.md").write_text(page(result), encoding="utf-8")
    ratios_picture(result["rows"], chosen.out / RATIOS)
    roofline_picture(result["rows"], chosen.out / ROOFLINE)
    print(f"wrote benchmarks.md, {RATIOS} and {ROOFLINE} to {chosen.out}")


if __name__ == "__main__":
    main()
