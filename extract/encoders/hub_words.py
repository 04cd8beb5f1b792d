"""Class words by models of the libraries transformers (text towers of joint spaces) and sentence-transformers.

Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", EMNLP 2019. Words are put into
prompt templates, and the unit vectors of several are averaged, as for open_clip.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import WeightsError
from ..contract import TextNeed
from .base import BaseEncoder, Spec
from .hub_model import from_folder, imported, load_model, width_of
from .prompts import TEMPLATE, mean_of_templates

_PLAIN = ("{}",)


class _TemplateWords(BaseEncoder):
    """The base of both encoders: each text is embedded by itself, so that a vector does not depend on its company."""

    need = TextNeed()
    batch_clips = 64
    usual: tuple[str, ...] = (TEMPLATE,)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.dim = width_of(self.name, lambda: self._vector("a"))
        # One template of fsmm's own stands for the encoder's usual one; all others were asked for.
        self.templates = self.usual if spec.templates in ((), (TEMPLATE,)) else spec.templates
        self.preprocessing = f"{self.label}, {', '.join(map(repr, self.templates))}"

    @property
    @abstractmethod
    def label(self) -> str:
        """The library and kind of the model."""

    @abstractmethod
    def _vector(self, text: str) -> np.ndarray:
        """The vector [D] of one text."""

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        texts = [template.replace("{}", str(word)) for word in batch for template in self.templates]
        vectors = np.stack([self._vector(text) for text in texts]).astype(np.float32)
        return mean_of_templates(vectors, len(self.templates))


class HubWords(_TemplateWords):
    """The encoder of class words by the text side of a joint space, or by a plain text model: [1, D]."""

    @property
    def label(self) -> str:
        return f"transformers {self.network[0].model.config.model_type}"

    def _vector(self, text: str) -> np.ndarray:
        import torch

        hub, tokenizer = self.network
        tokens = tokenizer([text], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found: np.ndarray = hub.embedding("word")(tokens)[0].float().cpu().numpy()
        return found

    def _load(self) -> Any:
        assert self.spec.weights is not None
        return load_model(self.spec), from_folder("AutoTokenizer", self.spec.weights.path)


class SentenceWords(_TemplateWords):
    """The encoder of class words by a model of sentence-transformers, with its own pooling: [1, D].

    The usual template is the word itself.
    """

    usual = _PLAIN

    @property
    def label(self) -> str:
        return "sentence-transformers"

    def _vector(self, text: str) -> np.ndarray:
        found: np.ndarray = self.network.encode([text], convert_to_numpy=True, show_progress_bar=False)[0]
        return found

    def _load(self) -> Any:
        from ...machine.device import pick_device

        assert self.spec.weights is not None
        folder = self.spec.weights.path
        library = imported("sentence_transformers")
        try:
            model = library.SentenceTransformer(
                str(folder),
                device=str(pick_device(self.spec.device)),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except Exception as error:  # The library raises what its parts raise.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise WeightsError(
                f"The folder {str(folder)!r} cannot be read by sentence-transformers ({reason}); save the model there "
                "by its `save`."
            ) from None
        return model.eval()
