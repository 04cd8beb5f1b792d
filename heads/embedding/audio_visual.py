"""What the audio-visual zero-shot family shares: pairs of modalities, anchors of classes, batches of base clips.

A method places each clip at one or several points of a space in which class words have places too. A query goes to
the class whose anchor is nearest. Without supports the anchors are the places of the words, as published; with
supports, which no paper of the family but AV-DIFF has, an anchor is the mean of the words' place and the supports'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError, unknown
from ..head import ClipTrainedHead, Inputs, Losses
from ..parts.absence import neutral
from ..parts.task import work_dtype
from ..settings import Positive, Settings


@dataclass(frozen=True)
class AudioVisualSettings(Settings):
    """The settings that all methods of the family share."""

    files: ClassVar[tuple[str, ...]] = ("word_names",)

    audio: str = "auto"
    """The modality that is heard; "auto": audio, or the last one where none has that name."""
    video: str = "auto"
    """The modality that is seen; "auto": the first one that is not heard. Others are not read."""
    rescale: bool = True
    """Read unit features as sqrt(D) z, whose entries are of order one, and class words at unit length; false: both as
    they come."""
    words_by: Literal["name", "position"] = "name"
    """Which vector a class gets: that of its name, or, as the published loaders have it, that at its position among the
    sorted names under which the vectors were published."""
    word_names: str = ""
    """A CSV file of the columns original and manual, the classes and the names under which their vectors were
    published, which words_by=position needs."""


@dataclass(frozen=True)
class AnchorSettings(AudioVisualSettings):
    """The settings of methods that decide by the nearest class."""

    anchor: Literal["auto", "words", "supports"] = "auto"
    """The place of a class: that of its words (as published), the mean of its supports', or (auto) the mean of both,
    in which the words count as one support."""
    scale: Positive = 1.0
    """The factor of minus the distance in logits; it calibrates posteriors and changes no decision."""


A = TypeVar("A", bound=AudioVisualSettings)
N = TypeVar("N", bound=AnchorSettings)


class Points(NamedTuple):
    """Where clips lie: at M points each, of which each says how much it counts."""

    place: Tensor
    """The points, [..., M, D]."""
    weight: Tensor
    """How much the distance to each point counts, [..., M]; 0 for one that is not there."""

    @property
    def present(self) -> Tensor:
        """Whether a clip has any point that counts, bool [...]."""
        return (self.weight > 0).any(-1)


class Pairs(NamedTuple):
    """Base clips that are both heard and seen, and their classes."""

    audio: Stream
    """What is heard, a Stream [M, T, D]."""
    video: Stream
    """What is seen, a Stream [M, T, D]."""
    word: Tensor
    """The words of each clip's class, [M, E]."""
    label: Tensor
    """The class of each clip, int64 [M] over the base classes."""

    def at(self, rows: Tensor) -> Pairs:
        """The pairs at ``rows``, int64."""
        return Pairs(self.audio[rows], self.video[rows], self.word[rows], self.label[rows])


class AudioVisualHead(ClipTrainedHead[A]):
    """A head of what is heard and what is seen, in whose space class words have places."""

    def __init__(self, inputs: Inputs, settings: A) -> None:
        super().__init__(inputs, settings)
        self.audio, self.video = pair_of(inputs, settings)
        self.audio_dim, self.video_dim = (inputs.streams[m][1] for m in (self.audio, self.video))
        self.word_dim = inputs.word_dim or 1

    def notes(self) -> list[str]:
        """A sentence where there are modalities that the head does not read."""
        others = [m for m in self.inputs.streams if m not in (self.audio, self.video)]
        if not others:
            return []
        return [
            f"The head hears {self.audio} and sees {self.video}; it does not read {', '.join(others)}. Choose others "
            "with --set audio=NAME --set video=NAME."
        ]

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """The objective of at least two pairs, given the words [C, E] of all base classes."""
        raise TypeError(f"{type(self).__name__} does not define pair_loss")

    def words(self, episodes: Episodes) -> Tensor:
        """The class words [B, N, E] as the head reads them. Raises UsageError where there are none."""
        if episodes.words is None:
            raise UsageError(
                "This head needs class words; extract a word stream or name one with --words, or use "
                "--set anchor=supports."
            )
        return self.read_words(episodes.words)

    def read_words(self, words: Tensor) -> Tensor:
        """Class words [..., E] in the head's precision, at length one where ``rescale`` says so."""
        words = words.to(self.dtype)
        return F.normalize(words, dim=-1) if self.settings.rescale else words

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the head's weights."""
        return work_dtype(next(self.parameters()).dtype)

    def streams(self, clips: Mapping[str, Stream]) -> tuple[Stream, Stream]:
        """What is heard and what is seen of clips, as the head reads it; absent where the clips do not carry it.

        Raises UsageError where clips carry neither.
        """
        held = next((clips[m] for m in (self.audio, self.video) if m in clips), None)
        if held is None:
            raise UsageError(
                f"This head reads {self.audio} and {self.video}, and clips carry {', '.join(clips) or 'nothing'}."
            )
        return self._read(clips.get(self.audio), held, self.audio_dim), self._read(
            clips.get(self.video), held, self.video_dim
        )

    def _read(self, stream: Stream | None, like: Stream, dim: int) -> Stream:
        if stream is None:
            x = like.x.new_zeros(*like.present.shape, 1, dim, dtype=self.dtype)
            return Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))
        x = stream.x.to(self.dtype)
        return Stream(x * dim**0.5 if self.settings.rescale else x, stream.present, stream.length)

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The objective of the clips that are both heard and seen; 0 where there are fewer than two of them.

        Raises UsageError where there are no class words.
        """
        if words is None:
            raise UsageError("The base classes have no words; extract the word stream again.")
        audio, video = self.streams(clips)
        rows = (audio.present & video.present).nonzero()[:, 0]
        if len(rows) < 2:
            return Losses(sum((p.sum() * 0.0 for p in self.parameters()), torch.zeros(())))
        table = self.read_words(words)
        return self.pair_loss(Pairs(audio, video, table[label], label).at(rows), table)


class AnchoredHead(AudioVisualHead[N]):
    """A head that decides by the nearest class."""

    def points(self, audio: Stream, video: Stream) -> Points:
        """Where clips lie that are heard, seen or both; streams [..., T, D]."""
        raise TypeError(f"{type(self).__name__} does not define points")

    def points_of(self, clips: Mapping[str, Stream]) -> Points:
        """Where clips lie, by all that they carry."""
        return self.points(*self.streams(clips))

    def place_words(self, words: Tensor) -> Tensor:
        """Where class words [..., E] lie, [..., D]."""
        raise TypeError(f"{type(self).__name__} does not define place_words")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: minus the distance to the anchors. Raises UsageError where there are no class words."""
        query = self.points_of(episodes.query)
        anchors, class_present = self.anchors(episodes, query.place)
        # One distance matrix a point, without the differences of all pairs in memory.
        each = torch.cdist(
            query.place.transpose(1, 2), anchors.transpose(1, 2), compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance = (each * query.weight.transpose(1, 2)[..., None]).sum(1)
        return neutral(-self.settings.scale * distance, query.present, class_present)

    def anchors(self, episodes: Episodes, like: Tensor) -> tuple[Tensor, Tensor]:
        """Where classes lie, one anchor for each of a clip's points [B, N, M, D], and which have one, bool [B, N]."""
        how = self.settings.anchor
        total = like.new_zeros(*episodes.class_id.shape, *like.shape[2:])
        count = total.new_zeros(total.shape[:-1])
        if how != "supports":
            total = total + self.place_words(self.words(episodes))[:, :, None]
            count = count + 1
        if how != "words" and episodes.shots:
            support = self.points_of(episodes.support)
            seen = (support.weight > 0).to(total)
            total = total + (support.place * seen[..., None]).sum(2)
            count = count + seen.sum(2)
        if how == "supports" and not episodes.shots:
            raise UsageError("anchor=supports needs supports; use --k-shot 1 or more, or anchor=words.")
        return total / count.clamp(min=1)[..., None], (count > 0).any(-1)


def wrong_pairs(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Pairs and, for each, a random pair of another class among them; those without one are left out."""
    other = pairs.label[:, None] != pairs.label[None]
    rows = other.any(1).nonzero()[:, 0]
    if not len(rows):
        return pairs.at(rows), pairs.at(rows)
    drawn = torch.multinomial(other[rows].float(), 1)[:, 0]
    return pairs.at(rows), pairs.at(drawn)


def pair_of(inputs: Inputs, settings: AudioVisualSettings) -> tuple[str, str]:
    """The modalities that are heard and seen. Raises UsageError for one that there is not, or twice the same."""
    names = list(inputs.streams)
    for what, name in (("audio", settings.audio), ("video", settings.video)):
        if name not in ("auto", *names):
            raise unknown(f"{what} modality", name, ["auto", *names])
    audio = settings.audio
    if audio == "auto":
        left = [m for m in names if m != settings.video]
        audio = "audio" if "audio" in left else left[-1]
    video = next(m for m in names if m != audio) if settings.video == "auto" else settings.video
    if audio == video:
        raise UsageError(f"audio={audio} and video={video} are the same modality; name two.")
    return audio, video
