"""The temporal matchings once more, for one pair of clips or one task at a time, from their published equations.

Shapes: a clip is [T, D] with its own steps alone; supports are lists of lists of clips, class by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

Supports = Sequence[Sequence[Tensor]]
Weights = Mapping[str, Tensor]


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def held(clip: Tensor, steps: int) -> Tensor:
    """A clip that holds its last step until it has so many."""
    return torch.cat([clip, clip[-1:].expand(max(steps - len(clip), 0), -1)])


def stretched(clip: Tensor, steps: int) -> Tensor:
    """A clip with so many steps: step t is the mean from floor(t L / steps) up to ceil((t + 1) L / steps)."""
    length = len(clip)
    ends = [((t * length) // steps, -((-(t + 1) * length) // steps)) for t in range(steps)]
    return torch.stack([clip[first:after].mean(0) for first, after in ends])


def tuples(clip: Tensor, size: int) -> Tensor:
    """Every ordered tuple of a clip's unit steps, of length one."""
    clip = unit(held(clip, size))
    return unit(
        torch.stack([torch.cat([clip[i] for i in places]) for places in combinations(range(len(clip)), size)])
    )


def path_cost(m: Tensor, gamma: float = 0.1) -> float:
    """OTAM's DP of distances [R, C]: a zero column on either side, the first row a running sum."""
    rows, columns = m.shape
    m = torch.cat([torch.zeros(rows, 1).to(m), m, torch.zeros(rows, 1).to(m)], 1)
    cost = torch.zeros_like(m)
    cost[0] = m[0].cumsum(0)

    def softmin(*values: Tensor) -> Tensor:
        return -gamma * torch.logsumexp(-torch.stack(values) / gamma, 0)

    for i in range(1, rows):
        for j in range(1, columns + 2):
            ways = [cost[i - 1, j - 1], cost[i, j - 1]]
            if j in (1, columns + 1):
                ways.append(cost[i - 1, j])
            cost[i, j] = m[i, j] + softmin(*ways)
    return float(cost[-1, -1])


def matched(s: Tensor, matching: str, weights: Weights) -> float:
    """One number of the similarities [query, support] of two clips."""
    forth, back = s.amax(1).mean(), s.amax(0).mean()
    if matching == "otam":
        return -(path_cost(1 - s) + path_cost((1 - s).T)) / 2
    if matching == "linear":
        return float(weights["weights.weight"][0] @ s.flatten())
    if matching == "visil":
        return float((refined(s, weights).amax(1).mean() + refined(s.T, weights).amax(1).mean()) / 2)
    if matching == "diagonal":
        return float(s.diagonal().mean())
    found = {"chamfer-query": forth, "chamfer-support": back, "mean": s.mean(), "max": s.max()}
    return float(found.get(matching, (forth + back) / 2))


def refined(s: Tensor, weights: Weights) -> Tensor:
    """ViSiL's network on a matrix of similarities."""
    x = s[None, None]
    for name in ("first", "second"):
        x = F.max_pool2d(F.conv2d(x, weights[f"visil.{name}.weight"], padding=1), 2).relu()
    x = F.conv2d(x, weights["visil.third.weight"], padding=1)
    return F.conv2d(x, weights["visil.last.weight"]).clamp(-1, 1)[0, 0]


def chamfer(s: Supports, q: Tensor, *, matching: str, steps: int, weights: Weights) -> list[float]:
    """The scores of a query with each class. steps: the number that diagonal and linear bring clips to."""
    size = 3 if matching == "chamfer++" else 1

    def parts(clip: Tensor) -> Tensor:
        if matching in ("diagonal", "linear"):
            clip = stretched(clip, steps)
        return tuples(held(clip, 4) if matching == "visil" else clip, size)

    def score(clips: Sequence[Tensor]) -> float:
        each = [parts(clip) for clip in clips]
        groups = [torch.cat(each)] if matching == "chamfer++" else each
        values = [matched(parts(q) @ group.T, matching, weights) for group in groups]
        return sum(values) / len(values)

    factor = float(weights.get("temperature", torch.ones(1)))
    return [10 * factor * score(clips) for clips in s]


def transport(
    a: Tensor, b: Tensor, *, softness: float = 0.1, penalty: float = 0.5, iterations: int = 50
) -> float:
    """Minus the mean cost of what an unbalanced plan between two clips carries."""
    cost = 1 - unit(a) @ unit(b).T
    kernel, power = torch.exp(-cost / softness), penalty / (penalty + softness)
    u, v = torch.ones(len(a)).to(a), torch.ones(len(b)).to(a)
    for _ in range(iterations):
        u = (1 / len(a) / (kernel @ v)) ** power
        v = (1 / len(b) / (kernel.T @ u)) ** power
    plan = torch.diag(u) @ kernel @ torch.diag(v)
    return -float((plan * cost).sum() / plan.sum())


def uot(s: Supports, q: Tensor) -> list[float]:
    return [10 * sum(transport(q, clip) for clip in clips) / len(clips) for clips in s]


def description(clip: Tensor, alpha: float = 0.4) -> Tensor:
    """TS-DCM's description of a clip whose steps are patches and whose mean is the class token."""
    token = clip.mean(0)
    x = torch.stack([F.cosine_similarity(token, patch, dim=0) * patch for patch in clip])
    channels = x.shape[1]
    a = torch.empty(channels, channels).to(clip)
    for i in range(channels):
        for j in range(channels):
            a[i, j] = (float((x[:, i] - x[:, j]).square().sum()) / (2 * len(x)) + 1e-5) ** alpha
    centred = a - a.mean(1, keepdim=True) - a.mean(0, keepdim=True) + a.mean()
    return torch.stack([centred[i, j] for i in range(channels) for j in range(i, channels)])


def tsdcm(s: Supports, q: Tensor) -> list[float]:
    own, found = description(q), []
    for clips in s:
        other = torch.stack([description(clip) for clip in clips]).mean(0)
        found.append(10 * float(own @ other / (own.norm() * other.norm() + 0.01)))
    return found


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def positions(steps: int, dim: int) -> Tensor:
    """sin(t / 10000^(i/D)) for even i, and the cosine of the same angle behind it."""
    code = torch.zeros(steps, dim).double()
    for t in range(steps):
        for i in range(dim):
            angle = t / 10000 ** ((i - i % 2) / dim)
            code[t, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
    return code


def team(s: Supports, queries: Sequence[Tensor], weights: Weights) -> Tensor:
    """TEAM's logits [Q, N]; the supports of a class have as many steps each."""
    pattern = weights["pattern"]
    dim = pattern.shape[1]

    def placed(clip: Tensor) -> Tensor:
        return clip * dim**0.5 + 0.1 * positions(len(clip), dim)

    def read(x: Tensor) -> Tensor:
        x, asked = layer_norm(x, weights, "norm"), layer_norm(pattern, weights, "norm")
        return torch.softmax(asked @ x.T / (dim / 8) ** 0.5, -1) @ x

    def res(z: Tensor) -> Tensor:
        return (z + linear(linear(z, weights, "first").relu(), weights, "second")).relu()

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(a, b, dim=-1, eps=1e-8)).sum()

    seen = [read(torch.stack([placed(clip) for clip in clips]).mean(0)) for clips in s]
    tokens = [(res(pattern + r), res(pattern - r)) for r in seen]
    own = []
    for c, r in enumerate(seen):
        pairs = []
        for d, other in enumerate(seen):
            if d != c:
                p, n = (F.cosine_similarity(tokens[c][i], tokens[d][i], dim=-1)[:, None] for i in (0, 1))
                pairs.append((res(pattern + r - p * (other - r)), res(pattern - r + n * (other - r))))
        own.append(tuple(torch.stack(each).mean(0) for each in zip(*pairs)))
    logits = torch.zeros(len(queries), len(s)).double()
    for i, clip in enumerate(queries):
        r = read(placed(clip))
        positive, negative = res(pattern + r), res(pattern - r)
        for c in range(len(s)):
            others = [d for d in range(len(s)) if d != c]
            first = max(apart(own[d][0], negative) for d in others)
            second = max(apart(own[d][1], positive) for d in others)
            logits[i, c] = -(apart(own[c][0], positive) + (first + second) / 2)
    return logits


def attention(x: Tensor, heads: int, project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Every row of x [L, D] attends to every row, head by head; project: queries, keys and values [L, H]."""
    found = []
    for q, k, v in zip(*(part.chunk(heads, -1) for part in project(x))):
        found.append(torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v)
    return torch.cat(found, -1)


def mpl(s: Supports, queries: Sequence[Tensor], weights: Weights, *, steps: int, window: int = 9) -> Tensor:
    """MPL's logits [Q, N] with keys from the matched clips."""
    dim = len(weights["context.norm.weight"])
    shots = [[stretched(clip, steps) * dim**0.5 for clip in clips] for clips in s]
    asked = [stretched(clip, steps) * dim**0.5 for clip in queries]
    shot_heads = next(h for h in range(min(8, dim), 0, -1) if dim % h == 0)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return 1 - unit(a) @ unit(b).T

    def both_ways(d: Tensor) -> Tensor:
        return d.amin(1).sum() + d.amin(0).sum()

    def context(x: Tensor) -> Tensor:
        qkv = weights["context.qkv.weight"]
        heads = math.gcd(len(qkv) // 3, 8)
        own = attention(layer_norm(x, weights, "context.norm"), heads, lambda y: (y @ qkv.T).chunk(3, -1))
        x = x + linear(own, weights, "context.out")
        return x + linear(F.gelu(linear(x, weights, "context.widen")), weights, "context.narrow")

    def with_nearest(clip: Tensor) -> Tensor:
        match = [float(both_ways(apart(clip, q))) for q in asked]
        return clip + asked[match.index(min(match))] if max(match) > min(match) else clip

    def prototype(clips: Sequence[Tensor]) -> Tensor:
        x = torch.stack(list(clips), 1)  # [T, K, D]: shots attend to one another, step by step
        names = ("shots.query", "shots.key", "shots.value")
        mixed = [
            layer_norm(
                row + linear(attention(row, shot_heads, lambda y: tuple(linear(y, weights, n) for n in names)),
                             weights, "shots.out"),
                weights, "shots.norm",
            )
            for row in x
        ]  # fmt: skip
        return x.mean(1) + torch.stack(mixed).mean(1)

    plain = [prototype([with_nearest(clip) for clip in clips]) for clips in shots]
    related = [context(p) for p in plain]
    class_keys: list[list[Tensor]] = [[] for _ in plain]
    query_keys: list[list[Tensor]] = [[] for _ in asked]
    far = torch.tensor([[abs(i - j) > window for j in range(steps)] for i in range(steps)])
    for c, p in enumerate(plain):
        for i, q in enumerate(asked):
            d = apart(p, q).masked_fill(far, torch.inf)
            class_keys[c] += [q[int(row.argmin())] for row in d]
            query_keys[i] += [related[c][int(column.argmin())] for column in d.T]
    means = [torch.stack(keys).mean(0) for keys in (*query_keys, *class_keys)]
    key = context(torch.stack(means))
    logits = torch.zeros(len(asked), len(plain)).double()
    for i, q in enumerate(asked):
        longer = torch.cat([(key[i] + q.mean(0))[None], q])
        for c, p in enumerate(related):
            other = torch.cat([(key[len(asked) + c] + p.mean(0))[None], p])
            logits[i, c] = -both_ways(apart(other, longer))
    return logits
