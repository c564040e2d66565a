from __future__ import annotations

import logging
import math

import pytest
import torch
from datasets import Dataset
from small_models import sentences
from toy_training import collate

from hf_nmt import launching
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import MetricSettings, with_off_target
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.validation import Validation, ValidationResult, search_text, with_beams

METRICS = MetricSettings(names=["bleu", "chrf"], num_bootstrap_samples=0)


@pytest.fixture
def texts():
    lines = sentences(12, seed=7)
    return Dataset.from_dict({"source": lines, "target": lines})


def batches_of(tokenizer, texts, size):
    rows = [
        {"input_ids": tokenizer(source)["input_ids"], "labels": tokenizer(text_target=target)["input_ids"]}
        for source, target in zip(texts["source"], texts["target"], strict=True)
    ]
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


def token_loss(model):
    def loss(batch):
        return model(**batch, num_items_in_batch=1).loss

    return loss


def make(system, texts, size=5, metrics=METRICS, num_samples=3, **decoding):
    return Validation(
        texts, batches_of(system[1], texts, size), system[1], DecodingSettings(**decoding), metrics,
        languages=("de", "en"), num_samples=num_samples,
    )  # fmt: skip


def test_a_model_that_copies_scores_full_marks_on_copies(copy_system, texts):
    result = make(copy_system, texts).run(copy_system[0], token_loss(copy_system[0]))
    assert result.metrics["bleu"] == pytest.approx(100) and result.metrics["chrf"] == pytest.approx(100)
    assert result.translations == texts["source"][:]
    assert [sample["source"] for sample in result.samples] == [texts["source"][index] for index in (0, 4, 8)]
    assert result.samples[0].keys() == {"source", "reference", "translation"}
    assert [score.name for score in result.scores] == ["BLEU", "chrF2"]


@torch.no_grad()
def test_the_loss_is_the_mean_negative_log_probability_of_a_token(unsure_system, texts):
    model, tokenizer = unsure_system
    total = count = 0
    for text in texts["source"]:
        ids = tokenizer(text)["input_ids"]
        start = torch.tensor([[2, *ids[:-1]]])
        logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0]
        total -= logits.log_softmax(-1)[range(len(ids)), ids].sum().item()
        count += len(ids)
    result = make(unsure_system, texts).run(model, token_loss(model))
    assert result.metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)


def test_several_references_are_used(copy_system, texts):
    wrong = Dataset.from_dict(
        {
            "source": texts["source"][:],
            "target": ["nothing"] * 12,
            "references": [["nothing", text] for text in texts["source"]],
        }
    )
    assert make(copy_system, wrong).run(copy_system[0], token_loss(copy_system[0])).metrics["bleu"] > 99
    only = wrong.remove_columns("references")
    assert make(copy_system, only).run(copy_system[0], token_loss(copy_system[0])).metrics["bleu"] < 1


def test_the_mode_of_the_model_comes_back(copy_system, texts):
    model = copy_system[0].train()
    make(copy_system, texts).run(model, token_loss(model))
    assert model.training


def test_texts_are_split_into_sentences_where_it_is_asked_for(copy_system, texts):
    assert make(copy_system, texts, split_sentences=True).decoding.split_sentences is True
    default = TrainingRecipe().decoding
    assert default.split_sentences is False and default.truncate is True


@pytest.mark.parametrize("beams", [1, 3])
def test_another_number_of_beams_leaves_valid_settings(beams):
    settings = with_beams(DecodingSettings(num_beams=5, num_return_sequences=2, early_stopping=True), beams)
    assert settings.num_beams == beams
    assert DecodingSettings.model_validate(settings.model_dump()) == settings


def test_the_console_shows_one_sample_and_the_log_all(caplog, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_nmt"), "handlers", [])
    launching._log_to_stderr()
    samples = [{"source": f"s{n}", "reference": f"r{n}", "translation": f"t{n}"} for n in range(3)]
    ValidationResult({}, [], samples, []).tell_samples()
    shown = ["  source:      s0", "  reference:   r0", "  translation: t0"]
    assert capsys.readouterr().err.splitlines() == shown
    assert caplog.messages[:3] == shown and caplog.messages[8] == "  translation: t2" and len(caplog.messages) == 9


def test_no_samples_are_shown_where_none_are_wanted(copy_system, texts):
    assert make(copy_system, texts, num_samples=0).run(copy_system[0], token_loss(copy_system[0])).samples == []


@pytest.mark.parametrize(
    ("settings", "num_beams", "text"),
    [
        (DecodingSettings(num_beams=5), None, "beam 5"),
        (DecodingSettings(num_beams=5), 1, "greedy"),
        (DecodingSettings(num_beams=1), 3, "beam 3"),
        (DecodingSettings(num_beams=1, do_sample=True), None, "sampling"),
    ],
)
def test_how_translations_were_searched_for_is_told(settings, num_beams, text):
    assert search_text(settings, num_beams) == text


def test_each_pair_scores_as_it_does_alone(copy_system, texts, caplog):
    """The copying model is right for one pair, half right for another."""
    codes = ["de"] * 6 + ["xx"] * 6
    targets = [text if row < 9 else "nothing at all" for row, text in enumerate(texts["source"])]
    mixed = Dataset.from_dict({"source": texts["source"][:], "target": targets, "target_language": codes})
    mixed = mixed.select([0, 6, 7, 1, 2, 8, 9, 10, 3, 4, 11, 5])
    model = copy_system[0]
    result = make(copy_system, mixed).run(model, token_loss(model))
    assert result.translations == mixed["source"][:], "in the order of the rows"
    alone = {}
    for code in ("de", "xx"):
        rows = [row for row, own in enumerate(mixed["target_language"]) if own == code]
        alone[code] = make(copy_system, mixed.select(rows)).run(model, token_loss(model))
        for name in ("bleu", "chrf"):
            assert result.metrics[f"{name}_de-{code}"] == alone[code].metrics[name]
    for name in ("bleu", "chrf"):
        assert result.metrics[name] == pytest.approx(sum(one.metrics[name] for one in alone.values()) / 2)
    assert [(score.name, score.data.domain, score.n) for score in result.scores] == [
        ("BLEU", None, 12), ("chrF2", None, 12), ("BLEU", "de-de", 6), ("chrF2", "de-de", 6), ("BLEU", "de-xx", 6),
        ("chrF2", "de-xx", 6),
    ]  # fmt: skip
    assert result.scores[0].signature.startswith("mean:2|nrefs:1|case:mixed")
    assert [line.partition(" ")[0] for line in result.score_lines()] == ["BLEU", "de-de:", "de-xx:"]
    assert (
        "The share of translations in a wrong language is not measured. The detector does not know xx" in caplog.text
    )


def test_the_off_target_rate_is_measured_where_there_are_several_target_languages():
    pytest.importorskip("py3langid")
    several = with_off_target(METRICS, [("en", "de"), ("en", "fr")])
    assert several.names == ["bleu", "chrf", "off_target"] and several.off_target.candidates == ["en", "de", "fr"]
    assert with_off_target(METRICS, [("en", "de"), ("fr", "de")]) == METRICS
    asked = METRICS.model_copy(update={"names": ["off_target"]})
    assert with_off_target(asked, [("en", "de")]).off_target.candidates == ["en", "de"]
