"""A network's features of a clip are its own: the same to the bit on a CPU, whatever is encoded beside it elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from fsmm.errors import UsageError
from fsmm.extract.choose import compile_networks
from fsmm.extract.contract import FrameNeed, Sampling
from fsmm.extract.encoders import torch_run
from fsmm.extract.encoders.base import Spec
from fsmm.extract.encoders.compiled import compiled
from fsmm.extract.encoders.efficientnet_net import EfficientNetLiteNet
from fsmm.extract.encoders.torch_encoder import TorchEncoder
from fsmm.extract.encoders.torch_run import normalised, run_in_chunks, run_on_cpu, run_on_gpu
from fsmm.extract.pipeline.lane import provenance_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> EfficientNetLiteNet:
    torch.manual_seed(0)
    return EfficientNetLiteNet().eval()


@pytest.mark.parametrize("chunk", [1, 8, 16])
def test_neighbours_change_no_bit(network: EfficientNetLiteNet, chunk: int) -> None:
    def forward(frames: torch.Tensor) -> torch.Tensor:
        return network(normalised(frames, (127.0,) * 3, (128.0,) * 3))

    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    together = run_in_chunks(forward, frames, chunk, CPU)
    assert together.shape == (20, 1280)
    for rows in (slice(0, 1), slice(3, 8), slice(11, 20)):
        assert np.array_equal(run_in_chunks(forward, frames[rows], chunk, CPU), together[rows])


def linear(frames: torch.Tensor) -> torch.Tensor:
    """The mean colour of each picture, by a small network's kind of arithmetic."""
    return frames.float().flatten(1, 2).mean(1) @ torch.arange(9.0).reshape(3, 3)


def some_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8) for length in (3, 1, 8, 5)]


def test_passes_that_mix_clips_give_each_clip_its_own_rows() -> None:
    clips = some_clips()
    found, size = run_on_gpu(linear, clips, 4, CPU, "float32")
    assert size == 4
    assert [made.dtype for made in found] == [np.float32] * 4
    for clip, made in zip(clips, found):
        np.testing.assert_allclose(made, run_on_cpu(linear, clip, 16, "float32"), rtol=1e-6)


def test_a_pass_without_room_is_halved_and_stays_small() -> None:
    seen: list[int] = []

    def narrow(frames: torch.Tensor) -> torch.Tensor:
        seen.append(len(frames))
        if len(frames) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return linear(frames)

    found, size = run_on_gpu(narrow, some_clips(), 16, CPU, "float32")
    assert size == 2
    assert seen[:3] == [16, 8, 4]
    assert set(seen[3:]) == {2}
    assert np.array_equal(
        np.concatenate(found), np.concatenate(run_on_gpu(linear, some_clips(), 2, CPU, "float32")[0])
    )


def test_one_item_without_room_is_an_error() -> None:
    def full(frames: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        run_on_gpu(full, some_clips(), 4, CPU, "float32")


def test_an_error_that_is_not_of_memory_is_no_reason_to_halve() -> None:
    def broken(frames: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run_on_gpu(broken, some_clips(), 4, CPU, "float32")


class Colour(TorchEncoder):
    """An encoder of mean colours."""

    need = FrameNeed(size=8)
    preprocessing = "none"

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return self._run(linear, batch, CPU)


class Elsewhere(TorchEncoder):
    """An encoder of mean colours on a GPU, whose function is made anew for each batch."""

    need = FrameNeed(size=8)
    preprocessing = "none"

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        def forward(frames: torch.Tensor) -> torch.Tensor:
            return linear(frames)

        return self._run(forward, batch, torch.device("cuda"))


def test_arithmetic_other_than_float32_is_part_of_the_origin() -> None:
    exact, coarse = (Colour(Spec("colour", "frame", 3, precision=p)) for p in ("float32", "bfloat16"))
    assert "arithmetic" not in exact.provenance(), "streams of earlier versions are continued"
    assert coarse.provenance()["arithmetic"] == "bfloat16"
    origins = [provenance_of(encoder, Sampling(), "float16") for encoder in (exact, coarse)]
    assert origins[0].differences(origins[1])
    clip = some_clips()[2]
    (one,), (other,) = exact.encode([clip]), coarse.encode([clip])
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, rtol=0.02)


def test_batches_are_larger_on_a_gpu() -> None:
    assert (
        Colour(Spec("colour", "frame", 3, device="cuda")).batch_clips
        > Colour(Spec("c", "frame", 3)).batch_clips
    )


def test_a_compiled_network_is_compiled_once_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's compiler for trials stands for the real one, and the processor for the GPU."""
    made: list[object] = []

    def eager(forward: Any, *, dynamic: bool) -> Any:
        made.append(forward)
        return compile_now(forward, backend="eager", dynamic=dynamic)

    compile_now = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    monkeypatch.setattr(
        torch_run, "run_on_gpu", lambda run, batch, size, _, how: run_on_gpu(run, batch, size, CPU, how)
    )
    usual, quick = (Elsewhere(Spec("colour", "frame", 3)) for _ in range(2))
    quick.is_compiled = True
    clips = some_clips()
    for batch in (clips, clips[:1]):
        for one, other in zip(usual.encode(batch), quick.encode(batch)):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    assert len(made) == 1
    assert not pickle.loads(pickle.dumps(quick))._compiled


def test_what_cannot_be_compiled_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--compile is for networks on a GPU, .* leave it out"):
        compile_networks([Colour(Spec("colour", "frame", 3))], "cpu")

    def broken(forward: Any, **given: Any) -> Any:
        def run(items: Any) -> Any:
            raise TorchDynamoException("no C compiler was found\n  at some place")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"cannot compile networks here \(.*\); leave out --compile"):
        compile_networks([], "cuda")
    with pytest.raises(
        UsageError, match=r"'colour' cannot be compiled \(no C compiler was found\); leave out"
    ):
        compiled(linear, "colour")(torch.zeros(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_processor_gives() -> None:
    def there(frames: torch.Tensor) -> torch.Tensor:
        return frames.float().flatten(1, 2).mean(1)

    clips = some_clips()
    found, _ = run_on_gpu(there, clips, 4, torch.device("cuda"), "float32")
    for clip, made in zip(clips, found):
        np.testing.assert_allclose(made, clip.reshape(len(clip), -1, 3).mean(1), rtol=1e-5)
