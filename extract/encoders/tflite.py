"""TensorFlow Lite models through ai-edge-litert, whose inner tensors can be read as outputs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError
from ...machine.foreign_lines import quiet_libraries
from ..weights.store import Located


class TfliteModel:
    """A model with one input, float or uint8 as it needs, and one chosen tensor, read as float32 (dequantised).

    tensor: index of the tensor to read; None for the model's own output ``output``. threads: the interpreter's
    threads; the result of int8 models does not depend on them. Raises WeightsError if the file is no such model.
    """

    def __init__(
        self, weights: Located, tensor: int | None = None, output: int = 0, threads: int = 1
    ) -> None:
        interpreter = importlib.import_module("ai_edge_litert.interpreter")
        try:
            content = weights.path.read_bytes()
            if tensor is not None:
                content = with_output(content, tensor)
            with quiet_libraries():  # The interpreter tells of its delegate.
                self._run = interpreter.Interpreter(model_content=content, num_threads=threads)
                self._run.allocate_tensors()
        except (
            Exception
        ) as error:  # The flatbuffer and the interpreter raise anything on a file that is no model.
            raise _no_model(weights.path, error) from None
        self.input: dict[str, Any] = self._run.get_input_details()[0]
        outputs = self._run.get_output_details()
        self.output: dict[str, Any] = outputs[output] if tensor is None else _by_index(outputs, tensor)

    def __call__(self, value: np.ndarray) -> np.ndarray:
        """Run the model once and return float32.

        value: an array of the input's shape (a leading 1 may be left out) and dtype.
        """
        self._run.set_tensor(self.input["index"], value.reshape(self.input["shape"]))
        self._run.invoke()
        raw = self._run.get_tensor(self.output["index"])
        if raw.dtype == np.float32:
            return np.asarray(raw, np.float32)
        scale, zero = self.output["quantization"]
        return (raw.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def with_output(content: bytes, tensor: int) -> bytes:
    """The model's bytes with ``tensor`` added to the outputs of its graph."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = model.subgraphs[0]
    if not 0 <= tensor < len(graph.tensors):
        raise ValueError(f"it has no tensor {tensor}")
    graph.outputs = [*graph.outputs, tensor]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _by_index(details: list[dict[str, Any]], tensor: int) -> dict[str, Any]:
    return next(detail for detail in details if detail["index"] == tensor)


def _no_model(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"{str(path)!r} is not the TensorFlow Lite model of this encoder ({reason}); give its own file."
    )
