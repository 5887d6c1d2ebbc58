"""The layer's twin in ONNX Runtime; those in PyTorch and JAX are in bptt.bench."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from bptt import bench

# Which of our gates stands where in ONNX, whose LSTM is i, o, f, c and whose GRU z, r, h.
ONNX_ORDER = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}


def onnx_session(cell: str, layer: Any, threads: int) -> Any:
    """A session whose model is one layer: x (T, N, D) and h0 (and c0) (1, N, H) go in; y
    (T, 1, N, H), h (and c) come out."""
    onnx, runtime = import_module("onnx"), import_module("onnxruntime")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    D, H = layer.input_size, layer.hidden_size
    w_ih, w_hh, b_ih, b_hh = (ordered(cell, array) for array in layer.parameters.values())
    constants = {"W": w_ih[None], "R": w_hh[None], "B": np.concatenate([b_ih, b_hh])[None]}
    states = ["h", "c"] if cell == "lstm" else ["h"]
    attributes = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(
        cell.upper(),
        ["x", "W", "R", "B", "", *(f"{name}0" for name in states)],
        ["y", *states],
        hidden_size=H,
        **attributes,
    )

    def value(name: str, *shape: Any) -> Any:
        return helper.make_tensor_value_info(name, real, list(shape))

    graph = helper.make_graph(
        [node],
        cell,
        [value("x", "T", "N", D), *(value(f"{name}0", 1, "N", H) for name in states)],
        [value("y", "T", 1, "N", H), *(value(name, 1, "N", H) for name in states)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would spin while others have their turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    return runtime.InferenceSession(model.SerializeToString(), options, providers=providers)


def ordered(cell: str, array: Any) -> Any:
    """A parameter with its gates in ONNX's order."""
    gates = array.reshape(bench.GATES[cell], -1, *array.shape[1:])
    return np.ascontiguousarray(gates[ONNX_ORDER[cell]].reshape(array.shape))


def zero_state(cell: str, N: int, H: int) -> dict[str, Any]:
    """What a session wants as its initial state."""
    names = ("h0", "c0") if cell == "lstm" else ("h0",)
    return {name: np.zeros((1, N, H), np.float32) for name in names}


def has_onnx() -> bool:
    return bench.installed("onnxruntime") and bench.installed("onnx")
