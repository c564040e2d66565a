from __future__ import annotations

import json

import pytest

from hf_nmt.errors import DataError
from hf_nmt.metrics import Score, ScoredData, ScoredSystem, compute_scores, dump_scores, load_scores, score_table

SCORE = Score(
    name="BLEU",
    value=41.25,
    unit="points of 100",
    signature="nrefs:1|case:mixed|tok:13a",
    n=1000,
    interval=(40.0, 42.5),
    data=ScoredData(id="multi30k", hash="ab12", split="test", domain="news"),
    system=ScoredSystem(hash="cd34", decoding={"num_beams": 5}),
    segments="segments.jsonl",
)


def test_the_record_has_the_agreed_keys():
    (record,) = dump_scores([SCORE])
    assert list(record) == ["name", "value", "unit", "signature", "n", "interval", "data", "system", "segments"]
    assert list(record["data"]) == ["id", "hash", "split", "domain"]
    assert list(record["system"]) == ["hash", "decoding"]


def test_json_round_trip(good, references, tmp_path):
    scores = [SCORE, *compute_scores(good, references, target_language="en")]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(dump_scores(scores)))
    assert load_scores(path) == scores


def test_what_is_not_a_list_of_records_is_refused(tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(DataError, match="scores.json: cannot read"):
        load_scores(path)
    path.write_text("[{}]")
    with pytest.raises(DataError, match="not a list of score records: 0.name"):
        load_scores(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not a list of score records: the file"):
        load_scores(path)


def test_table_for_the_terminal():
    other = SCORE.model_copy(update={"name": "TER", "value": 7.0, "interval": None, "data": ScoredData(domain="뉴스")})
    lines = score_table([SCORE, other], confidence=0.95).splitlines()
    assert lines[0] == "metric  domain  score    95% interval  segments"
    assert lines[1] == "BLEU    news    41.25  40.00 to 42.50      1000"
    assert lines[2] == "TER     뉴스     7.00               -      1000"  # wide characters take two columns
    assert lines[4:] == ["BLEU|nrefs:1|case:mixed|tok:13a", "TER|nrefs:1|case:mixed|tok:13a"]


def test_table_in_markdown():
    scores = [SCORE.model_copy(update={"data": ScoredData()})]
    lines = score_table(scores, confidence=0.995, markdown=True).splitlines()
    assert lines[0] == "| metric | score | 99.5% interval | segments |"
    assert lines[1] == "| ------ | ----: | -------------: | -------: |"
    assert lines[2] == "| BLEU   | 41.25 | 40.00 to 42.50 |     1000 |"
    assert lines[4] == "- `BLEU|nrefs:1|case:mixed|tok:13a`"
