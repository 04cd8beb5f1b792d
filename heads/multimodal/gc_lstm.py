"""The dual graph-convolutional LSTM of knowledge-driven egocentric recognition: streams, guidance and co-attention.

A stream is one modality of n clips, brought to T steps. Its single-modality LSTM reads it once and says globally which
activities the clip resembles; a second LSTM reads it again, guided at every step by what a graph convolution makes of
the activities and objects that are active then. Co-attention joins the streams step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..parts.class_graph import Graph
from ..parts.even_clips import EvenSteps
from ..parts.names import module_name

ABSENT = -1e4  # The score of what attention must not choose.


class Read(NamedTuple):
    """What the streams say of n clips: the joined code [n, H], and each stream's last single-modality state [n, H]."""

    code: Tensor
    last: list[Tensor]


class Guidance(nn.Module):
    """g_t = mean over nodes of relu(A (G0 * a_t q_t) W), [n, H]: a_t how active nodes are, q_t a gate of the state."""

    def __init__(self, word_dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, word_dim)
        self.map = nn.Linear(word_dim, hidden, bias=False)

    def forward(self, graph: Graph, active: Tensor, state: Tensor) -> Tensor:
        """The guidance of clips whose nodes are active [n, M] and whose state is [n, H]."""
        weight = active * torch.sigmoid(self.gate(state) @ graph.node.T)
        message = weight[..., None] * self.map(graph.node)
        return torch.relu(graph.edge @ message).mean(1)


class GuidedStream(nn.Module):
    """One modality: its own LSTM with a global prediction, and the LSTM cell whose gates also hear the guidance."""

    def __init__(self, dim: int, word_dim: int, hidden: int) -> None:
        super().__init__()
        self.alone = nn.LSTM(dim, hidden, batch_first=True)
        self.ask = nn.Linear(hidden, word_dim)
        self.guide = Guidance(word_dim, hidden)
        self.cell = nn.LSTMCell(dim + hidden, hidden)
        self.attend = nn.Linear(hidden, hidden)

    def resembled(self, last: Tensor, node: Tensor) -> Tensor:
        """The global prediction: scores [..., V] of nodes [V, E] or [..., V, E], by a clip's last state [..., H]."""
        return self.ask(last) @ node.transpose(-1, -2)


class DualGCLSTM(nn.Module):
    """Streams of n clips joined to one code each. guided: False leaves the graph out; co_attention: False weighs all
    streams alike at every step."""

    def __init__(
        self, widths: Mapping[str, int], word_dim: int, hidden: int, *, guided: bool, co_attention: bool
    ) -> None:
        super().__init__()
        self.guided, self.co_attention, self.hidden = guided, co_attention, hidden
        self.streams = {m: GuidedStream(dim, word_dim, hidden) for m, dim in widths.items()}
        self.stream = nn.ModuleDict({module_name(m): layer for m, layer in self.streams.items()})
        self.pick = nn.Linear(hidden, 1, bias=False)
        self.mix, self.when = nn.Linear(hidden, hidden), nn.Linear(hidden, 1, bias=False)

    def forward(
        self, clips: Mapping[str, EvenSteps], graph: Graph, scores: Tensor | None, activities: int
    ) -> Read:
        """The code and the last states of clips.

        graph: the activities, then the objects; scores: how much of each object a step shows, [n, T, O], or None, with
        which objects are never active.
        """
        names = list(self.streams)
        last = [self.streams[m].alone(clips[m].x)[0][:, -1] for m in names]
        active = [
            self._active(self.streams[m].resembled(state, graph.node[:activities]), scores, graph)
            for m, state in zip(names, last)
        ]
        present = torch.stack([clips[m].present for m in names])
        steps = clips[names[0]].x.shape[1]
        states = [(x.new_zeros(len(x), self.hidden),) * 2 for x, _ in (clips[m] for m in names)]
        joined = []
        for t in range(steps):
            states = [
                self._step(self.streams[m], clips[m].x[:, t], state, graph, of[:, min(t, of.shape[1] - 1)])
                for m, state, of in zip(names, states, active)
            ]
            joined.append(self._joined([h for h, _ in states], present))
        z = torch.stack(joined, 1)
        alpha = torch.softmax(self.when(torch.tanh(self.mix(z))), 1)
        return Read((alpha * z).sum(1), last)

    def _active(self, resembled: Tensor, scores: Tensor | None, graph: Graph) -> Tensor:
        """How active nodes are at each step, [n, T, M], or [n, 1, M] where it is the same at all."""
        activity = torch.softmax(resembled, -1)[:, None]
        objects = len(graph.node) - activity.shape[-1]
        if scores is None:
            return torch.cat([activity, activity.new_zeros(len(activity), 1, objects)], -1)
        return torch.cat([activity.expand(-1, scores.shape[1], -1), scores], -1)

    def _step(
        self,
        stream: GuidedStream,
        x: Tensor,
        state: tuple[Tensor, Tensor],
        graph: Graph,
        active: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The state and the memory of a stream after one more step x [n, D]."""
        guidance = stream.guide(graph, active, state[0]) if self.guided else torch.zeros_like(state[0])
        h, memory = stream.cell(torch.cat([x, guidance], -1), state)
        return h, memory

    def _joined(self, states: Sequence[Tensor], present: Tensor) -> Tensor:
        """z_t [n, H]: the streams' states, weighed by co-attention among those that are present, bool [M, n]."""
        h = torch.stack(list(states))
        score = torch.zeros_like(h[..., 0])
        if self.co_attention:
            each = [torch.tanh(s.attend(x)) for s, x in zip(self.streams.values(), states)]
            score = self.pick(torch.stack(each))[..., 0]
        beta = torch.softmax(score.masked_fill(~present, ABSENT), 0) * present.to(h.dtype)
        return (beta[..., None] * h).sum(0)
