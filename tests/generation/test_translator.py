"""The translator against `generate` itself, one text at a time, and against sums of log-probabilities."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import math
import weakref

import pytest
import torch
import transformers
from small_models import sentences

from hf_nmt.errors import ConfigError
from hf_nmt.generation import hub
from hf_nmt.generation.decoding import DecodingSettings, model_decoding
from hf_nmt.generation.inputs import windows
from hf_nmt.generation.translator import SourceError, TorchTranslator
from hf_nmt.models.decoding_nmt import halved
from hf_nmt.protocols import Scorer, Translator

TEXTS = sentences(40, seed=9)


def translate(system, texts=TEXTS, *, target_language=None, prefixes=None, **settings):
    translator = TorchTranslator(*system)
    found = translator.translate(
        texts, DecodingSettings(**settings), target_language=target_language, prefixes=prefixes
    )
    return list(found)


def texts_of(n_bests):
    return [[one.text for one in n_best] for n_best in n_bests]


def log_probabilities(model, tokenizer, source, ids):
    """Of each target id, from the whole logits of one sentence: the plain second implementation."""
    with torch.no_grad():
        decoder_ids = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]])
        logits = model(**tokenizer(source, return_tensors="pt"), decoder_input_ids=decoder_ids).logits[0]
    return [logits[i].log_softmax(-1)[token].item() for i, token in enumerate(ids)]


def test_it_is_a_translator_and_a_scorer(copy_system):
    translator = TorchTranslator(*copy_system)
    assert isinstance(translator, Translator) and isinstance(translator, Scorer)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_batch_gives_what_each_text_gives_alone(unsure_system, num_beams):
    together = translate(unsure_system, num_beams=num_beams, num_return_sequences=num_beams)
    alone = [
        translate(unsure_system, [text], num_beams=num_beams, num_return_sequences=num_beams)[0] for text in TEXTS
    ]
    assert texts_of(together) == texts_of(alone)
    assert len({n_best[0].text for n_best in together}) > 30
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_a_length_limit_is_that_of_the_sentence_and_not_of_its_batch(unsure_system):
    model, tokenizer = unsure_system
    model.generation_config.eos_token_id = 0  # never produced: every translation runs to its limit
    n_bests = translate((model, tokenizer), num_beams=3, max_length_ratio=1.5, max_length_extra=2)
    for text, (best,) in zip(TEXTS, n_bests, strict=True):
        assert len(best.tokens) == int(1.5 * len(tokenizer(text)["input_ids"]) + 2)
        assert best.finish_reason == "length"
        assert len(best.token_scores) == len(best.tokens)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_scores_and_order_are_those_of_beam_search(unsure_system, length_penalty):
    model, tokenizer = unsure_system
    for text in TEXTS[:8]:
        inputs = tokenizer(text, return_tensors="pt")
        expected = model.generate(
            **inputs, num_beams=4, num_return_sequences=4, length_penalty=length_penalty, output_scores=True,
            max_length=2 * inputs["input_ids"].shape[1] + 21, return_dict_in_generate=True,
        )  # fmt: skip
        (found,) = translate(unsure_system, [text], num_beams=4, num_return_sequences=4, length_penalty=length_penalty)
        assert [one.text for one in found] == tokenizer.batch_decode(expected.sequences, skip_special_tokens=True)
        assert [one.score for one in found] == pytest.approx(expected.sequences_scores.tolist(), abs=5e-5)
        steps = model.compute_transition_scores(expected.sequences, expected.scores, expected.beam_indices)
        for one, row in zip(found, steps, strict=True):
            assert one.token_scores == pytest.approx(row[: len(one.token_scores)].tolist(), abs=5e-5)


def test_tokens_scores_and_finish_reason_describe_the_text(unsure_system):
    model, tokenizer = unsure_system
    for index, (best,) in enumerate(translate(unsure_system, num_beams=1)):
        assert best.finish_reason == "eos" and best.source_index == index
        ids = tokenizer.convert_tokens_to_ids(best.tokens)
        assert ids[-1] == model.config.eos_token_id and tokenizer.decode(ids, skip_special_tokens=True) == best.text
        expected = log_probabilities(model, tokenizer, TEXTS[index], ids)
        assert best.token_scores == pytest.approx(expected, abs=1e-5)
        assert best.score == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_forced_scores_are_the_models_log_probabilities(unsure_system):
    model, tokenizer = unsure_system
    targets = sentences(40, seed=10)
    scores = list(TorchTranslator(*unsure_system).score(iter(TEXTS), iter(targets)))
    assert len(scores) == 40
    for source, target, row in zip(TEXTS, targets, scores, strict=True):
        ids = tokenizer(text_target=target)["input_ids"]
        assert row == pytest.approx(log_probabilities(model, tokenizer, source, ids), abs=1e-5)


def test_scoring_and_translating_agree(unsure_system):
    translator = TorchTranslator(*unsure_system)
    found = [n_best[0] for n_best in translator.translate(TEXTS)]
    scores = list(translator.score(TEXTS, [one.text for one in found]))
    for one, row in zip(found, scores, strict=True):
        assert row == pytest.approx(one.token_scores, abs=1e-5)


def test_scores_may_be_left_out(unsure_system):
    quick, full = (TorchTranslator(*unsure_system, with_scores=scored) for scored in (False, True))
    found, expected = list(quick.translate([*TEXTS, "", TEXTS[0] + "\n" + TEXTS[1]])), list(full.translate(TEXTS))
    assert texts_of(found[: len(TEXTS)]) == texts_of(expected)
    assert all(math.isnan(n_best[0].score) and not n_best[0].token_scores for n_best in found[: len(TEXTS)])
    assert [n_best[0].tokens for n_best in found[: len(TEXTS)]] == [n_best[0].tokens for n_best in expected]
    assert found[-2][0].score == 0.0 and math.isnan(found[-1][0].score)
    settings = DecodingSettings(num_return_sequences=2)
    assert list(quick.translate(TEXTS, settings)) == list(full.translate(TEXTS, settings))


def test_identical_sentences_are_decoded_once(copy_system):
    translator = TorchTranslator(*copy_system)
    found = list(translator.translate(["balo delo. kalo.", "kalo.", "balo delo.", "kalo. kalo."]))
    assert texts_of(found) == [["balo delo. kalo."], ["kalo."], ["balo delo."], ["kalo. kalo."]]
    assert translator.statistics.sentences == 6
    assert translator.statistics.decoded_sentences == 2
    assert translator.statistics.texts == 4


def test_windows_grow_to_the_largest():
    assert [len(window) for window in windows(range(100), 32, 4)] == [4, 8, 16, 32, 32, 8]
    assert [len(window) for window in windows(range(10), 4)] == [4, 4, 2]


def test_the_input_is_read_window_by_window(copy_system):
    read = []

    def texts():
        for index in itertools.count():
            read.append(index)
            yield "balo."

    found = TorchTranslator(*copy_system).translate(texts(), DecodingSettings(window_size=5, num_beams=1))
    assert read == []
    assert [next(found)[0].source_index for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(read) == 5
    assert next(found)[0].source_index == 5
    assert len(read) == 10


def test_batches_hold_at_most_the_tokens_asked_for(copy_system, monkeypatch):
    model, tokenizer = copy_system
    shapes, encoder_forward = [], model.model.encoder.forward

    def forward(input_ids=None, **kwargs):
        shapes.append(tuple(input_ids.shape))
        return encoder_forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.model.encoder, "forward", forward)
    few = translate(copy_system, num_beams=2, batch_tokens=60)
    assert len(shapes) > 5
    assert all(2 * rows * length <= 60 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == len(set(TEXTS))
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)
    shapes.clear()
    assert texts_of(translate(copy_system, num_beams=2)) == texts_of(few)
    assert len(shapes) == 1


def test_progress_is_told_batch_by_batch_within_a_window(copy_system):
    translator, told = TorchTranslator(*copy_system), []
    translator.on_progress = told.append
    list(translator.translate(TEXTS, DecodingSettings(num_beams=2, batch_tokens=60, window_size=30)))
    assert len(told) > 6 and told == sorted(told) and told[-1] == pytest.approx(len(TEXTS))
    assert pytest.approx(30) in told and 0 < told[0] < 15


def test_a_batch_that_does_not_fit_into_memory_is_halved(copy_system, monkeypatch):
    model, _ = copy_system
    expected, generate, sizes = texts_of(translate(copy_system)), model.generate, []

    def limited(input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids, **kwargs)

    monkeypatch.setattr(model, "generate", limited)
    assert texts_of(translate(copy_system)) == expected
    assert sizes[0] == len(set(TEXTS)) and min(sizes) <= 12


def test_scoring_that_does_not_fit_into_memory_is_halved(unsure_system, monkeypatch):
    model, tokenizer = unsure_system
    expected, forward, sizes = translate(unsure_system), model.forward, []
    targets = [best.text for best, *_ in expected]
    forced = list(TorchTranslator(model, tokenizer).score(TEXTS, targets))

    @functools.wraps(forward)  # `generate` looks at its parameters
    def limited(*arguments, **kwargs):
        if kwargs.get("use_cache") is False:  # not a step of the search
            sizes.append(len(kwargs["decoder_input_ids"]))
            if sizes[-1] > 7:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*arguments, **kwargs)

    monkeypatch.setattr(model, "forward", limited)
    for one, other in zip(translate(unsure_system), expected, strict=True):
        assert texts_of([one]) == texts_of([other])
        for translation, known in zip(one, other, strict=True):
            assert translation.token_scores == pytest.approx(known.token_scores, abs=1e-5)
    assert max(sizes) > 7 and min(sizes) <= 7
    sizes.clear()
    for row, known in zip(TorchTranslator(model, tokenizer).score(TEXTS, targets), forced, strict=True):
        assert row == pytest.approx(known, abs=1e-5)
    assert max(sizes) > 7 and min(sizes) <= 7


def test_memory_of_a_failed_attempt_is_free_before_the_next():
    attempts, left = [], []

    def run(items):
        left.append(sum(attempt() is not None for attempt in attempts))
        held = torch.zeros(len(items))
        attempts.append(weakref.ref(held))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return items

    gc.disable()
    try:
        assert list(halved(run, [1, 2, 3, 4, 5])) == [[1, 2], [3], [4, 5]]
    finally:
        gc.enable()
    assert left == [0] * 5
    with pytest.raises(torch.OutOfMemoryError):
        list(halved(lambda items: run([*items, 0, 0]), [1, 2]))


def test_the_model_is_in_training_mode_again(copy_system):
    model, _ = copy_system
    model.train()
    translate(copy_system, TEXTS[:3])
    assert model.training and model.model.decoder.training


def test_a_prefix_opens_the_translation_and_is_not_scored(unsure_system):
    prefixes = [" ".join(text.split()[:1]).rstrip(",.?") if i % 2 else "" for i, text in enumerate(TEXTS)]
    prefixes[1] = "talo telo"
    plain = translate(unsure_system)
    opened = translate(unsure_system, prefixes=prefixes)
    for prefix, (one,), (free,) in zip(prefixes, opened, plain, strict=True):
        assert one.text.startswith(prefix)
        assert prefix or (one.tokens == free.tokens and one.score == pytest.approx(free.score, abs=1e-5))
        searched = one.token_scores[len(prefix.split()) :]
        assert one.score == pytest.approx(sum(searched) / len(searched), abs=1e-5)
        assert len(one.token_scores) == len(one.tokens)
    assert texts_of(opened) != texts_of(plain)


# Long input


def test_no_sentence_of_a_long_text_is_lost(copy_system):
    kept = [text for text, (one,) in zip(TEXTS, translate(copy_system), strict=True) if one.text == text]
    gaps = itertools.cycle([" ", "  ", "\n", "\n\n", "\r\n"])
    paragraph = "".join(part for text in kept[:30] for part in (text, next(gaps)))
    assert len(kept) >= 30
    ((whole,),) = translate(copy_system, [paragraph])
    assert whole.text == paragraph
    assert whole.tokens.count("</s>") == 30 and len(whole.token_scores) == len(whole.tokens)
    parts = translate(copy_system, kept[:30])
    assert whole.tokens == [token for (part,) in parts for token in part.tokens]
    assert whole.score == pytest.approx(sum(part.score for (part,) in parts) / 30)


def test_the_n_best_list_of_a_text_holds_the_best_combinations(unsure_system):
    first, second = TEXTS[0], TEXTS[1]
    lists = translate(unsure_system, [first, second], num_return_sequences=4)
    ((*joined,),) = [translate(unsure_system, [f"{first} {second}"], num_return_sequences=4)[0]]
    pairs = sorted(itertools.product(*lists), key=lambda pair: -(pair[0].score + pair[1].score))
    assert [one.text for one in joined] == [f"{a.text} {b.text}" for a, b in pairs[:4]]
    assert [one.score for one in joined] == pytest.approx([(a.score + b.score) / 2 for a, b in pairs[:4]])


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_n_best_lists_of_texts_are_best_first_and_open_with_the_text_that_comes_alone(unsure_system, length_penalty):
    texts = [" ".join(TEXTS[i : i + 3]) for i in range(0, 36, 3)]
    n_bests = translate(unsure_system, texts, num_return_sequences=5, length_penalty=length_penalty)
    assert len({len(one.tokens) for n_best in n_bests for one in n_best}) > 5
    for n_best, (alone,) in zip(n_bests, translate(unsure_system, texts, length_penalty=length_penalty), strict=True):
        assert [one.score for one in n_best] == sorted((one.score for one in n_best), reverse=True)
        assert (n_best[0].text, n_best[0].score) == (alone.text, pytest.approx(alone.score, abs=1e-5))


def test_empty_texts_stay_as_they_are(copy_system):
    texts = ["", "balo.", "  ", "\n"]
    assert texts_of(translate(copy_system, texts, num_return_sequences=2))[::2] == [[""], ["  "]]
    assert [n_best[0].text for n_best in translate(copy_system, texts)] == texts
    assert translate(copy_system, [""])[0][0].score == 0.0
    assert translate(copy_system, []) == []


LONG = "balo delo kalo felo, " * 15 + "balo."  # 78 tokens, the model takes 40


def test_a_sentence_over_the_limit_is_cut_and_that_is_told(copy_system, caplog):
    translator = TorchTranslator(*copy_system)
    with caplog.at_level(logging.WARNING):
        list(translator.translate([LONG]))
    assert "Text 1: a sentence over the limit of 40 tokens was cut into parts." in caplog.text
    assert translator.statistics.cut_sentences > 0 and translator.statistics.truncated_sentences == 0


def test_truncation_happens_on_request_only_and_is_told(copy_system, caplog):
    translator = TorchTranslator(*copy_system)
    with caplog.at_level(logging.WARNING):
        list(translator.translate([LONG], DecodingSettings(truncate=True)))
    assert "Text 1: a sentence over the limit of 40 tokens was truncated." in caplog.text
    assert translator.statistics.truncated_sentences == 1
    assert "1 TRUNCATED" in translator.statistics.summary()


def test_a_text_that_may_not_be_split_is_refused_by_its_number(copy_system):
    with pytest.raises(
        SourceError, match=r"Text 3: 78 tokens were given, the limit is 40: 'balo delo kalo felo, .*split"
    ):
        translate(copy_system, ["balo.", "delo.", LONG], split_sentences=False)
    with pytest.raises(SourceError, match="Text 6: a target of 78 tokens; the model takes 39"):
        list(TorchTranslator(*copy_system).score(["balo."] * 6, ["balo."] * 5 + [LONG]))
    with pytest.raises(SourceError, match="Text 2: a source must be a string, not dict"):
        translate(copy_system, ["balo.", {"delo": "balo."}])


# Settings: each key changes something

SAMPLING = {"do_sample": True, "num_beams": 1}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({"num_beams": 1}, {"num_beams": 5}),
        ({}, {"num_return_sequences": 2}),
        ({}, {"length_penalty": 3.0}),
        ({"num_return_sequences": 5}, {"early_stopping": True}),
        ({"num_return_sequences": 5, "length_penalty": 2.0}, {"early_stopping": "never"}),
        ({}, {"max_length_ratio": 0.0, "max_length_extra": 3}),
        ({"max_length_ratio": 0.5}, {"max_length_extra": 0}),
        ({}, {"max_target_length": 3}),
        ({}, {"max_source_length": 8}),
        ({}, {"no_repeat_ngram_size": 1}),
        ({"num_beams": 1}, {"do_sample": True}),
        (SAMPLING, {"temperature": 0.3}),
        (SAMPLING, {"top_k": 2}),
        (SAMPLING, {"top_p": 0.3}),
        (SAMPLING, {"seed": 1}),
        ({}, {"split_sentences": False}),
        ({"max_source_length": 8}, {"truncate": True}),
    ],
    ids=lambda value: next(reversed(value), "defaults"),
)
def test_every_key_changes_the_translations(unsure_system, base, change):
    texts = [f"{a} {b}" for a, b in zip(TEXTS[::2], TEXTS[1::2], strict=True)] + sentences(40, seed=11)
    before, again = (translate(unsure_system, texts, **base) for _ in range(2))
    assert before == again
    assert texts_of(translate(unsure_system, texts, **base | change)) != texts_of(before)


def test_the_list_above_is_whole():
    """The keys that it leaves out change the batches and windows, which tests above look at."""
    listed = set(DecodingSettings.model_fields) - {"batch_tokens", "window_size"}
    marks = test_every_key_changes_the_translations.pytestmark[0].args[1]
    assert {key for _, change in marks for key in change} == listed


def test_samples_of_one_sentence_differ_and_are_sorted(unsure_system):
    (n_best, *_) = translate(
        unsure_system, ["balo delo kalo."] * 2, num_return_sequences=8, temperature=3.0, **SAMPLING
    )
    assert len({one.text for one in n_best}) > 4
    assert [one.score for one in n_best] == sorted((one.score for one in n_best), reverse=True)
    model, tokenizer = unsure_system
    ids = tokenizer.convert_tokens_to_ids(n_best[0].tokens)
    assert n_best[0].token_scores == pytest.approx(
        log_probabilities(model, tokenizer, "balo delo kalo.", ids), abs=1e-5
    )


def test_sampling_leaves_the_random_state_of_others_alone(unsure_system):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    translate(unsure_system, TEXTS[:2], **SAMPLING)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_return_sequences": 6, "num_beams": 5}, r"num_return_sequences \(6\) may not exceed num_beams \(5\)"),
        ({"temperature": 0.5, "top_k": 3}, "temperature, top_k would change nothing: set do_sample=true too"),
        ({"num_return_sequences": 2, "num_beams": 1}, "raise num_beams, or leave it out: it follows"),
        ({"num_beams": 1, "early_stopping": True}, "early_stopping would change nothing with num_beams=1"),
    ],
)
def test_settings_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DecodingSettings(**settings)


def test_a_models_own_settings_hold_where_nothing_is_given(tmp_path, monkeypatch):
    (tmp_path / "generation_config.json").write_text('{"num_beams": 3, "early_stopping": true, "max_length": 7}')
    assert model_decoding(tmp_path) == DecodingSettings(num_beams=3, early_stopping=True)
    given = DecodingSettings(num_beams=2, length_penalty=0.5)
    assert model_decoding(tmp_path, given) == DecodingSettings(num_beams=2, early_stopping=True, length_penalty=0.5)
    assert model_decoding(tmp_path, DecodingSettings(num_beams=1)) == DecodingSettings(num_beams=1)
    assert model_decoding(tmp_path / "missing") == DecodingSettings()
    assert model_decoding("nobody/no-such-model") == DecodingSettings()
    asked = []

    def of_the_hub(model):
        asked.append(model)
        return transformers.GenerationConfig(num_beams=6, length_penalty=0.6)

    monkeypatch.setattr(transformers.GenerationConfig, "from_pretrained", of_the_hub)
    monkeypatch.setattr(hub, "look_up", lambda model: {})
    assert model_decoding("owner/model") == DecodingSettings(num_beams=6, length_penalty=0.6)
    assert asked == ["owner/model"]


def test_beams_follow_the_number_of_translations_where_they_are_not_given(tmp_path, caplog):
    (tmp_path / "generation_config.json").write_text('{"num_beams": 2, "early_stopping": true}')
    with caplog.at_level(logging.INFO, logger="hf_nmt"):
        chosen = model_decoding(tmp_path, DecodingSettings(num_return_sequences=3))
    assert chosen == DecodingSettings(num_beams=3, num_return_sequences=3, early_stopping=True)
    told = "decoding.num_beams is 3, as many as num_return_sequences; the model's own are 2."
    assert caplog.messages == [told]
    caplog.clear()
    assert model_decoding(tmp_path, DecodingSettings(num_return_sequences=2)).num_beams == 2
    sampled = DecodingSettings(num_return_sequences=7, do_sample=True)
    assert model_decoding(tmp_path, sampled).num_beams == 2 and not caplog.messages
    # More than the default: the model's own still hold where they are enough.
    (tmp_path / "generation_config.json").write_text('{"num_beams": 8}')
    assert DecodingSettings(num_return_sequences=6).num_beams == 6
    assert model_decoding(tmp_path, DecodingSettings(num_return_sequences=6)).num_beams == 8
    assert model_decoding(tmp_path / "missing", DecodingSettings(num_return_sequences=6)).num_beams == 6


@pytest.mark.parametrize(
    ("own", "given", "message"),
    [
        (
            '{"num_beams": 0}',
            {},
            "^decoding.num_beams: given 0: .*greater than or equal to 1.* .num_beams=0 comes from ",
        ),
        (
            '{"num_beams": 1}',
            {"early_stopping": True},
            "^decoding: early_stopping would change nothing with num_beams=1",
        ),
        ('{"length_penalty": "long"}', {}, "^decoding.length_penalty: given 'long': "),
    ],
)
def test_what_does_not_go_with_a_models_own_settings_is_refused_by_key(tmp_path, own, given, message):
    (tmp_path / "generation_config.json").write_text(own)
    with pytest.raises(ConfigError, match=message):
        model_decoding(tmp_path, DecodingSettings(**given))


def test_a_wrong_language_is_refused_with_those_there_are(copy_system):
    model, tokenizer = copy_system
    model.config.source_language, model.config.target_language = "ko", "en"
    with pytest.raises(ConfigError, match="The target language 'fr' was asked for; this model has en."):
        TorchTranslator(model, tokenizer).translate(["balo."], target_language="fr")
    with pytest.raises(ConfigError, match="The source language 'en' was asked for; this model has ko."):
        TorchTranslator(model, tokenizer, source_language="en")
    assert texts_of(translate(copy_system, ["balo."], target_language="en")) == [["balo."]]
