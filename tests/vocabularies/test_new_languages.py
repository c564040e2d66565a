"""Codes of languages that a model did not have: in its tokenizer, in training and in translation."""

from __future__ import annotations

import families
import pytest
import torch
from adapted_models import NOTHING, SOURCES, TARGETS, adapt, assert_kept_tokens_are_equal, opened, table
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from hf_nmt.models.sources_nmt import Languages
from hf_nmt.translators import load_translator

CODES = {
    "nllb": ("xxx_Latn", "deu_Latn", "xxx_Latn"),
    "nmt_tags": ("ko", "fr", "<2ko>"),
    "marian_multilingual": ("kor", "fra", ">>kor<<"),
    "m2m_100": ("xx", "de", "__xx__"),
    "mbart50": ("xx_XX", "de_DE", "xx_XX"),
    "mbart": ("xx_XX", "de_DE", "xx_XX"),
}


@pytest.mark.parametrize("like", [True, False])
@pytest.mark.parametrize("name", CODES)
def test_a_new_language(name, like, folder_of, tmp_path):
    code, known, token = CODES[name]
    adapt(folder_of(name), tmp_path / "new", NOTHING, add_languages=[code], like=known if like else None)
    before, after = opened(folder_of(name)), opened(tmp_path / "new")
    assert_kept_tokens_are_equal(before, after)
    (old, old_tokenizer), (new, tokenizer) = before, after
    targets = Languages.of(old.config, old_tokenizer).targets
    examples = [token.replace(code, one) for one in ([known] if like else targets)]
    expected = old.get_input_embeddings().weight[[table(old_tokenizer, "source")[one] for one in examples]].mean(0)
    number = table(tokenizer, "source")[token]
    assert number == len(table(old_tokenizer, "source"))
    torch.testing.assert_close(new.get_input_embeddings().weight[number], expected)

    languages = Languages.of(new.config, tokenizer)
    # The model's own spelling is found whatever its tokens look like.
    assert {one.strip("_") for one in languages.targets} == {*targets, code}
    source = families.FAMILIES[name].source
    chosen = languages.select(source, code)
    assert chosen.source_language.strip("_") == source
    ids, labels = tokenizer(chosen.prefix + SOURCES[0])["input_ids"], tokenizer(text_target=TARGETS[0])["input_ids"]
    old_chosen = Languages.of(old.config, old_tokenizer).select(source, known)
    old_ids = old_tokenizer(old_chosen.prefix + SOURCES[0])["input_ids"]
    if name in ("nllb", "m2m_100", "mbart50"):
        assert chosen.forced_bos_token_id == number == labels[0] and ids == old_ids
    elif name == "mbart":
        assert chosen.decoder_start_token_id == number == labels[-1] and ids == old_ids
    else:
        assert ids[0] == number
    if name == "nmt_tags":
        assert tokenizer(SOURCES[0], src_lang="ko", tgt_lang="en")["input_ids"][1:] == ids[1:]
    # Saved once more by its class, as a trainer does, it is the same.
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert table(again, "source") == table(tokenizer, "source")
    assert again(chosen.prefix + SOURCES[0])["input_ids"] == ids


def ids_of(found):
    return [one["translation_token_ids"].tolist() for one in found]


# Families that mark languages by tokens, and how the tokenizer that is written spells them.
SPELT = {"nllb": "{}", "m2m_100": "__{}__", "mbart50": "{}", "mbart": "{}"}


@pytest.mark.parametrize("direction", ["into", "from"])
@pytest.mark.parametrize("name", SPELT)
def test_a_new_language_is_trained_and_translated_by_plain_transformers(name, direction, train_family, tmp_path):
    code, known, _ = CODES[name]
    source, target = (known, code) if direction == "into" else (code, known)
    adapt(families.make(name, tmp_path / "base"), tmp_path / "model", NOTHING, add_languages=[code], like=known)
    languages = (f"data.source_language={source}", f"data.target_language={target}")
    run = train_family(name, *languages, "training.max_steps=2")
    model, tokenizer = opened(run / "best")  # by Transformers' own classes, in the languages of the run
    token = {side: SPELT[name].format(one) for side, one in (("source", source), ("target", target))}
    number = tokenizer.convert_tokens_to_ids(token["target"])
    if source in getattr(tokenizer, "lang_code_to_id", {source: 0}):  # mBART-50 cannot hold another one
        assert tokenizer.src_lang == token["source"]
    tokenizer.src_lang = token["source"]
    inputs = tokenizer(SOURCES[0], return_tensors="pt", return_token_type_ids=False)
    assert tokenizer.convert_tokens_to_ids(token["source"]) in inputs["input_ids"][0].tolist()
    ids = model.generate(**inputs, max_new_tokens=6)[0].tolist()
    assert ids[0 if name == "mbart" else 1] == number
    assert token["target"] not in tokenizer.decode(ids, skip_special_tokens=True)
    # Without a word on languages, those of the run; by the pipeline as anyone names them.
    own = load_translator(run / "best", "cpu")
    selected = own._languages.select(None, None)
    assert (selected.source_language, selected.target_language) == (token["source"], token["target"])
    translate = pipeline("translation", model=str(run / "best"), max_new_tokens=6, num_beams=1)
    told = ids_of(translate(SOURCES[:2], src_lang=source, tgt_lang=target, return_tensors=True))
    assert told == ids_of(translate(SOURCES[:2], return_tensors=True))
    assert name == "mbart" or {row[0] for row in told} == {number}  # mBART starts from it
    # The other way round is one call away, and the folder can be saved and loaded again.
    back = ids_of(translate(SOURCES[:2], src_lang=target, tgt_lang=source, return_tensors=True))
    other = tokenizer.convert_tokens_to_ids(token["source"])
    assert other != number and (name == "mbart" or {row[0] for row in back} == {other})
    assert other in own._languages.select(target, source)
    translate.save_pretrained(tmp_path / "again")
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").get_vocab() == tokenizer.get_vocab()
