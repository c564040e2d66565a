"""The metrics as `evaluate` uses them; no network."""

from __future__ import annotations

import evaluate
import pytest
import sacrebleu

from hf_nmt.errors import ConfigError
from hf_nmt.metrics import Bleu, Chrf, Ter


@pytest.fixture
def first(references):
    return [row[0] for row in references]


def test_compute_equals_sacrebleu(good, first, tmp_path):
    bleu = Bleu(cache_dir=str(tmp_path)).compute(predictions=good, references=first)
    expected = sacrebleu.corpus_bleu(good, [first])
    assert (bleu["score"], bleu["counts"], bleu["precisions"]) == (
        expected.score,
        expected.counts,
        expected.precisions,
    )
    assert (bleu["bp"], bleu["sys_len"], bleu["ref_len"]) == (expected.bp, expected.sys_len, expected.ref_len)
    assert bleu["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a") and bleu["interval"] is None
    chrf = Chrf(cache_dir=str(tmp_path)).compute(predictions=good, references=first, word_order=2)
    assert chrf["score"] == sacrebleu.corpus_chrf(good, [first], word_order=2).score and chrf["word_order"] == 2
    ter = Ter(cache_dir=str(tmp_path)).compute(predictions=good, references=first)
    expected = sacrebleu.corpus_ter(good, [first])
    assert (ter["score"], ter["num_edits"]) == (expected.score, expected.num_edits)


def test_batches_and_several_references(good, references, tmp_path):
    whole = Bleu(cache_dir=str(tmp_path)).compute(predictions=good, references=references, lowercase=True)
    batched = Bleu(cache_dir=str(tmp_path))
    for start in range(0, 40, 16):
        batched.add_batch(predictions=good[start : start + 16], references=references[start : start + 16])
    assert batched.compute(lowercase=True) == whole
    assert "nrefs:var" in whole["signature"] and "case:lc" in whole["signature"]
    single = Chrf(cache_dir=str(tmp_path), keep_in_memory=True)
    for prediction, row in zip(good, references, strict=True):
        single.add(predictions=prediction, references=row)
    assert single.compute() == Chrf(cache_dir=str(tmp_path)).compute(predictions=good, references=references)


def test_combine_prefixes_the_keys(good, first, tmp_path):
    combined = evaluate.combine({"cased": Bleu(cache_dir=str(tmp_path)), "chrf": Chrf(cache_dir=str(tmp_path))})
    result = combined.compute(predictions=good, references=first)
    assert result["cased_score"] == sacrebleu.corpus_bleu(good, [first]).score
    assert result["chrf_score"] == sacrebleu.corpus_chrf(good, [first]).score


def test_options_reach_the_score(good, first, tmp_path):
    bleu = Bleu(cache_dir=str(tmp_path), keep_in_memory=True)
    plain = bleu.compute(predictions=good, references=first)
    assert bleu.compute(predictions=good, references=first, tokenize="char")["score"] != plain["score"]
    low, high = bleu.compute(predictions=good, references=first, num_bootstrap_samples=100, confidence=0.9)["interval"]
    assert low < plain["score"] < high
    ter = Ter(cache_dir=str(tmp_path), keep_in_memory=True)
    shouted = [line.upper() for line in first]
    assert ter.compute(predictions=shouted, references=first)["score"] == 0
    assert ter.compute(predictions=shouted, references=first, case_sensitive=True)["score"] > 80
    chrf = Chrf(cache_dir=str(tmp_path), keep_in_memory=True)
    assert chrf.compute(predictions=shouted, references=first, lowercase=True)["score"] == pytest.approx(100)


def test_13a_is_refused_for_korean(tmp_path):
    bleu = Bleu(cache_dir=str(tmp_path), keep_in_memory=True)
    with pytest.raises(ConfigError, match="13a cannot score target language 'ko'"):
        bleu.compute(predictions=["오늘"], references=["오늘"], tokenize="13a")
