"""``FewShotClassifier`` keeps scikit-learn's conventions, takes steps and modalities, and serves several threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from classifier_support import NAMES, gaussian
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from tests_support import synthetic_cache

import fsmm
from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.stream import StreamWriter
from fsmm.errors import FsmmError, UsageError
from fsmm.extract import own_words
from fsmm.runs.estimator import FewShotClassifier
from fsmm.runs.few_examples.examples import Examples
from fsmm.runs.few_examples.model_folder import open_model, save_model

# Each check of scikit-learn that does not pass, and why.
NOT_PASSED: dict[str, str] = {}
NOT_RUN = {"check_array_api_input": "it runs where SCIPY_ARRAY_API is set"}


def test_the_checks_of_scikit_learn_pass() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(FewShotClassifier("protonet"), on_fail=None, on_skip=None)
    assert {row["check_name"] for row in found if row["status"] == "failed"} == set(NOT_PASSED)
    assert {row["check_name"] for row in found if row["status"] == "skipped"} <= set(NOT_RUN)


def test_it_is_a_public_name_that_costs_nothing_until_it_is_used() -> None:
    assert fsmm.FewShotClassifier is FewShotClassifier
    script = "import sys, fsmm; dir(fsmm); print('torch' in sys.modules or 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_clones_pipelines_and_cross_validation() -> None:
    features, label = gaussian(6, gap=8.0)
    x = features["frame"]
    one = FewShotClassifier("ridge", normalise="none")
    assert clone(one).get_params() == one.get_params()
    assert cross_val_score(make_pipeline(StandardScaler(), one), x, label, cv=3).mean() > 0.9
    both = Examples.of(features)
    assert cross_val_score(FewShotClassifier("protonet", fusion="lf"), both, label, cv=3).mean() > 0.9


def test_steps_and_modalities_are_taken_and_a_missing_modality_is_made_up_for() -> None:
    features, label = gaussian(5, steps=4)
    names = np.array(NAMES)[label]
    fitted = FewShotClassifier("otam").fit(features, names)
    fresh, truth = gaussian(10, steps=4, seed=1)
    assert (fitted.predict(fresh) == np.array(NAMES)[truth]).mean() > 0.9
    assert (fitted.predict({"frame": fresh["frame"]}) == np.array(NAMES)[truth]).mean() > 0.8
    longer = np.repeat(fresh["frame"], 3, axis=1)
    assert (fitted.predict({"frame": longer}) == np.array(NAMES)[truth]).mean() > 0.8
    alone = FewShotClassifier("otam").fit(features["frame"], names)
    assert alone.n_features_in_ == 8
    assert alone.predict_proba(fresh["frame"]).shape == (30, 3)


def test_auto_prefers_the_modality_that_tells_the_classes_apart() -> None:
    features, label = gaussian(8)
    noise = np.random.default_rng(5).normal(size=features["frame"].shape) * 3
    fitted = FewShotClassifier().fit({"noise": noise, "audio": features["audio"]}, label)
    report = fitted.report_
    assert "noise" not in report["head"]
    assert report["selection"]["accuracy"] > 0.8
    assert len(report["selection"]["candidates"]) > 10


def test_sets_and_unknown_clips() -> None:
    features, label = gaussian(10)
    fitted = FewShotClassifier("protonet", fusion="lf").fit(features, np.array(NAMES)[label])
    fresh, truth = gaussian(30, seed=2)
    held = [NAMES[t] in found for t, found in zip(truth, fitted.predict_sets(fresh, 0.1))]
    assert np.mean(held) > 0.83
    strange = {m: -x for m, x in fresh.items()}
    assert fitted.predict_unknown(strange, 0.1).mean() > 0.9
    assert fitted.predict_unknown(fresh, 0.1).mean() < 0.25
    with pytest.raises(UsageError, match="need 99 calibration clips and there are 30"):
        fitted.predict_sets(fresh, 0.01)


@pytest.mark.parametrize(
    ("y", "message"), [([0, 0, 0], "1 class"), ([0, 1], "3 clips and 2 classes"), (None, "requires y")]
)
def test_wrong_examples_are_value_errors_of_one_sentence(y: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotClassifier("protonet").fit({"frame": np.ones((3, 4))}, y)


def test_one_example_a_class_tells_nothing_and_still_decides() -> None:
    features, label = gaussian(1)
    fitted = FewShotClassifier().fit(features, label)
    assert fitted.report_["selection"]["accuracy"] is None
    assert fitted.predict(features).tolist() == [0, 1, 2]


def test_clips_of_other_modalities_or_widths_are_refused() -> None:
    features, label = gaussian(3)
    fitted = FewShotClassifier("protonet").fit(features, label)
    with pytest.raises(UsageError, match="fitted on frame, audio; give a mapping"):
        fitted.predict(features["frame"])
    with pytest.raises(ValueError, match="width 5"):
        fitted.predict({"frame": np.ones((2, 5))})
    with pytest.raises(ValueError, match="have depth"):
        fitted.predict({"depth": np.ones((2, 5))})
    with pytest.raises(UsageError, match="fitted on arrays"):
        fitted.predict(["a.mp4"])


def test_several_threads_get_what_one_gets() -> None:
    features, label = gaussian(5, steps=3)
    fresh, _ = gaussian(20, steps=3, seed=1)
    for method in ("otam", "linear-probe"):
        fitted = FewShotClassifier(method).fit(features, label)
        alone = fitted.predict_proba(fresh)
        found: dict[int, np.ndarray] = {}

        def ask(
            number: int, fitted: FewShotClassifier = fitted, found: dict[int, np.ndarray] = found
        ) -> None:
            for _ in range(3):
                found[number] = fitted.predict_proba({m: x[number : number + 15] for m, x in fresh.items()})

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, p in found.items():
            np.testing.assert_allclose(p, alone[number : number + 15], atol=2e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose data set ``toy`` has the modalities and widths of the examples."""
    root = tmp_path_factory.mktemp("base")
    return synthetic_cache(root, clips=20, streams={"frame/net": (1, 8), "audio/net": (1, 6)}) / "toy"


def test_a_base_set_is_learned_from_and_kept_in_the_model(base: Path, tmp_path: Path) -> None:
    features, label = gaussian(4)
    names = np.array(NAMES)[label]
    for method, settings in (("simpleshot", {}), ("feat", {"train.steps": "3"})):
        fitted = FewShotClassifier(method, base=base, settings=settings).fit(features, names)
        fitted.save(tmp_path / method)
        again = FewShotClassifier.open(tmp_path / method)
        np.testing.assert_allclose(again.predict_proba(features), fitted.predict_proba(features), atol=1e-5)
        assert fitted.report_["unknown"]["area"] > 0.5
    with pytest.raises(UsageError, match="name a base set"):
        FewShotClassifier("simpleshot").fit(features, names)
    with pytest.raises(UsageError, match="learns from base classes; name a base set"):
        FewShotClassifier("protonet", settings={"embed": "4"}).fit(features, names)
    with pytest.raises(UsageError, match="is no data set of a cache"):
        FewShotClassifier("simpleshot", base=tmp_path / "nowhere").fit(features, names)


def words_of_means(encoder: str, class_names: list[str], *, device: str) -> tuple[StreamName, np.ndarray]:
    """Vectors of class names that point where the frames of ``gaussian`` lie."""
    assert device == "auto"
    rows = [NAMES.index(name) for name in class_names]
    return StreamName("word", encoder), np.eye(len(NAMES), 8, dtype=np.float32)[rows]


@pytest.mark.parametrize("method", ["frozen-space", "tip-adapter", "clap"])
def test_class_names_in_the_space_of_the_features_are_half_of_a_classifier(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_words, "word_vectors", words_of_means)
    features, label = gaussian(2, gap=2.0)
    fresh, truth = gaussian(40, gap=2.0, seed=1)
    names = np.array(NAMES)[label]
    fitted = FewShotClassifier(method, words="tower").fit(features["frame"], names)
    # The true means are the best direction that there is, and two noisy examples a class are not.
    alone = FewShotClassifier("protonet").fit(features["frame"], names)
    right = np.array(NAMES)[truth]
    assert (fitted.predict(fresh["frame"]) == right).mean() > (
        alone.predict(fresh["frame"]) == right
    ).mean() + 0.05
    assert fitted.report_["words"] == "word/tower"
    fitted.save(tmp_path / "model")
    again = FewShotClassifier.open(tmp_path / "model")
    np.testing.assert_allclose(
        again.predict_proba(fresh["frame"]), fitted.predict_proba(fresh["frame"]), atol=1e-5
    )


def test_class_names_of_another_space_are_mapped_by_the_base_set_that_has_such_words(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, label = gaussian(3)
    names = np.array(NAMES)[label]

    def of_width(encoder: str, class_names: list[str], *, device: str) -> tuple[StreamName, np.ndarray]:
        draws = np.random.default_rng(len(encoder) + len(device))
        return StreamName("word", encoder), draws.normal(size=(len(class_names), 10)).astype(np.float32)

    monkeypatch.setattr(own_words, "word_vectors", of_width)
    with pytest.raises(UsageError, match="must be mapped, which is learned on base classes"):
        FewShotClassifier("tip-adapter", words="glove").fit(features["frame"], names)
    with pytest.raises(UsageError, match="Unknown stream of dataset 'toy' 'word/glove'"):
        FewShotClassifier("tip-adapter", words="glove", base=base).fit({"frame": features["frame"]}, names)
    provenance = Provenance("glove", "word", 10, axis="class", dtype="float32")
    with StreamWriter(base, provenance) as writer:
        for i in range(18):
            writer.add(f"event/class {i}", np.random.default_rng(i).normal(size=(1, 10)).astype(np.float32))
    fitted = FewShotClassifier("tip-adapter", words="glove", base=base).fit(
        {"frame": features["frame"]}, names
    )
    assert (fitted.predict({"frame": features["frame"]}) == names).mean() > 0.9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "tip-adapter"}, "no stream of the examples has a text tower"),
        ({"method": "protonet", "words": "potion-8m"}, "reads no class words; leave out --words"),
        ({"words": "potion-8m"}, "name a method with --words"),
        ({"method": "tip-adapter", "words": "potion"}, "Did you mean 'potion-8m'"),
        ({"method": "tip-adapter", "words": "yamnet"}, "makes 'audio' streams"),
    ],
)
def test_class_names_that_cannot_be_used_are_one_sentence(given: dict[str, str], message: str) -> None:
    features, label = gaussian(3)
    with pytest.raises(UsageError, match=message):
        FewShotClassifier(**given).fit(features["frame"], np.array(NAMES)[label])


def test_two_who_extend_one_model_do_not_lose_each_others_examples(tmp_path: Path) -> None:
    features, label = gaussian(3)
    names = np.array(NAMES)[label]
    FewShotClassifier("protonet").fit(features, names).save(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    one, other = (FewShotClassifier.open(tmp_path / "model") for _ in range(2))
    one.save(tmp_path / "model", replace=True, unchanged=True)
    again = FewShotClassifier("nearest").fit(features, names)
    again.save(tmp_path / "model", replace=True)
    with pytest.raises(FsmmError, match=r"changed the model .* meanwhile"):
        other.save(tmp_path / "model", replace=True, unchanged=True)
    held = FewShotClassifier.open(tmp_path / "model").classifier_
    assert held.fitted.choice.method == "nearest"
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_writer_who_is_killed_while_it_replaces_a_model_leaves_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, label = gaussian(3)
    fitted = FewShotClassifier("protonet").fit(features, np.array(NAMES)[label])
    fitted.save(tmp_path / "model")
    moved = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return moved(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            fitted.save(tmp_path / "model", replace=True)
    assert not (tmp_path / "model").exists()
    assert FewShotClassifier.open(tmp_path / "model").classes_.tolist() == list(NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_decides_elsewhere_as_it_does_here_and_shows_damage(tmp_path: Path) -> None:
    features, label = gaussian(4, steps=3)
    fitted = FewShotClassifier("linear-probe").fit(features, np.array(NAMES)[label])
    folder = tmp_path / "model"
    fitted.save(folder)
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".json", ".safetensors", ".safetensors"]
    np.testing.assert_allclose(
        FewShotClassifier.open(folder).predict_proba(features), fitted.predict_proba(features), atol=1e-5
    )
    with pytest.raises(UsageError, match="There is a model at"):
        fitted.save(folder)
    fitted.save(folder, replace=True)
    about = (folder / "model.json").read_text()
    (folder / "model.json").write_text(about.replace("jump", "leap"))
    with pytest.raises(FsmmError, match=r"model\.json changed"):
        open_model(folder)
    (folder / "model.json").write_text(about)
    (folder / "head.safetensors").unlink()
    with pytest.raises(FsmmError, match=r"lacks its file head\.safetensors"):
        open_model(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no model"):
        save_model(fitted.classifier_, tmp_path / "other", replace=True)
