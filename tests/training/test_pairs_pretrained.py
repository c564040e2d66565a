"""A saved model trained further on several language pairs."""

from __future__ import annotations

import pytest
from families import FAMILIES
from families import load as load_family

from hf_nmt.models.sources_nmt import Languages
from hf_nmt.training.pretrained import adopt_pairs

PAIRS = [("en", "de"), ("en", "fr")]


def adopt(family, pairs, **options):
    model, tokenizer = load_family(family)
    adopt_pairs(model.config, tokenizer, pairs, **options)
    return model.config, tokenizer


@pytest.mark.parametrize("family", ["nllb", "m2m_100", "mbart50", "t5"])
def test_models_of_several_languages_take_several_pairs(family):
    kept = load_family(family)[1].src_lang if family != "t5" else None
    pairs = [(FAMILIES[family].source, target) for target in FAMILIES[family].targets[:2]]
    config, tokenizer = adopt(family, pairs)
    assert getattr(tokenizer, "src_lang", None) == kept
    selections = [Languages.of(config, tokenizer).select(*pair) for pair in pairs]
    assert selections[0] != selections[1]


@pytest.mark.parametrize("family", ["nmt", "marian", "bart"])
def test_models_that_write_one_language_are_refused(family):
    with pytest.raises(
        ValueError, match="the target languages are de, fr, but model.pretrained has no way to be told"
    ):
        adopt(family, PAIRS)
    config, tokenizer = adopt(family, [("de", "en"), ("fr", "en")])
    assert (config.source_language, config.target_language) == (None, "en")
    assert Languages.of(config, tokenizer).select("fr", "en").source_language == "fr"


def test_what_the_model_lacks_and_one_prefix_for_several_are_refused():
    with pytest.raises(ValueError, match="The target language 'xx' was asked for; this model has"):
        adopt("m2m_100", [*PAIRS, ("en", "xx")])
    with pytest.raises(ValueError, match="model.source_prefix is for one pair of languages, and there are several"):
        adopt("t5", PAIRS, source_prefix="translate: ")
