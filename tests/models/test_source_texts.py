"""Languages by the conventions of each family, and what is given to a model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_models import word_tokenizer

from hf_nmt.models.sources_nmt import Languages, encode_texts, source_limit, target_limit
from hf_nmt.models.tokenization_nmt import NmtTokenizer

NOTHING = SimpleNamespace()


def test_a_model_that_tells_nothing_takes_every_language():
    languages = Languages.of(NOTHING, NOTHING)
    assert languages.select("de", "en") == ("de", "", None, None, "en")
    assert languages.select(None, None) == (None, "", None, None, None)


def test_one_pair_from_the_configuration():
    languages = Languages.of(SimpleNamespace(source_language="de", target_language="en"), NOTHING)
    assert languages.select(None, None) == ("de", "", None, None, "en")
    assert languages.select("de", "en") == ("de", "", None, None, "en")
    with pytest.raises(ValueError, match="The target language 'ko' was asked for; this model has en."):
        languages.select("de", "ko")


def test_marian_writes_the_target_language_in_front_of_the_source():
    tokenizer = SimpleNamespace(source_lang="en", supported_language_codes=[">>fra<<", ">>spa<<"])
    languages = Languages.of(NOTHING, tokenizer)
    assert languages.select(None, "spa") == ("en", ">>spa<< ", None, None, "spa")
    with pytest.raises(ValueError, match="'deu' was asked for; this model has fra, spa."):
        languages.select(None, "deu")


def test_forced_first_tokens():
    tokenizer = SimpleNamespace(
        _build_translation_inputs=None, src_lang="en_XX", tgt_lang=None,
        lang_code_to_id={"en_XX": 7, "de_DE": 8, "pt_BR": 9, "pt_PT": 10},
        convert_tokens_to_ids=lambda code: 3,
    )  # fmt: skip
    languages = Languages.of(NOTHING, tokenizer)
    with pytest.raises(ValueError, match="several target languages; choose one of de_DE, en_XX, pt_BR, pt_PT"):
        languages.select(None, None)
    assert languages.select("de", "en-XX") == ("de_DE", "", 7, None, "en_XX")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("de_DE", "en_XX")
    with pytest.raises(ValueError, match="'pt' was asked for"):
        languages.select(None, "pt")
    with pytest.raises(ValueError, match="'de_D' was asked for; .* Did you mean 'de_DE'?"):
        languages.select(None, "de_D")


def test_tags_of_our_own_tokenizer():
    backend = word_tokenizer()
    codes = ["de", "fr"]
    backend.add_special_tokens([f"<2{code}>" for code in codes])
    tokenizer = NmtTokenizer(
        tokenizer_object=backend, language_tags=True, source_languages=["en"], target_languages=codes
    )
    languages = Languages.of(NOTHING, tokenizer)
    with pytest.raises(ValueError, match="choose one of de, fr"):
        languages.select(None, None)
    assert languages.select(None, "fr") == ("en", "", None, None, "fr")
    tag = tokenizer.convert_tokens_to_ids("<2fr>")
    (text,) = encode_texts(["balo. delo."], tokenizer, language="en")
    assert [ids[0] for ids in text.sentences] == [tag, tag]


def test_limits():
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=40))
    unlimited = SimpleNamespace(config=SimpleNamespace())
    assert source_limit(model, SimpleNamespace(model_max_length=int(1e30))) == 40
    assert source_limit(model, SimpleNamespace(model_max_length=32)) == 32
    assert source_limit(unlimited, NOTHING) is None
    assert target_limit(10, unlimited, 2.0, 20) == 40
    assert target_limit(10, unlimited, 2.0, 20, cap=7) == 7
    assert target_limit(10, model, 2.0, 20, prompt_length=5) == 35
    assert target_limit(0, model, 0.0, 0) == 1


def test_a_long_sentence_is_given_in_parts_that_fit_and_lose_nothing():
    tokenizer = NmtTokenizer(tokenizer_object=word_tokenizer())
    text = "balo delo kalo felo, " * 15 + "balo. delo."
    (whole,) = encode_texts([text], tokenizer)
    (parts,) = encode_texts([text], tokenizer, limit=12)
    (less,) = encode_texts([text], tokenizer, limit=12, truncate=True)
    content = [[token for ids in one.sentences for token in ids[:-1]] for one in (whole, parts, less)]
    assert content[1] == content[0] and len(content[2]) == 11 + 2
    assert max(map(len, parts.sentences)) <= 12 and len(parts.sentences) > 6
    assert (parts.split.num_cut, parts.num_truncated) == (len(parts.sentences) - 2, 0)
    assert (less.split.num_cut, less.num_truncated) == (0, 1)
    assert parts.split.join([tokenizer.decode(ids[:-1]) for ids in parts.sentences]) == text
