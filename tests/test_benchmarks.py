"""The benchmarks run, and the page is made of what they wrote. Nothing here looks at a time."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt import bench, cli
from networks import assert_close

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = [
    *("training", "inference", "streaming", "update"),
    *("lengths", "memory", "scaling", "denormals"),
]


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *map(str, arguments)]
    # Not in a subfolder of the tests: a benchmark finds its neighbours by itself.
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=300, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    run("run", "--tiny", "--threads", 1, 2, "--out", path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_benchmark_has_rows_for_every_cell(result: dict[str, Any]) -> None:
    rows = result["rows"]
    on_linux = Path("/proc/self/clear_refs").exists()
    expected = {name for name in SCRIPTS if name != "memory" or on_linux}
    assert {row["benchmark"] for row in rows} == expected
    for benchmark in expected - {"scaling"}:
        for threads in (1, 2) if benchmark not in ("streaming", "memory") else (1,):
            some = [r for r in rows if (r["benchmark"], r["threads"]) == (benchmark, threads)]
            assert {row["cell"] for row in some} == {"rnn", "lstm", "gru"}
    along = {row["along"] for row in rows if row["benchmark"] == "scaling"}
    assert along == {"T", "N", "H", "threads"}


def test_every_row_tells_times_and_shares(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        if row["benchmark"] == "memory":
            assert row["bytes"]["bptt"] >= 0
            continue
        names = list(row["times"])
        assert names[0].startswith("bptt")
        for timing in row["times"].values():
            assert 0 < timing["lower"] <= timing["median"] <= timing["upper"]
        assert {"sgemm", "copy"} <= row["shares"].keys()
        assert ("sgemv" in row["shares"]) == (row["N"] == 1)
        assert all(share > 0 for share in row["shares"].values())
        peers = [name for name in names if not name.startswith("bptt")]
        assert ("ratio" in row) == bool(peers)
        if peers:
            medians = [row["times"][name]["median"] for name in peers]
            assert row["ratio"] == min(medians) / row["times"][names[0]]["median"]


def test_each_contestant_has_the_work_that_it_does(result: dict[str, Any]) -> None:
    seen = set()
    for row in result["rows"]:
        steps = {name: work * row["T"] for name, work in row.get("work", {}).items()}
        assert steps.get("bptt, 100 steps", 100) == pytest.approx(100)
        assert steps.get("bptt, lengths 0", 0) == 0
        apart = 10 * row["threads"] * row["T"]  # calls in a row on each thread
        assert steps.get("bptt, calls apart", apart) == apart
        seen |= steps.keys() & row.get("times", {}).keys()
    assert {"bptt, 100 steps", "bptt, lengths 0", "bptt, calls apart"} <= seen


def test_the_cost_of_lengths_is_told_turn_by_turn(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        assert ("over_share" in row) == (row["benchmark"] == "lengths")
        if "over_share" in row:
            share = row["over_share"]
            assert share["samples"] == row["times"]["bptt"]["samples"]
            assert share["lower"] <= share["median"] <= share["upper"]


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "common.py"))


def test_a_row_takes_the_turns_that_it_wants(common: dict[str, Any]) -> None:
    seen: list[dict[str, float]] = []

    def of_turn(took: dict[str, float]) -> float:
        seen.append(dict(took))
        return float(len(seen))

    calls = {"bptt": lambda: 1.0, "bptt other": lambda: 1.0}
    row = common["Run"](1, "tiny").row("b", calls, turns=5, per_turn={"found": of_turn})
    assert len(seen) >= 5
    assert row["found"]["samples"] == row["times"]["bptt"]["samples"] == len(seen)
    assert row["found"]["median"] == (len(seen) + 1) / 2
    for name in calls:
        assert row["times"][name]["median"] == np.median([took[name] for took in seen])


def test_the_share_that_lengths_cost(common: dict[str, Any]) -> None:
    took = {"bptt": 7.0, "bptt padded": 10.0, common["EMPTY"]: 1.0}
    assert common["over_share"](took, 0.5) == pytest.approx(6 / 5)


def test_nobody_exceeds_the_ceiling(result: dict[str, Any], common: dict[str, Any]) -> None:
    rows = [row for row in result["rows"] if "flop" in row and row["threads"] == 1]
    peak = common["peak"](rows)
    for row in rows:
        if "ratio" in row and row["benchmark"] in ("training", "inference"):
            assert 0 < row["ratio"] <= common["ceiling"](row, peak) * (1 + 1e-9)


def test_the_ceiling_is_the_best_peer_over_the_fastest_product(common: dict[str, Any]) -> None:
    def row(flop: int, sgemm: float, **medians: float) -> dict[str, Any]:
        times = {name.replace("_", " "): {"median": t} for name, t in medians.items()}
        facts = {"flop": flop, "rates": {"sgemm": sgemm}, "work": {}}
        return {**facts, "times": times, "best_peer": "peer"}

    slow, fast = row(100, 10.0, bptt=4.0, peer=8.0), row(300, 20.0, bptt=20.0, peer=10.0)
    other = row(100, 10.0, bptt=10.0, bptt_empty=0.001, bptt_twice=10.0)
    other["work"] = {"bptt empty": 0, "bptt twice": 2}
    assert common["peak"]([slow]) == 25.0  # bptt's
    assert common["peak"]([slow, fast, other, {"benchmark": "memory"}]) == 30.0  # the peer's
    assert common["peak"]([other]) == 20.0  # of the one that does it twice
    assert common["peak"]([row(1, 50.0, bptt=1.0)]) == 50.0
    assert common["ceiling"](slow, 30.0) == pytest.approx(8.0 * 30 / 100)


@pytest.fixture
def profile_rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "profile_rows.py"))


def test_a_profile_says_what_each_function_is_for(profile_rows: dict[str, Any]) -> None:
    report = """
# Samples: 4K of event 'cpu-clock'
    40.00%;libbptt.so         ;[.] bptt::x86_64_v3::tile<float, 6, 2, false, true>
    15.00%;libbptt.so         ;[.] bptt::x86_64_v3::product<float>
    10.00%;libbptt.so         ;[.] bptt::x86_64_v3::pack_rows<float, 16>
     5.00%;libbptt.so         ;[.] bptt::x86_64_v3::ForwardLoop<bptt::Gru, float>::step<0>
     4.00%;libbptt.so         ;[.] bptt::x86_64_v3::Barrier::meet
     2.00%;[kernel.kallsyms]  ;[k] do_sched_yield
     3.00%;[kernel.kallsyms]  ;[k] clear_page_erms
     1.00%;libpython3.11.so   ;[.] tile
     1.00%;libbptt.so         ;[.] Team::run<adam<float>::{lambda(int, bptt::Barrier&)#1}>
     1.00%;libc.so.6          ;[.] __sched_yield
"""
    kinds = {"products": 55, "packing": 10, "cells": 5, "waiting": 7, "rest": 5}
    found = profile_rows["shares"](report.splitlines())
    assert found == pytest.approx({kind: share / 82 for kind, share in kinds.items()})
    assert not any(profile_rows["shares"]([]).values())


def test_the_page_tells_the_profiles(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    page = runpy.run_path(str(FOLDER / "report.py"))["page"]
    assert "products alone" not in page(result)
    rows = [dict(row) for row in result["rows"]]
    shares = {"products": 0.8, "packing": 0.1, "cells": 0.1, "waiting": 0.0, "rest": 0.0}
    row = next(row for row in rows if row["benchmark"] == "training")
    row |= {"ratio": 1.0, "best_peer": "bptt"}
    row["profile"] = {"shares": shares, "median": 1.0, "product_rate": 5e10}
    (told,) = re.findall(r"^\| training .*80%.*$", page({**result, "rows": rows}), re.MULTILINE)
    assert told.split(" | ")[-7:] == ["80%", "10%", "10%", "0%", "0%", "50", "1.25 |"]


def test_what_is_not_installed_is_said(result: dict[str, Any]) -> None:
    for name, package in {"PyTorch": "torch", "JAX": "jax", "ONNX Runtime": "onnxruntime"}.items():
        sentence = f"{name} is not installed: it is left out"
        assert (sentence in result["absent"]) == (not bench.installed(package))
        assert (result["machine"][name] == "not installed") == (not bench.installed(package))


def test_the_page_has_every_row_and_its_pictures(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    run("report", path, "--out", tmp_path)
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:rnn|lstm|gru) \|", page, flags=re.MULTILINE)
    assert len(rows) == len(result["rows"])
    assert "{" not in page
    assert page.count("| ratio | ceiling | reached |") == 4  # training, inference, 1 and 2 threads
    for name in re.findall(r"\]\(([^)]+\.png)\)", page):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_in_the_docs_is_made_of_the_results_beside_the_benchmarks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, page = FOLDER / "results.json", ROOT / "docs" / "benchmarks.md"
    if not results.exists():
        pytest.skip("no results are kept")
    monkeypatch.syspath_prepend(str(FOLDER))
    report = runpy.run_path(str(FOLDER / "report.py"))
    result = json.loads(results.read_text(encoding="utf-8"))
    assert page.read_text(encoding="utf-8") == report["page"](result)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_by_itself(script: str) -> None:
    lines = run(script, "--size", "tiny", "--threads", 1).splitlines()
    assert lines or not Path("/proc/self/clear_refs").exists()
    for line in lines:
        assert line.startswith(script)


def test_the_import_is_timed() -> None:
    numpy, own = run("install", "--only-import", "--repeats", 2).splitlines()
    assert numpy.startswith("import numpy: ")
    assert own.startswith("import bptt, beyond it: ")


# ---- bptt bench ----------------------------------------------------------------------------------


def test_bptt_bench_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SHAPES", ((3, 1, 2, 4), (3, 5, 2, 8)))
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert cli.main(["bench", "--threads", "1", "--seconds", "0.001"]) == 0
    if affinity is not None:
        assert os.sched_getaffinity(0) == affinity
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 thread, ")
    assert sum(line.startswith(("rnn", "lstm", "gru")) for line in lines) == 6
    installed = [name for name, package in bench.PEERS.items() if bench.installed(package)]
    assert lines[-2].startswith("against the best of") == bool(installed)
    if installed:
        least, reached = (re.findall(r"[\d.]+$", line)[0] for line in lines[-2:])
        mean = re.findall(r"geometric mean ([\d.]+)", lines[-2])[0]
        assert float(least) <= float(mean) <= float(reached)


def test_takers_of_turns_take_as_many() -> None:
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "ab"}
    timings = bench.take_turns(calls, seconds=0.0, least=4)
    assert [timing.samples for timing in timings.values()] == [4, 4]
    changes = [name for i, name in enumerate(turns) if i == 0 or turns[i - 1] != name]
    assert changes == ["a", "b"] * 5  # once to see how long they take


def test_the_geometric_mean() -> None:
    assert bench.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert np.isnan(bench.geometric_mean([]))


@pytest.mark.parametrize("cell", bench.LAYERS)
def test_the_contestants_do_the_same_work(cell: str) -> None:
    contestants = bench.training(bench.Problem(cell, 7, 3, 4, 5))
    first, *others = (np.asarray(call()) for call in contestants.values())
    for other in others:
        assert_close(other, first, 1e-4)


def test_the_looks_at_the_gradient_are_compared_with_their_passes() -> None:
    lines = run("gradient_flow", 1, "--tiny").splitlines()
    ratios = [line for line in lines if re.search(r"\d+\.\d\d +\d+\.\d\d ms against", line)]
    assert len(ratios) == 5 * 4 + 1  # kinds, cells; by way the LSTM's alone


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is Linux's")
def test_the_long_sequence_runs_within_its_plan() -> None:
    said = run("long_sequence", *("--steps", 3000, "--hidden", 8, "--threads", 1, "--turns", 1))
    assert re.search(r"peak beyond input and target: [\d.]+ MiB; time a step: [\d.]+ of", said)
