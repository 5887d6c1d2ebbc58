"""One training step: forward and backward of one layer, the gradients of x and all parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from common import Row, Run, main, training_traffic

from bptt import bench

PEERS_SHAPES = [  # T, N, D, H
    (100, 1, 64, 64),
    (100, 1, 256, 256),
    (100, 16, 64, 64),
    (100, 32, 128, 128),
    (100, 64, 256, 256),
    (50, 64, 512, 512),
    (1000, 1, 64, 128),
    (1000, 32, 32, 64),
    (100, 128, 32, 32),
    (25, 128, 1024, 1024),
]
# Sizes that are no multiple of anything, one feature, few sequences, many units.
OUR_SHAPES = [(100, 3, 1, 100), (100, 20, 50, 100), (200, 8, 10, 20), (50, 4, 300, 500)]


def layer_rows(
    run: Run,
    benchmark: str,
    contestants: Callable[[bench.Problem], dict[str, bench.Contestant]],
    flop: Callable[[bench.Problem], int],
    traffic: Callable[[bench.Problem], int],
) -> Iterator[Row]:
    """A row for each shape and each cell."""
    quick = [PEERS_SHAPES[i] for i in (0, 2, 4)]
    shapes = run.choose([(5, 2, 3, 4), (3, 1, 2, 9)], quick, [*PEERS_SHAPES, *OUR_SHAPES])
    for shape in shapes:
        for cell in bench.LAYERS:
            problem = bench.Problem(cell, *shape)
            yield run.row(
                benchmark,
                contestants(problem),
                flop=flop(problem),
                traffic=traffic(problem),
                **problem._asdict(),
            )


def rows(run: Run) -> Iterator[Row]:
    yield from layer_rows(run, "training", bench.training, lambda p: p.flop, training_traffic)


if __name__ == "__main__":
    main(rows, __doc__)
