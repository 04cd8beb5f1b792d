"""Reading an inner tensor of a TensorFlow Lite model, on a model of two operators made here."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from fsmm.errors import WeightsError
from fsmm.extract.encoders.tflite import TfliteModel, with_output
from fsmm.extract.weights.store import Located

flatbuffers = importlib.import_module("flatbuffers")
schema = importlib.import_module("ai_edge_litert.schema_py_generated")


@pytest.fixture
def model(tmp_path: Path) -> Located:
    """x [1, 4] -> relu (tensor 1) -> exp (tensor 2, the output)."""
    made = schema.ModelT()
    made.version = 3
    made.buffers = [schema.BufferT()]
    made.operatorCodes, graph = [], schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    for name in ("x", "relu", "exp"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, [1, 4], schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    for place, builtin in enumerate((schema.BuiltinOperator.RELU, schema.BuiltinOperator.EXP)):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.version = builtin, 1
        code.deprecatedBuiltinCode = builtin
        operator.opcodeIndex, operator.inputs, operator.outputs = place, [place], [place + 1]
        made.operatorCodes.append(code)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [2]
    made.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path / "tiny.tflite"
    path.write_bytes(builder.Output())
    return Located(path, "tiny", "")


def test_an_inner_tensor_is_read_and_the_output_stays(model: Located) -> None:
    x = np.array([-1.0, 0.5, 2.0, -3.0], np.float32)
    relu = np.maximum(x, 0)
    np.testing.assert_allclose(TfliteModel(model, tensor=1)(x)[0], relu)
    np.testing.assert_allclose(TfliteModel(model)(x)[0], np.exp(relu), rtol=1e-5)


def test_a_result_is_not_overwritten_by_the_next_run(model: Located) -> None:
    run = TfliteModel(model, tensor=1)
    first = run(np.full(4, 1, np.float32))
    run(np.full(4, 2, np.float32))
    np.testing.assert_array_equal(first, 1)


def test_files_that_are_no_such_model_are_refused(model: Located, tmp_path: Path) -> None:
    text = tmp_path / "text.tflite"
    text.write_text("this is no flatbuffer at all")
    with pytest.raises(WeightsError, match="is not the TensorFlow Lite model"):
        TfliteModel(Located(text, "", ""))
    with pytest.raises(WeightsError, match="it has no tensor 99"):
        TfliteModel(model, tensor=99)
    with pytest.raises(ValueError, match="no tensor -1"):
        with_output(model.path.read_bytes(), -1)
