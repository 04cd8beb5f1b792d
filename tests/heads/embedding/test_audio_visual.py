"""The audio-visual zero-shot family: pairs, anchors, absent modalities, and learning on clips made of their words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import bank_of, random_bank
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.embedding.audio_visual import AnchoredHead, Pairs, wrong_pairs
from fsmm.heads.head import ClipTrainedHead, Inputs
from fsmm.heads.parts.diffusion import Diffusion
from fsmm.heads.registry import METHODS
from fsmm.runs.train import train
from fsmm.runs.zero_shot import zero_shot

FAMILY = [
    name for name, method in METHODS.items() if method.family == "embedding" and method.modalities == "two"
]
ANCHORED = [name for name in FAMILY if name != "avdiff"]
INPUTS = Inputs(streams={"frame": (1, 12), "audio": (1, 8)}, word_dim=6, base_classes=5, way=3)


def head_of(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return build_head(name, INPUTS, {key: str(value) for key, value in settings.items()}).double().eval()


def clips(x: Tensor, present: Tensor | None = None) -> Stream:
    present = torch.ones(x.shape[:-1], dtype=torch.bool) if present is None else present
    return Stream(x[..., None, :] * present[..., None, None], present, present.long())


def task(shots: int = 2, queries: int = 4) -> Episodes:
    chance = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float64)

    return Episodes(
        {"frame": clips(normal(1, 3, shots, 12)), "audio": clips(normal(1, 3, shots, 8))},
        {"frame": clips(normal(1, queries, 12)), "audio": clips(normal(1, queries, 8))},
        torch.zeros(1, queries, dtype=torch.int64),
        torch.arange(3)[None],
        words=normal(1, 3, 6),
    )


def spoken(classes: int, seed: int) -> FeatureBank:
    """Clips of both modalities whose class means are one linear map of the class words."""
    maps = torch.Generator().manual_seed(0)
    slopes = {m: torch.randn(6, dim, generator=maps) for m, dim in (("frame", 12), ("audio", 8))}
    chance = torch.Generator().manual_seed(seed)
    words = torch.nn.functional.normalize(torch.randn(classes, 6, generator=chance), dim=-1)
    label = torch.arange(classes).repeat_interleave(20)
    features = {}
    for m, slope in slopes.items():
        x = (words @ slope)[label] + 0.2 * torch.randn(len(label), slope.shape[1], generator=chance)
        features[m] = torch.nn.functional.normalize(x, dim=-1)[:, None]
    return bank_of(features, label, split="base", words=words)


@pytest.mark.parametrize("name", ["cjme", "avgzslnet", "avca", "clipclap", "tcaf"])
def test_it_learns_to_name_classes_that_it_has_not_seen(name: str) -> None:
    base, unseen = spoken(24, seed=1), spoken(5, seed=2)
    torch.manual_seed(0)
    head = build_head(name, inputs_of(base, base_classes=24, way=5), {})
    before = zero_shot(head, unseen).unseen
    recipe = type(head).recipe
    train(head, base, None, Protocol(n_way=0, k_shot=0), recipe=type(recipe)(steps=60, ceiling=1, tasks=64))
    after = zero_shot(head, unseen).unseen
    assert after > 0.5  # chance is 0.2
    assert after > before


def test_avdiff_learns_to_tell_classes_from_supports() -> None:
    base, unseen = spoken(24, seed=1), spoken(5, seed=2)
    torch.manual_seed(0)
    head = build_head("avdiff", inputs_of(base, base_classes=24, way=5), {"steps": "10"})
    assert isinstance(head, ClipTrainedHead)
    train(
        head, base, None, Protocol(n_way=0, k_shot=0), recipe=type(head.recipe)(steps=40, ceiling=1, tasks=64)
    )
    rows = torch.arange(100).view(5, 20)
    support = {m: table.gather(rows[None, :, :2]) for m, table in unseen.tables.items()}
    query = {m: table.gather(rows[None, :, 2:].flatten(1)) for m, table in unseen.tables.items()}
    label = torch.arange(5).repeat_interleave(18)[None]
    assert unseen.words is not None
    logits = head(Episodes(support, query, label, torch.arange(5)[None], words=unseen.words[None]))
    assert float((logits.argmax(-1) == label).float().mean()) > 0.5  # chance is 0.2


def base_clips(bank: FeatureBank) -> dict[str, Stream]:
    return {m: table.gather(torch.arange(len(bank))) for m, table in bank.tables.items()}


@pytest.mark.parametrize("name", FAMILY)
def test_clips_with_one_modality_do_not_train(name: str) -> None:
    head = head_of(name).train()
    bank = random_bank(
        {"frame": (1, 12), "audio": (1, 8)}, classes=5, clips=4, word_dim=6, dtype=torch.float64
    )
    whole = base_clips(bank)
    gone = torch.arange(len(bank)) % 2 == 0
    audio = whole["audio"]
    holed = {**whole, "audio": clips(audio.x[:, 0], audio.present & ~gone)}
    torch.manual_seed(5)
    with_holes = head.batch_loss(holed, bank.label, bank.words)
    torch.manual_seed(5)
    kept = {m: s[~gone] for m, s in whole.items()}
    assert torch.allclose(with_holes.total, head.batch_loss(kept, bank.label[~gone], bank.words).total)
    none = {**whole, "audio": clips(audio.x[:, 0], audio.present & False)}
    assert float(head.batch_loss(none, bank.label, bank.words).total) == 0.0


@pytest.mark.parametrize("name", ANCHORED)
def test_without_supports_words_decide(name: str) -> None:
    head = head_of(name)
    given = task()
    empty = {m: s[:, :, :0] for m, s in given.support.items()}
    by_words = Episodes(empty, given.query, given.query_label, given.class_id, given.words)
    assert torch.equal(head(by_words), head_of(name, anchor="words")(given))


@pytest.mark.parametrize("name", ANCHORED)
def test_an_anchor_is_the_mean_of_supports_and_words(name: str) -> None:
    head, given = head_of(name), task(shots=2)
    assert isinstance(head, AnchoredHead)
    place = head.points(*head.streams(given.support)).place
    words = head.place_words(head.words(given))
    anchors, _ = head.anchors(given, head.points(*head.streams(given.query)).place)
    counted = head.points(*head.streams(given.support)).weight[0, 0, 0] > 0
    expected = (place.sum(2) + words[:, :, None]) / 3
    assert torch.allclose(anchors[:, :, counted], expected[:, :, counted])


@pytest.mark.parametrize("name", ["cjme", "avgzslnet", "avca"])
def test_a_clip_with_one_modality_is_decided_by_it(name: str) -> None:
    head, given = head_of(name), task()
    audio = given.query["audio"]
    nothing = clips(audio.x[..., 0, :], audio.present & False)
    seen_only = Episodes(
        given.support, {**given.query, "audio": nothing}, given.query_label, given.class_id, given.words
    )
    other = clips(torch.randn_like(audio.x[..., 0, :]), audio.present & False)
    same = Episodes(
        given.support, {**given.query, "audio": other}, given.query_label, given.class_id, given.words
    )
    assert torch.equal(head(seen_only), head(same))
    without = Episodes(
        given.support, {"frame": given.query["frame"]}, given.query_label, given.class_id, given.words
    )
    assert torch.allclose(head(seen_only), head(without))


def test_a_wrong_pair_is_of_another_class() -> None:
    label = torch.tensor([0, 1, 1, 2, 0, 2, 2])
    x = clips(torch.arange(7.0)[:, None])
    own, other = wrong_pairs(Pairs(x, x, torch.zeros(7, 2), label))
    assert bool((own.label != other.label).all())
    assert torch.equal(own.label, label)
    same, _ = wrong_pairs(Pairs(x, x, torch.zeros(7, 2), label * 0))
    assert len(same.label) == 0


def test_padded_steps_say_nothing() -> None:
    inputs = Inputs(streams={"frame": (5, 12), "audio": (4, 8)}, word_dim=6, base_classes=5)
    torch.manual_seed(0)
    head: Any = build_head("tcaf", inputs).double().eval()
    x, length = torch.randn(3, 5, 12, dtype=torch.float64), torch.tensor([5, 3, 1])
    audio = Stream(torch.randn(3, 4, 8, dtype=torch.float64), torch.ones(3).bool(), torch.full((3,), 4))
    noise = torch.randn_like(x) * (torch.arange(5) >= length[:, None])[..., None]
    first = head.place(audio, Stream(x, torch.ones(3).bool(), length))
    assert torch.allclose(first, head.place(audio, Stream(x + noise, torch.ones(3).bool(), length)))


@pytest.mark.parametrize(("how", "crosses"), [("within", False), ("between", True), ("all", True)])
def test_steps_attend_as_they_are_told(how: str, *, crosses: bool) -> None:
    """One block: the class token sees raw tokens; with two, audio reaches the video's tokens if they may cross."""
    inputs = Inputs(streams={"frame": (2, 12), "audio": (2, 8)}, word_dim=6, base_classes=5)
    torch.manual_seed(0)
    head: Any = build_head("tcaf", inputs, {"attention": how}).double().eval()
    kind = torch.tensor([0, 1, 1, 2, 2])
    allowed = head.sequence._allowed(kind, torch.ones(5, dtype=torch.bool), how)
    assert bool(allowed[0].all())
    assert bool(allowed[:, 0].all())
    assert bool(allowed[1, 3]) is crosses
    assert bool(allowed[1, 2]) is (how != "between")


def test_diffusion_inverts_the_noise_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network tells the noise exactly, one step back from step 0 gives the vector, up to fresh noise."""
    model = Diffusion(3, 2, 4, hidden=8, layers=2).double()
    x, noise = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    monkeypatch.setattr(model, "noise_of", lambda noisy, step, condition: noise)
    kept = 1 - model.beta[0]
    noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
    back = (noisy - model.beta[0] / (1 - kept).sqrt() * noise) / kept.sqrt()
    assert torch.allclose(back, x, atol=1e-3)
    assert float(model.loss(x, torch.zeros(5, 2).double(), torch.zeros(5).long(), noise)) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio": "flow"}, "audio modality"),
        ({"audio": "frame", "video": "frame"}, "same modality"),
    ],
)
def test_modalities_are_named_rightly(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        head_of("avca", **settings)


def test_modalities_that_are_not_read_are_noted() -> None:
    streams = {"frame": (1, 12), "flow": (1, 4), "audio": (1, 8)}
    head: Any = build_head("avca", Inputs(streams=streams, word_dim=6, base_classes=5))
    assert "does not read flow" in head.notes()[0]
    assert head_of("avca").notes() == []


def test_the_heard_modality_is_found_by_its_name_or_place() -> None:
    assert head_of("avca").audio == "audio"
    assert head_of("avca", audio="frame").video == "audio"
    streams = {"view1": (1, 4), "view2": (1, 5)}
    head: Any = build_head("avca", Inputs(streams=streams, word_dim=6, base_classes=5))
    assert (head.audio, head.video) == ("view2", "view1")
