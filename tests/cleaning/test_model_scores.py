"""Scores of models against what their logits give by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from steps_run import fates, run, step_of, table_of
from tiny_models import save_causal, save_encoder, save_translator
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_nmt.cleaning import model_scores, scores
from hf_nmt.cleaning.causal_model import CausalModel
from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.model_scores import cosines, cross_entropies, dual
from hf_nmt.cleaning.pipeline import NamedStep, clean, read_table, write_table
from hf_nmt.cleaning.sentence_encoders import open_encoder
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.translators import load_model, load_translator

PAIRS = [
    ("Der Hund sieht einen Ball.", "The dog sees a ball."),
    ("Die Katze malt das alte Haus.", "The cat paints the old house."),
    ("Ein Kind", "A child"),
    ("Ein Kind findet zwei \u00c4pfel im Garten.", "The dog carries the old house on the way to K\u00f6ln."),
    ("Anna", "The cat finds"),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("translators")
    backward = save_translator(folder / "backward", seed=2, languages=("en", "de"))
    return save_translator(folder / "forward", seed=1), backward


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    return save_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def by_hand(folder: Path, source: str, target: str) -> float:
    """Mean cross-entropy of a target, from the logits of the model for the labels of its tokenizer."""
    model, tokenizer = load_model(folder)
    given = tokenizer(source, return_tensors="pt")
    labels = tokenizer(text_target=target, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels).logits
    return torch.nn.functional.cross_entropy(logits[0], labels[0]).item()


def test_dual_cross_entropy_is_the_formula_of_the_paper(both):
    forward, backward = both
    _, gone = run(step_of("dual_cross_entropy", forward=str(forward), backward=str(backward), max_cross_entropy=1e-3),
                  [table_of(PAIRS)])  # fmt: skip
    assert len(gone) == len(PAIRS) and {row["reason"] for row in gone} == {"inadequate"}
    for row in gone:
        one = by_hand(forward, row["source"], row["target"])
        other = by_hand(backward, row["target"], row["source"])
        expected = abs(one - other) + (one + other) / 2
        assert float(row["detail"]) == pytest.approx(expected, abs=2e-4)
    assert len({row["detail"] for row in gone}) > 1


def test_score_by_hand():
    found = dual(np.array([0.0, 1.0, 1.0, np.nan]), np.array([0.0, 1.0, 3.0, 1.0]))
    assert found[:3].tolist() == [0, 1, 4] and np.isnan(found[3])


def test_texts_over_the_limit_have_no_score_and_stay(both, caplog):
    long = "The dog " * 90
    pairs = [*PAIRS[:2], ("Ein Hund", long), *PAIRS[2:], (long, "Ein"), (long, long)]
    translator = load_translator(both[0])
    found = cross_entropies(translator, *zip(*pairs, strict=True))
    assert np.isnan(found).nonzero()[0].tolist() == [2, 6, 7]
    alone = cross_entropies(translator, *zip(*PAIRS, strict=True))
    assert found[[0, 1, 3, 4, 5]] == pytest.approx(alone, abs=1e-5)
    step = step_of("dual_cross_entropy", forward=str(both[0]), backward=str(both[1]), max_cross_entropy=1e-3)
    assert [fates(step, pairs)[place] for place in (2, 6, 7)] == [None] * 3
    assert "3 records have no score and stay" in caplog.text


def test_another_limit_does_not_score_again(both, tmp_path, monkeypatch):
    write_table(tmp_path / "in.arrow", table_of(PAIRS))
    asked = []
    monkeypatch.setattr(model_scores, "cross_entropies", lambda *given: asked.append(1) or cross_entropies(*given))

    def dropped(**settings) -> int:
        step = step_of("dual_cross_entropy", forward=str(both[0]), backward=str(both[1]), **settings)
        named = [NamedStep("empty", step_of("empty")), NamedStep("dual", step)]
        found = clean([tmp_path / "in.arrow"], named, tmp_path / "work", identity=0, engine=LocalEngine(1))
        return sum(len(read_table(path)) for path in found.rejected)

    counts = [
        dropped(max_cross_entropy=1e-3),
        dropped(max_cross_entropy=1e9),
        dropped(keep=0.6),
        dropped(keep=0.2, max_cross_entropy=1e9),
    ]
    assert counts == [5, 0, 2, 4] and len(asked) == 2


def test_a_share_keeps_the_best_and_what_scores_like_the_last(monkeypatch, tmp_path):
    class Lengths:
        """Cosines that fall with the length of the target."""

        def encode(self, texts):
            angles = np.array([len(text) / 100 for text in texts])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    monkeypatch.setattr(model_scores, "_encoder", lambda path: Lengths())
    pairs = [("a", "b" * count) for count in (1, 5, 5, 9, 20, 2, 5, 70, 3, 4)]
    found = fates(step_of("similarity", encoder=str(tmp_path), keep=0.5), pairs)
    # The fifth best has 5 characters, and so have two more.
    assert [pairs[n][1] for n, reason in enumerate(found) if reason] == ["b" * 9, "b" * 20, "b" * 70]
    assert set(fates(step_of("similarity", encoder=str(tmp_path), keep=1.0), pairs)) == {None}
    least = float(np.round(np.cos(0.19), scores.DIGITS))
    found = fates(step_of("similarity", encoder=str(tmp_path), min_similarity=least), pairs)
    assert [reason for reason in found if reason] == ["dissimilar"]
    found = fates(step_of("similarity", encoder=str(tmp_path), min_similarity=0.99), [("a", ""), ("a", "b" * 30)])
    assert found == [None, "dissimilar"]


def test_without_a_criterion_a_step_is_refused():
    with pytest.raises(ValueError, match="nothing says what goes: give min_similarity, keep, or both"):
        step_of("similarity", encoder="in/no/place")


def test_vectors_are_averaged_over_the_tokens(encoder):
    texts = ["der hund bellt .", "a child", "", "the dog barks a child sleeps ."]
    found = open_encoder(encoder).encode(texts)
    model, tokenizer = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    for text, vector in zip(texts, found, strict=True):
        if text:
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).detach().numpy()
            assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    one, other = found[0].astype(float), found[1].astype(float)
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosines(open_encoder(encoder), [texts[0]], [texts[1]]) == pytest.approx([expected], abs=1e-4)
    assert not found[2].any() and np.isnan(cosines(open_encoder(encoder), ["", "a"], ["a", ""])).all()
    step = step_of("similarity", encoder=str(encoder), min_similarity=1.0)
    assert fates(step, [(texts[0], texts[1]), (texts[0], texts[0])]) == ["dissimilar", None]


def test_perplexity_of_a_causal_model(causal):
    texts = ["der hund bellt .", "a child sleeps", "", "hund hund . . ein", "the dog " * 40]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(causal), AutoTokenizer.from_pretrained(causal)
    found = CausalModel(causal).cross_entropies(texts)
    for text, value in zip(texts, found, strict=True):
        ids = torch.tensor([[1, *tokenizer(text)["input_ids"], 2][:32]])
        if text:
            assert value == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), abs=1e-5)
    assert np.isnan(found[2])
    step = step_of("perplexity", model=str(causal), side="source", max_perplexity=1.01)
    _, gone = run(step, [table_of([(texts[0], "x"), ("", "x")])])
    assert [row["reason"] for row in gone] == ["source_perplexity"]
    assert float(gone[0]["detail"]) == pytest.approx(math.exp(found[0]), abs=1e-2)


@pytest.mark.parametrize("open_model", [CausalModel, open_encoder])
def test_no_model_there(open_model, tmp_path):
    with pytest.raises(DataError, match="there is no folder of a model here"):
        open_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="with a tokenizer"):
        open_model(tmp_path)


def test_a_model_of_other_languages_is_refused(both):
    step = step_of("dual_cross_entropy", forward=str(both[0]), backward=str(both[1]), keep=1.0)
    with pytest.raises(ConfigError, match="fr"):
        run(step, [table_of(PAIRS, ("fr", "en"))])
