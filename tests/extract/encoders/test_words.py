"""Word encoders on small made tables: means of known words, an error where none is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from fsmm.errors import DecodeError, WeightsError
from fsmm.extract.encoders import build
from fsmm.extract.encoders.words import WordEncoder, split_words

WORDS = ["playing", "piano", "Karate", "don't", "karate-chop"]
VECTORS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"


def word_encoder(name: str, path: Path) -> WordEncoder:
    encoder = build(name, weights=path)
    assert isinstance(encoder, WordEncoder)
    return encoder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "mine.npz"
    np.savez(path, words=np.array(WORDS), vec=VECTORS)
    return path


def test_a_text_is_the_mean_of_its_known_words(npz: Path) -> None:
    encoder = word_encoder("glove-file", npz)
    assert encoder.dim == 7
    both, one, repeated = encoder.encode(["Playing the Piano!", "unheard PIANO", "piano piano playing"])
    np.testing.assert_allclose(both, VECTORS[:2].mean(0)[None], rtol=1e-6)
    np.testing.assert_allclose(one, VECTORS[1:2])
    np.testing.assert_allclose(repeated[0], (2 * VECTORS[1] + VECTORS[0]) / 3, rtol=1e-6)
    assert encoder.unknown_words("Playing the Grand Piano") == ["the", "grand"]


def test_capitals_in_the_file_are_found_and_apostrophes_kept(npz: Path) -> None:
    encoder = word_encoder("glove-file", npz)
    np.testing.assert_allclose(encoder.encode(["karate"])[0][0], VECTORS[2])
    np.testing.assert_allclose(encoder.encode(["Don't"])[0][0], VECTORS[3])
    assert split_words("Throw_Discus, l'été & 2x4-m") == ["throw", "discus", "l'été", "2x4", "m"]


def test_nothing_known_is_an_error_not_zeros(npz: Path) -> None:
    encoder = word_encoder("glove-file", npz)
    for text in ("", "unheard of", "?!"):
        with pytest.raises(DecodeError, match="no vector for any word"):
            encoder.encode(["piano", text])


def test_files_that_are_no_word_table_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "keys.npz", word=np.array(WORDS), vec=VECTORS)
    np.savez(tmp_path / "shape.npz", words=np.array(WORDS), vec=VECTORS[:3])
    np.savez(tmp_path / "pickled.npz", words=np.array(WORDS, object), vec=VECTORS)
    np.savez(tmp_path / "empty.npz", words=np.array([], str), vec=np.zeros((0, 7)))
    np.save(tmp_path / "array.npy", VECTORS)
    (tmp_path / "text.npz").write_text("no")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(WeightsError, match=r"must be|is not an"):
            build("glove-file", weights=path)


def test_glove_reads_vectors_and_their_index(tmp_path: Path) -> None:
    np.save(tmp_path / "glove_6B_50d_emb.npy", VECTORS)
    pq.write_table(pa.table({"index": WORDS}), tmp_path / "glove_6B_index.parquet")
    encoder = build("glove-50d", weights=tmp_path / "glove_6B_50d_emb.npy")
    np.testing.assert_allclose(encoder.encode(["playing piano"])[0][0], VECTORS[:2].mean(0), rtol=1e-6)
    (tmp_path / "glove_6B_index.parquet").unlink()
    with pytest.raises(WeightsError, match="beside it"):
        build("glove-50d", weights=tmp_path / "glove_6B_50d_emb.npy").encode(["piano"])


def test_potion_is_the_unit_mean_of_word_pieces(tmp_path: Path) -> None:
    vocabulary = {"[UNK]": 0, "piano": 1, "play": 2, "##ing": 3}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = VECTORS[:4]
    save_file({"embeddings": table}, tmp_path / "model.safetensors")
    encoder = word_encoder("potion-8m", tmp_path / "model.safetensors")
    known, part = encoder.encode(["Playing piano", "piano xyz"])
    mean = table[[2, 3, 1]].mean(0)
    np.testing.assert_allclose(known[0], mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(part[0], table[1] / np.linalg.norm(table[1]), rtol=1e-5)
    with pytest.raises(DecodeError, match="no vector for any word"):
        encoder.encode(["xyz"])
    assert encoder.unknown_words("piano xyz") == ["xyz"]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="beside it"):
        build("potion-8m", weights=tmp_path / "model.safetensors").encode(["piano"])


def test_real_vectors_put_related_class_names_together() -> None:
    path = SHARED / "data" / "wordvec" / "glove100_class_words.npz"
    if not path.is_file():
        pytest.skip("the shared word vectors are not here")
    encoder = build("glove-file", weights=path)
    piano, guitar, horse = (
        v[0] / np.linalg.norm(v) for v in encoder.encode(["playing piano", "playing guitar", "horse riding"])
    )
    assert piano @ guitar > piano @ horse
