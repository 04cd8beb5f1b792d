"""SimCLRv2's networks against a slow rewrite that takes a published checkpoint's variables one after another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmm.errors import UsageError, WeightsError
from fsmm.extract.encoders import simclr_net
from fsmm.extract.encoders.references import Reference

BLOCKS = (2, 1, 1, 1)
WIDTH = 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of five blocks, a sixteenth as wide."""
    monkeypatch.setitem(simclr_net.BLOCKS, 50, BLOCKS)
    monkeypatch.setattr(simclr_net, "WIDTH", WIDTH)


class Variables:
    """Variables as the published code makes them: one layer after another, each with the next number of its kind."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {"global_step": torch.zeros(())}
        self.rng = torch.Generator().manual_seed(0)
        self.counts = {"conv2d": itertools.count(), "batch_normalization": itertools.count()}

    def drawn(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.rng) * scale

    def scope(self, kind: str) -> str:
        number = next(self.counts[kind])
        return f"base_model/{kind}_{number}" if number else f"base_model/{kind}"

    def conv(self, x: Tensor, out: int, size: int, stride: int = 1) -> Tensor:
        """A convolution of [N, C, H, W] that pads as TensorFlow does: (k - 1) // 2 before, the rest after."""
        kernel = self.drawn(size, size, x.shape[1], out, scale=(2 / (x.shape[1] * size**2)) ** 0.5)
        self.held[f"{self.scope('conv2d')}/kernel"] = kernel
        before, after = (size - 1) // 2, size // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), kernel.permute(3, 2, 0, 1), stride=stride)

    def norm(self, x: Tensor, scope: str | None = None, *, offset: bool = True) -> Tensor:
        scope, shape = scope or self.scope("batch_normalization"), x.shape[1]
        parts = {
            "gamma": 1 + self.drawn(shape, scale=0.1),
            "moving_mean": self.drawn(shape, scale=0.1),
            "moving_variance": 1 + self.drawn(shape).abs(),
        }
        beta = self.drawn(shape, scale=0.1) if offset else torch.zeros(shape)
        self.held |= {f"{scope}/{name}": value for name, value in parts.items()}
        if offset:
            self.held[f"{scope}/beta"] = beta
        self.held[f"{scope}/gamma/Momentum"] = torch.zeros(shape)
        wide = (slice(None), *([None] * (x.ndim - 2)))
        scaled = (x - parts["moving_mean"][wide]) / (parts["moving_variance"][wide] + 1e-5).sqrt()
        return scaled * parts["gamma"][wide] + beta[wide]

    def average(self, x: Tensor, stride: int) -> Tensor:
        """2 x 2 averages; with stride 1 what lies beyond the edge does not count."""
        out = torch.zeros(*x.shape[:2], -(-x.shape[2] // stride), -(-x.shape[3] // stride))
        for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
            part = x[:, :, i * stride : i * stride + 2, j * stride : j * stride + 2]
            out[:, :, i, j] = part.sum((2, 3)) / (4 if stride > 1 else part.shape[2] * part.shape[3])
        return out

    def selective(self, x: Tensor, inner: int, stride: int) -> Tensor:
        both = torch.relu(self.norm(self.conv(x, 2 * inner, 3, stride)))
        streams = torch.stack([both[:, :inner], both[:, inner:]])
        mixed = torch.relu(
            self.norm(self.conv(streams.sum(0).mean((2, 3), keepdim=True), max(inner // 16, 32), 1))
        )
        logits = self.conv(mixed, 2 * inner, 1)
        weights = torch.softmax(torch.stack([logits[:, :inner], logits[:, inner:]]), 0)
        return (streams * weights).sum(0)

    def block(self, x: Tensor, inner: int, stride: int, *, projects: bool, sk: bool) -> Tensor:
        short = x
        if projects:
            short = self.average(x, stride) if sk else x
            short = self.norm(self.conv(short, 4 * inner, 1, 1 if sk else stride))
        y = torch.relu(self.norm(self.conv(x, inner, 1)))
        if sk:
            y = self.selective(y, inner, stride)
        else:
            y = torch.relu(self.norm(self.conv(y, inner, 3, stride)))
        return torch.relu(self.norm(self.conv(y, 4 * inner, 1)) + short)

    def network(self, x: Tensor, width: int, *, sk: bool) -> list[Tensor]:
        """The features, and the outputs of the three layers of the head."""
        first = WIDTH * width
        stem = [(first // 2, 3, 2), (first // 2, 3, 1), (first, 3, 1)] if sk else [(first, 7, 2)]
        for out, size, stride in stem:
            x = torch.relu(self.norm(self.conv(x, out, size, stride)))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)  # an even side: one after
        for group, count in enumerate(BLOCKS):
            for place in range(count):
                stride = 2 if group and not place else 1
                x = self.block(x, first * 2**group, stride, projects=not place, sk=sk)
        x = x.mean((2, 3))
        found = [x]
        for layer in range(3):
            scope, last = f"head_contrastive/nl_{layer}", layer == 2
            kernel = self.drawn(x.shape[1], 128 if last else x.shape[1], scale=0.1)
            self.held[f"{scope}/dense/kernel"] = kernel
            x = self.norm(x @ kernel, f"{scope}/batch_normalization", offset=not last)
            x = x if last else torch.relu(x)
            found.append(x)
        return found


@pytest.mark.parametrize(("name", "width", "sk"), [("r50_1x_sk0", 1, False), ("r50_2x_sk1", 2, True)])
def test_features_and_layers_are_those_of_the_published_checkpoint(
    tmp_path: Path, name: str, width: int, sk: bool
) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 1, 256, 256, 3), np.uint8)
    pictures = torch.from_numpy(raw[:, 0, 16:240, 16:240]).permute(0, 3, 1, 2) / 255
    variables = Variables()
    expected = variables.network(pictures, width, sk=sk)
    torch.save(variables.held, tmp_path / "published.pth")
    for layer in (0, 1, 2, 3):
        option = f"#{layer}" if layer else ""
        encoder: Any = Reference.parse("frame", f"simclr:{name}{option}@{tmp_path / 'published.pth'}").build()
        found = encoder.encode([encoder.prepare(raw)])[0]
        assert found.shape == (2, encoder.dim) == (2, 128 if layer == 3 else 128 * width)
        scale = float(expected[layer].abs().max())
        np.testing.assert_allclose(found, expected[layer].numpy(), rtol=1e-3, atol=1e-3 * scale)
        assert encoder.name.endswith(f"-{layer}") or not layer


def test_a_file_of_the_networks_own_tensors_gives_the_same(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from fsmm.extract.encoders.simclr import form_of, load_network

    form = form_of("r50_1x_sk1")
    torch.manual_seed(0)
    network = simclr_net.SimClrNet(form)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    loaded = load_network(form, tmp_path / "own.safetensors")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match="do not fit"):
        load_network(form_of("r50_1x_sk0"), tmp_path / "own.safetensors")
    variables = Variables()
    variables.network(torch.zeros(1, 3, 64, 64), 1, sk=False)
    torch.save(variables.held, tmp_path / "published.pth")
    with pytest.raises(WeightsError, match="layers 'conv2d' where the network has"):
        load_network(form, tmp_path / "published.pth")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("simclr:r50_1x_sk0", "add @FILE"),
        ("simclr:r51_1x_sk0@x.pth", "r50_1x_sk0 or"),
        ("simclr:r50_1x_sk0#4@{}", "Known: 1, 2, 3"),
    ],
)
def test_what_is_no_network_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    from safetensors.torch import save_file

    from fsmm.extract.encoders.simclr import form_of

    save_file(simclr_net.SimClrNet(form_of("r50_1x_sk0")).state_dict(), tmp_path / "own.safetensors")
    (tmp_path / "x.pth").touch()
    text = text.format(tmp_path / "own.safetensors").replace("@x.pth", f"@{tmp_path / 'x.pth'}")
    with pytest.raises(UsageError, match=says):
        Reference.parse("frame", text).build()
