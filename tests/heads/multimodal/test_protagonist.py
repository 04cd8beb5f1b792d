"""The protagonist-aware transformer: its attention by loops, its losses, and a set in which the protagonist decides."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import bank_of
from torch import Tensor
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import Stream
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Inputs
from fsmm.heads.multimodal.protagonist import Tokens, _masked
from fsmm.heads.parts.affect import affects, read_lexicon
from fsmm.heads.parts.emotional_attention import classes_attended, regions_attended
from fsmm.heads.parts.objectives import noise_contrastive
from fsmm.runs.spec import RunSpec
from fsmm.runs.train import train
from fsmm.runs.zero_shot import zero_shot

WORD, REGION = 6, 12
EMOTIONS = 30


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The classes of the objects and a lexicon in which heroes are emotional and chairs are not."""
    (tmp_path / "names.txt").write_text("hero\nchair\n")
    (tmp_path / "lexicon.tsv").write_text(
        "Word\tValence\tArousal\tDominance\nhero\t1\t1\t1\nchair\t0.5\t0\t0\n"
    )
    return {"object_names": str(tmp_path / "names.txt"), "lexicon": str(tmp_path / "lexicon.tsv")}


@pytest.mark.parametrize("among", ["neighbours", "clip", "none"])
def test_the_attention_to_regions_by_a_loop(among: Any) -> None:
    region, score, affect = normal(4, 3, 5), normal(4, 3, 2, seed=1).abs(), torch.tensor([0.6, 0.1]).double()
    found = regions_attended(region, score, affect, among=among, balance=0.3)
    for t in range(4):
        near = [u for u in range(4) if u != t and (among == "clip" or abs(u - t) == 1) and among != "none"]
        for j in range(3):
            related = sum(
                (F.cosine_similarity(region[t, j], region[u, z], 0) for u in near for z in range(3)), 0.0
            )
            emotional = (score[t, j] * affect).sum() / score[t, j].sum()
            alpha = torch.sigmoid(torch.as_tensor(0.3 * related + 0.7 * emotional))
            assert torch.allclose(found[t, j], alpha * region[t, j])


def test_the_attention_to_classes_counts_where_else_a_class_is_seen() -> None:
    score, affect = normal(3, 2).abs(), torch.tensor([0.6, 0.1]).double()
    found = classes_attended(score, affect, among="neighbours", balance=0.5)
    expected = torch.sigmoid(0.5 * (score[0] + score[2]) + 0.5 * affect) * score[1]
    assert torch.allclose(found[1], expected)


def test_noise_contrastive_by_a_loop() -> None:
    one, other = normal(4, 5), normal(4, 5, seed=1)
    s = torch.stack([F.cosine_similarity(one[i : i + 1], other, -1) for i in range(4)]) / 0.5
    terms = []
    for i in range(4):
        negatives = sum(s[i, j].exp() + s[j, i].exp() for j in range(4) if j != i)
        terms.append(-(s[i, i].exp() / (s[i, i].exp() + negatives)).log())
    assert torch.allclose(noise_contrastive(one, other, 0.5), torch.stack(terms).mean())


def protagonists(emotions: range, seed: int) -> FeatureBank:
    """A synthetic set in which the protagonist decides: the hero of a clip has its emotion, the other one another.

    Each of four frames shows a hero and a chair in either order, alike in all but the scores of their classes. Sounds
    say nothing.
    """
    maps = torch.Generator().manual_seed(0)
    words = F.normalize(torch.randn(EMOTIONS, WORD, generator=maps), dim=-1)
    slope = torch.randn(WORD, REGION, generator=maps)
    chance = torch.Generator().manual_seed(seed)
    label = torch.arange(len(emotions)).repeat_interleave(20)
    shift = torch.randint(1, len(emotions), label.shape, generator=chance)
    told = torch.stack([label, (label + shift) % len(emotions)], 1)  # The hero's emotion, and the other's.
    region = F.normalize(words[list(emotions)] @ slope, dim=-1)[told]
    each = torch.cat([region, torch.eye(2).expand(len(label), 2, 2)], -1)
    each = each[:, None].repeat(1, 4, 1, 1)
    turned = torch.rand(len(label), 4, generator=chance) < 0.5
    each = torch.where(turned[..., None, None], each.flip(2), each)
    each[..., :REGION] += 0.05 * torch.randn(each[..., :REGION].shape, generator=chance)
    audio = F.normalize(torch.randn(len(label), 3, 8, generator=chance), dim=-1)
    features = {"object": each.flatten(1, 2), "audio": audio}
    return bank_of(features, label, split="base", words=words[list(emotions)])


def test_where_the_protagonist_decides_attention_solves_what_cannot_be_solved_without(
    files: dict[str, str],
) -> None:
    base, unseen = protagonists(range(25), seed=1), protagonists(range(25, 30), seed=2)
    accuracy = {}
    for attention in (True, False):
        torch.manual_seed(0)
        own = {
            "per_frame": "2",
            "balance": "0",
            "token": "32",
            "layers": "1",
            "attention": str(attention).lower(),
            **files,
        }
        own |= {"dropout": "0", "between": "0", "within": "0"}
        head = build_head("protagonist", inputs_of(base, base_classes=25, way=5), own)
        recipe = type(head.recipe)(steps=100, ceiling=1, tasks=64, rate=5e-3)
        train(head, base, None, Protocol(n_way=0, k_shot=0), recipe=recipe)
        accuracy[attention] = zero_shot(head, unseen).unseen
    assert accuracy[True] > 0.85
    assert accuracy[False] < 0.6  # A coin tells which of two is the hero.


def inputs(objects: bool = False) -> Inputs:
    streams = {"frame": (3, REGION), "audio": (2, 8)} | ({"object": (4, 5)} if objects else {})
    return Inputs(streams=streams, word_dim=WORD, base_classes=5, way=3)


def clips(objects: bool = False, count: int = 6) -> dict[str, Stream]:
    found = {}
    for number, (name, (steps, dim)) in enumerate(inputs(objects).streams.items()):
        x = normal(count, steps, dim, seed=number)
        found[name] = Stream(x, torch.ones(count).bool(), torch.full((count,), steps))
    return found


def head_of(with_objects: bool = False, **settings: object) -> Any:
    torch.manual_seed(0)
    given = {key: str(value).lower() for key, value in settings.items()}
    return build_head("protagonist", inputs(with_objects), given).double()


def test_each_loss_can_be_switched_off() -> None:
    label, words = torch.arange(6) % 5, normal(5, WORD)
    parts = {"align", "between", "within"}
    whole = head_of(dropout=0).batch_loss(clips(), label, words)
    assert set(whole.parts) == parts
    assert float(whole.total.detach()) == pytest.approx(sum(float(p) for p in whole.parts.values()))
    for name in parts:
        assert set(head_of(**{name: 0}).batch_loss(clips(), label, words).parts) == parts - {name}
    none = head_of(align=0, between=0, within=0).batch_loss(clips(), label, words)
    assert float(none.total.detach()) == 0.0


def test_alignment_is_the_squared_distance_of_both_side_by_side_to_the_words() -> None:
    head = head_of(between=0, within=0, dropout=0, unit=False, rescale=False)
    words, label = normal(5, WORD), torch.arange(6) % 5
    found = head.batch_loss(clips(), label, words).total
    audio, video = head.streams(clips())
    sides = torch.cat([head.read_seen(head.seen(clips(), video)), head.read_heard(head.heard(audio))], -1)
    expected = (head.to_words(sides) - words[label]).square().sum(1).mean()
    assert torch.allclose(found, expected)


def test_without_objects_attention_is_the_identity_and_the_run_says_so() -> None:
    on, off = head_of(attention=True).eval(), head_of(attention=False).eval()
    assert torch.equal(on.points_of(clips()).place, off.points_of(clips()).place)
    assert "no objects" in on.notes()[0]


def test_objects_take_part_beside_frames_and_affect_with_a_lexicon_alone(files: dict[str, str]) -> None:
    plain, known = head_of(with_objects=True).eval(), None
    assert "No object has affect" in plain.notes()[-1]
    without = head_of(with_objects=True, attention=False).eval()
    given = clips(objects=True)
    assert not torch.allclose(plain.points_of(given).place, without.points_of(given).place)
    torch.manual_seed(0)
    known = build_head("protagonist", inputs(objects=True), files).double().eval()
    digest = hashlib.sha256(Path(files["lexicon"]).read_bytes()).hexdigest()
    assert known.notes() == [f"Affect is from {files['lexicon']!r}, SHA-256 {digest}."]
    assert torch.allclose(known.affect.float(), torch.tensor([0.5**0.5, 0.0]))
    missing = {m: s for m, s in given.items() if m != "object"}
    assert torch.isfinite(known.points_of(missing).place).all()


def test_where_there_are_scores_alone_the_classes_are_the_objects(tmp_path: Path) -> None:
    """The stream of a detector: with a lexicon an emotional class weighs more, and without attention none does."""
    (tmp_path / "names.txt").write_text("hero\nchair\ndog\ncup\nbed\n")
    (tmp_path / "lexicon.csv").write_text("hero,1,1\n")
    own = {"object_names": str(tmp_path / "names.txt"), "lexicon": str(tmp_path / "lexicon.csv")}
    head = build_head(
        "protagonist", inputs(objects=True), {**own, "related": "none", "balance": "0"}
    ).double()
    x, valid = normal(6, 4, 5).abs(), torch.ones(6, 4, dtype=torch.bool)
    weight = head.attended(x, valid) / (x * 5**0.5)
    expected = torch.sigmoid(torch.tensor([0.5**0.5, 0, 0, 0, 0])).double()
    assert torch.allclose(weight, expected.expand_as(weight))
    assert "lacks 4 of 5 names: chair, dog" in head.notes()[-1]
    assert torch.isfinite(head.points_of(clips(objects=True)).place).all()
    plain = build_head("protagonist", inputs(objects=True), {**own, "attention": "false"}).double()
    assert torch.allclose(plain.attended(x, valid), x * 5**0.5)


def test_padded_objects_say_nothing() -> None:
    head = head_of(with_objects=True).eval()
    given = clips(objects=True)
    x, length = given["object"].x, torch.tensor([4, 3, 2, 1, 4, 2])
    noise = normal(*x.shape, seed=9) * (torch.arange(4) >= length[:, None])[..., None]
    places = [
        head.points_of({**given, "object": Stream(y, torch.ones(6).bool(), length)}).place
        for y in (x, x + noise)
    ]
    assert torch.allclose(*places)


def test_a_masked_view_keeps_a_token() -> None:
    view = _masked(Tokens(normal(50, 2, 4), torch.tensor([[True, False]]).expand(50, 2)), 0.9)
    assert bool(view.valid[:, 0].all())
    assert not bool(view.valid[:, 1].any())


def test_a_name_takes_the_mean_of_its_words(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("baby,1,0.8\nshark,0,1\n")
    lexicon = read_lexicon(tmp_path / "l.csv")
    found, unknown = affects(["Baby", "baby_shark", "stone"], lexicon)
    assert found == pytest.approx([(0.25 + 0.16) ** 0.5, 0.45, 0.0])
    assert unknown == ["stone"]


def test_norms_from_1_to_9_are_known_by_their_headings(tmp_path: Path) -> None:
    (tmp_path / "valence.tsv").write_text(
        "Word\tV.Mean.Sum\tV.SD.Sum\tV.Rat.Sum\tA.Mean.Sum\nbaby\t9\t1\t20\t5\nstone\t5\t1\t20\t1\n"
    )
    assert read_lexicon(tmp_path / "valence.tsv") == {"baby": (1.0, 0.5), "stone": (0.5, 0.0)}


def test_another_lexicon_is_another_run(files: dict[str, str]) -> None:
    spec = RunSpec(method="protagonist", settings=files)
    before = spec.files
    assert set(before) == {"object_names", "lexicon"}
    Path(files["lexicon"]).write_text("hero,0,0\n")
    assert spec.files["lexicon"] != before["lexicon"]
    assert spec.files["object_names"] == before["object_names"]
    Path(files["lexicon"]).unlink()
    assert spec.files["lexicon"] == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no word"),
        ("baby\t5.3\t4.1\n", "outside 0..1"),
        ("baby\t0.5\t0.1\nshark\tx\ty\n", "Line 2"),
        ("baby 0.5 0.1\n", "Line 1"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_lexicon_is_told(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lexicon.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_lexicon(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": "flow"}, "objects modality"),
        ({"objects": "audio"}, "what the head hears"),
        ({"per_frame": 3}, "does not fit"),
    ],
)
def test_objects_are_named_and_counted_rightly(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        head_of(with_objects=True, **settings)


def test_a_file_that_would_not_be_read_is_refused() -> None:
    with pytest.raises(UsageError, match="no stream of objects"):
        head_of(with_objects=False, object_names="names.txt")
    with pytest.raises(UsageError, match="without the names of the objects"):
        head_of(with_objects=True, lexicon="lexicon.tsv")
