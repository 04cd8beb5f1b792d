"""The multimodal protagonist-aware transformer for zero-shot video emotion (Qi et al., ACM MM 2021).

The objects of each frame are weighed by dynamic emotional attention, by how they are related to those of other frames
and how emotional the names of their classes are; a transformer reads them, and another one reads the sounds. Both
are brought together by noise-contrastive losses between and within modalities, and side by side they are aligned with
the words of the class. A query goes to the nearest words. Inductive; without objects, frames take their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ...errors import UsageError, unknown
from ...machine.digests import file_sha256
from ..embedding.audio_visual import AnchoredHead, AnchorSettings, Points
from ..head import Inputs, Losses
from ..parts.affect import affects, read_lexicon, read_names
from ..parts.emotional_attention import Among, classes_attended, regions_attended
from ..parts.objectives import noise_contrastive
from ..parts.positions import sinusoid
from ..parts.token_block import TokenBlock
from ..settings import Count, NonNegative, Positive, Rate, Recipe, Share

OBJECTS = "object"


@dataclass(frozen=True)
class ProtagonistSettings(AnchorSettings):
    """The protagonist-aware transformer's settings."""

    files: ClassVar[tuple[str, ...]] = (*AnchorSettings.files, "object_names", "lexicon")

    objects: str = "auto"
    """The modality of the objects; "auto": object, where there is one; "none": frames take their place."""
    object_names: str = ""
    """A file of the classes of the objects, one a line, in the order of their scores, which are the last entries of an
    object's features; where there are no others, the objects of a frame are the classes themselves."""
    lexicon: str = ""
    """A file of words with their valence and arousal, in 0..1 or with the headings of the Warriner norms
    (`fsmm encoders --fetch warriner-affect`); without one no object has affect."""
    per_frame: Count = 1
    """The number of objects of a frame, which are so many steps of the object stream in a row."""
    attention: bool = True
    """Weigh the objects by emotional attention; false: all alike."""
    related: Among = "neighbours"
    """The objects to which an object is related: those of the frame before and the one after, of all other frames of
    the clip, or of none."""
    balance: Share = 0.5
    """The weight of relatedness in the attention (the paper's lambda); that of affect is one minus it."""
    token: Count = 128
    """The width of the tokens of both transformers."""
    layers: Count = 2
    """The blocks of each transformer."""
    heads: Count = 4
    """The attention heads of a block."""
    dropout: Rate = 0.2
    """The dropout of tokens and blocks."""
    between: NonNegative = 1.0
    """The weight of the noise-contrastive loss between what is seen and what is heard; 0: without it."""
    within: NonNegative = 1.0
    """The weight of the noise-contrastive losses within each, of clips and clips with masked steps; 0: without them."""
    align: NonNegative = 1.0
    """The weight of the squared distance to the words of the class; 0: without it."""
    masked: Rate = 0.3
    """The share of the steps that the masked views lack."""
    temperature: Positive = 0.07
    """The temperature of the noise-contrastive losses."""
    unit: bool = True
    """Compare clips and words by their directions; false: by Euclidean distance as they are."""


class Tokens(NamedTuple):
    """Tokens of clips, and which of them are there."""

    token: Tensor
    """The tokens, [..., L, token]."""
    valid: Tensor
    """Whether there is such a token, bool [..., L]."""


class Protagonist(AnchoredHead[ProtagonistSettings]):
    Settings = ProtagonistSettings
    recipe = Recipe(steps=600, tasks=64, rate=5e-4, weight_decay=1e-4, evaluate_every=50, patience=6)

    affect: Tensor

    def __init__(self, inputs: Inputs, settings: ProtagonistSettings) -> None:
        super().__init__(inputs, settings)
        self.objects = _object_modality(inputs, settings, self.audio)
        _check_files_are_read(settings, has_objects=self.objects is not None)
        names = read_names(Path(settings.object_names)) if settings.object_names else []
        self.classes = len(names)
        self.region_dim = self._region_dim(len(names))
        lexicon = read_lexicon(Path(settings.lexicon)) if names and settings.lexicon else {}
        self.lexicon_sha256 = file_sha256(Path(settings.lexicon)) if lexicon else ""
        affect, self.without_affect = affects(names, lexicon)
        self.register_buffer("affect", torch.tensor(affect))
        width = settings.token
        self.see_frame = nn.Linear(self.video_dim, width) if self.video != self.objects else None
        self.see_object = nn.Linear(self.region_dim or self.classes, width) if self.objects else None
        self.hear = nn.Linear(self.audio_dim, width)
        self.video_blocks, self.audio_blocks = self._blocks(), self._blocks()
        self.drop = nn.Dropout(settings.dropout)
        self.to_words = nn.Linear(2 * width, self.word_dim)

    def _blocks(self) -> nn.ModuleList:
        own = self.settings
        return nn.ModuleList(
            TokenBlock(own.token, own.heads, 0, 2 * own.token, own.dropout) for _ in range(own.layers)
        )

    def _region_dim(self, classes: int) -> int:
        """How many entries of an object's features are not scores. Raises UsageError where names do not fit."""
        if self.objects is None:
            return 0
        steps, dim = self.inputs.streams[self.objects]
        if classes > dim:
            raise UsageError(f"object_names has {classes} names, and {self.objects} is only {dim} wide.")
        if self.settings.per_frame > 1 and (classes == dim or steps % self.settings.per_frame):
            raise UsageError(
                f"per_frame={self.settings.per_frame} does not fit {self.objects}, which has {steps} steps"
                + (" of scores alone, one a frame; use 1." if classes == dim else "; choose a divisor.")
            )
        return dim - classes

    def notes(self) -> list[str]:
        """What the head does not read, and whether objects and their affect take part."""
        read = {self.audio, self.video, self.objects}
        found = super().notes() if set(self.inputs.streams) - read else []
        if self.objects is None:
            return [*found, "There are no objects: frames are read as they are, and no attention is paid."]
        if not self.classes or not self.settings.lexicon:
            return [*found, "No object has affect; give --set object_names=FILE --set lexicon=FILE for that."]
        found.append(f"Affect is from {self.settings.lexicon!r}, SHA-256 {self.lexicon_sha256}.")
        if self.without_affect:
            few = ", ".join(self.without_affect[:5])
            return [*found, f"The lexicon lacks {len(self.without_affect)} of {self.classes} names: {few}."]
        return found

    def points_of(self, clips: Mapping[str, Stream]) -> Points:
        """One point a clip, its place among words."""
        audio, video = self.streams(clips)
        seen, heard = self.seen(clips, video), self.heard(audio)
        place = self.aligned(self.read_seen(seen), self.read_heard(heard))
        there = seen.valid.any(-1) | heard.valid.any(-1)
        return Points(place[..., None, :], there[..., None].to(place.dtype))

    def place_words(self, words: Tensor) -> Tensor:
        return F.normalize(words, dim=-1) if self.settings.unit else words

    def aligned(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Where clips lie among words [..., E], by the vectors of both modalities side by side."""
        place: Tensor = self.to_words(torch.cat([seen, heard], -1))
        return F.normalize(place, dim=-1) if self.settings.unit else place

    def seen(self, clips: Mapping[str, Stream], video: Stream) -> Tokens:
        """The tokens of frames and of attended objects; video: the frames as the head reads them."""
        parts = []
        if self.see_frame is not None:
            parts.append(self._placed(self.see_frame(video.x), video.mask(), 1))
        if self.objects is not None and self.see_object is not None and self.objects in clips:
            stream = clips[self.objects]
            token = self.see_object(self.attended(stream.x.to(self.dtype), stream.mask()))
            parts.append(self._placed(token, stream.mask(), self.settings.per_frame))
        if not parts:
            empty = video.x.new_zeros(*video.x.shape[:-1], self.settings.token)
            parts.append(Tokens(empty, torch.zeros_like(video.mask())))
        return Tokens(torch.cat([p.token for p in parts], -2), torch.cat([p.valid for p in parts], -1))

    def heard(self, audio: Stream) -> Tokens:
        """The tokens of sounds."""
        return self._placed(self.hear(audio.x), audio.mask(), 1)

    def _placed(self, token: Tensor, valid: Tensor, per_frame: int) -> Tokens:
        """Tokens [..., L, token] with the codes of their frames."""
        frames = -(-token.shape[-2] // per_frame)
        code = sinusoid(frames, token).repeat_interleave(per_frame, 0)[: token.shape[-2]]
        return Tokens(token + code, valid)

    def attended(self, x: Tensor, valid: Tensor) -> Tensor:
        """The attended objects [..., T, Dr or C] of the features of objects [..., T, D]; valid: bool [..., T]."""
        own = self.settings
        x = x * valid[..., None].to(x.dtype)
        affect = self.affect if own.lexicon else None
        if not self.region_dim:
            if not own.attention:
                return x * x.shape[-1] ** 0.5
            return classes_attended(x, affect, among=own.related, balance=own.balance) * x.shape[-1] ** 0.5
        region = x[..., : self.region_dim] * self.region_dim**0.5
        if not own.attention:
            return region
        split = (-1, own.per_frame)
        score = x[..., self.region_dim :].unflatten(-2, split) if self.classes else None
        region = region.unflatten(-2, split)
        return regions_attended(region, score, affect, among=own.related, balance=own.balance).flatten(-3, -2)

    def read_seen(self, seen: Tokens) -> Tensor:
        """x^v [..., token], zero for clips that are not seen."""
        return _read(self.video_blocks, self.drop, seen)

    def read_heard(self, heard: Tokens) -> Tensor:
        """x^a [..., token], zero for clips that are not heard."""
        return _read(self.audio_blocks, self.drop, heard)

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The weighted losses over the clips that are both heard and seen; 0 where there are fewer than two of them.

        Raises UsageError where there are no class words.
        """
        if words is None:
            raise UsageError("The base classes have no words; extract the word stream again.")
        audio, video = self.streams(clips)
        seen, heard = self.seen(clips, video), self.heard(audio)
        rows = (seen.valid.any(-1) & heard.valid.any(-1)).nonzero()[:, 0]
        if len(rows) < 2:
            return Losses(sum((p.sum() * 0.0 for p in self.parameters()), torch.zeros(())))
        seen, heard = (Tokens(each.token[rows], each.valid[rows]) for each in (seen, heard))
        return self.losses(seen, heard, self.place_words(self.read_words(words))[label[rows]])

    def losses(self, seen: Tokens, heard: Tokens, word: Tensor) -> Losses:
        """The losses of M clips whose classes have the words [M, E]."""
        own = self.settings
        x_v, x_a = self.read_seen(seen), self.read_heard(heard)
        parts: dict[str, Tensor] = {}
        if own.align > 0:
            parts["align"] = own.align * (self.aligned(x_v, x_a) - word).square().sum(-1).mean()
        if own.between > 0:
            parts["between"] = own.between * noise_contrastive(x_v, x_a, own.temperature)
        if own.within > 0:
            views = self.read_seen(_masked(seen, own.masked)), self.read_heard(_masked(heard, own.masked))
            pairs = zip((x_v, x_a), views)
            parts["within"] = own.within * sum(
                (noise_contrastive(x, view, own.temperature) for x, view in pairs), x_v.sum() * 0.0
            )
        total = sum(parts.values(), x_v.sum() * 0.0)
        return Losses(total, {name: value.detach() for name, value in parts.items()})


def _read(blocks: nn.ModuleList, drop: nn.Module, tokens: Tokens) -> Tensor:
    """The mean [..., token] of the tokens that are there, after the blocks; zero where none is."""
    x = drop(tokens.token)
    for block in blocks:
        x = block(x, tokens.valid)
    weight = tokens.valid[..., None].to(x.dtype)
    mean: Tensor = (x * weight).sum(-2) / weight.sum(-2).clamp(min=1)
    return mean


def _masked(tokens: Tokens, share: float) -> Tokens:
    """A view in which tokens are left out at random; a clip that would keep none keeps them all."""
    kept = tokens.valid & (torch.rand(tokens.valid.shape, device=tokens.valid.device) >= share)
    return Tokens(tokens.token, torch.where(kept.any(-1, keepdim=True), kept, tokens.valid))


def _check_files_are_read(settings: ProtagonistSettings, *, has_objects: bool) -> None:
    """Raise UsageError for a file that is given and would not be read."""
    if settings.object_names and not has_objects:
        raise UsageError(
            "object_names is given, but there is no stream of objects; leave it out, or extract one."
        )
    if settings.lexicon and not settings.object_names:
        raise UsageError(
            "lexicon says nothing without the names of the objects; give --set object_names=FILE, too."
        )


def _object_modality(inputs: Inputs, settings: ProtagonistSettings, audio: str) -> str | None:
    """The modality of the objects, or None. Raises UsageError for one that there is not, or that is heard."""
    name = settings.objects
    if name == "none":
        return None
    if name == "auto":
        return OBJECTS if OBJECTS in inputs.streams and audio != OBJECTS else None
    if name not in inputs.streams:
        raise unknown("objects modality", name, ["auto", "none", *inputs.streams])
    if name == audio:
        raise UsageError(
            f"objects={name} is what the head hears; name another modality with --set audio=NAME."
        )
    return name
