"""Models with the tokenizers of their families translate as `generate` does with its documented arguments."""

from __future__ import annotations

import functools

import families
import pytest
import torch
from transformers import pipeline

from hf_nmt.errors import DataError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.translator import SourceError, TorchTranslator
from hf_nmt.models.sources_nmt import Languages

LIMIT = 10
# Family -> how its documentation gives the target language: arguments of `generate`, text in front of the source,
# arguments of the tokenizer.
DOCUMENTED = {
    "nmt": lambda tokenizer, target: ({}, "", {}),
    "nmt_tags": lambda tokenizer, target: ({}, "", {"tgt_lang": target}),
    "marian": lambda tokenizer, target: ({}, "", {}),
    "marian_multilingual": lambda tokenizer, target: ({}, f">>{target}<< ", {}),
    "m2m_100": lambda tokenizer, target: ({"forced_bos_token_id": tokenizer.get_lang_id(target)}, "", {}),
    "nllb": lambda tokenizer, target: ({"forced_bos_token_id": tokenizer.convert_tokens_to_ids(target)}, "", {}),
    "t5": lambda tokenizer, target: (
        {}, {"de": "translate English to German: ", "fr": "translate English to French: ",
             "ro": "translate English to Romanian: "}[target], {},
    ),
    "mt5": lambda tokenizer, target: ({}, "", {}),
    "mbart50": lambda tokenizer, target: ({"forced_bos_token_id": tokenizer.lang_code_to_id[target]}, "", {}),
    "mbart": lambda tokenizer, target: ({"decoder_start_token_id": tokenizer.lang_code_to_id[target]}, "", {}),
    "bart": lambda tokenizer, target: ({}, "", {}),
}  # fmt: skip
SOURCES = families.pairs(6, seed=21)[0]


@functools.cache
def _varied(name: str):
    """A model whose translations differ, and its tokenizer."""
    model, tokenizer = families.load(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25, generator=generator)
    return model, tokenizer


def expected(name: str, target: str, num_beams: int) -> list[str]:
    model, tokenizer = _varied(name)
    if hasattr(tokenizer, "src_lang") and families.FAMILIES[name].targets:
        tokenizer.src_lang = families.FAMILIES[name].source
    arguments, prefix, told = DOCUMENTED[name](tokenizer, target)
    texts = []
    for source in SOURCES:
        inputs = tokenizer(prefix + source, return_tensors="pt", return_token_type_ids=False, **told)
        # One longer, as a forced end of sentence would hide that the limit came first.
        ids = model.generate(
            **inputs, **arguments, num_beams=num_beams, max_length=LIMIT + 2, do_sample=False, early_stopping=False,
            length_penalty=1.0, stopping_criteria=[lambda ids, scores: ids.shape[1] >= LIMIT + 1],
        )  # fmt: skip
        texts.append(tokenizer.decode(ids[0, 1:], skip_special_tokens=True))
    return texts


def translated(name: str, target: str, num_beams: int) -> list[str]:
    model, tokenizer = _varied(name)
    languages = {"source_language": families.FAMILIES[name].source, "target_language": target}
    settings = DecodingSettings(num_beams=num_beams, max_target_length=LIMIT, split_sentences=False)
    translations = TorchTranslator(model, tokenizer, **languages).translate(SOURCES, settings)
    return [n_best[0].text for n_best in translations]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_translations_are_those_of_generate_for_every_target_language(name, num_beams):
    family = families.FAMILIES[name]
    found = {}
    for target in family.targets or (family.target,):
        found[target] = translated(name, target, num_beams)
        assert found[target] == expected(name, target, num_beams)
    assert len({tuple(texts) for texts in found.values()}) >= min(len(found), 2)
    assert len({text for texts in found.values() for text in texts}) > 1


@pytest.mark.parametrize("name", [name for name, family in families.FAMILIES.items() if family.targets])
def test_each_text_has_its_own_target_language(name):
    """In windows that hold all languages, and a text in the place of each."""
    model, tokenizer = _varied(name)
    family = families.FAMILIES[name]
    targets = [family.targets[row % len(family.targets)] for row in (0, 1, 2, 1, 1, 0)]
    settings = DecodingSettings(num_beams=3, max_target_length=LIMIT, split_sentences=False, window_size=4)
    translator = TorchTranslator(model, tokenizer, source_language=family.source, target_language=targets[0])
    told = [None if target == targets[0] else target for target in targets]  # None: that of the translator
    found = list(translator.translate(iter(SOURCES), settings, target_language=told))
    whole = {target: expected(name, target, 3) for target in targets}
    assert [n_best[0].text for n_best in found] == [whole[target][row] for row, target in enumerate(targets)]
    assert [n_best[0].source_index for n_best in found] == list(range(6)) and translator.statistics.texts == 6
    with pytest.raises(SourceError, match="Text 5: .*'tlh'") as error:
        translator.translate(SOURCES, settings, target_language=[*targets[:4], "tlh", targets[0]])
    assert error.value.index == 4
    with pytest.raises(DataError, match="target_language: 5 are given, and there are more sources"):
        list(translator.translate(SOURCES, settings, target_language=targets[:5]))


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_pipeline_translates_alike(name):
    model, tokenizer = _varied(name)
    family = families.FAMILIES[name]
    pipe = pipeline("translation", model=model, tokenizer=tokenizer, device="cpu", split_sentences=False)
    options = {"num_beams": 3, "max_new_tokens": LIMIT, "early_stopping": False, "length_penalty": 1.0}
    for target in family.targets or (family.target,):
        texts = [one["translation_text"] for one in pipe(SOURCES, src_lang=family.source, tgt_lang=target, **options)]
        assert texts == translated(name, target, 3)
    if family.targets:
        with pytest.raises(TypeError, match="src_lang and tgt_lang are codes for all texts of a call, and None and"):
            pipe(SOURCES, tgt_lang=list(family.targets))


@pytest.mark.parametrize("name", ["nmt_tags", "nllb", "mbart50"])
def test_the_languages_of_one_call_of_the_pipeline_are_not_those_of_the_next(name):
    model, tokenizer = families.load(name)
    family = families.FAMILIES[name]
    pipe = pipeline("translation", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=3)
    tokenizer.src_lang, tokenizer.tgt_lang = family.source, None
    pipe("balo.", tgt_lang=family.targets[1])
    with pytest.raises(ValueError, match="This model has several target languages; choose one of"):
        pipe("balo.")
    tokenizer.tgt_lang = family.targets[0]
    pipe("balo.", tgt_lang=family.targets[1])
    assert tokenizer.tgt_lang == family.targets[0], "what the user has set stays"


@pytest.mark.parametrize("name", families.FAMILIES)
def test_scores_are_those_that_the_model_gives_its_own_labels(name):
    """Forced scoring against the cross-entropy of the family's documented training example."""
    model, tokenizer = _varied(name)
    family = families.FAMILIES[name]
    selected = Languages.of(model.config, tokenizer).select(family.source, family.target)
    targets = families.pairs(6, seed=21)[1]
    translator = TorchTranslator(model, tokenizer, source_language=family.source, target_language=family.target)
    for source, target, scores in zip(SOURCES, targets, translator.score(SOURCES, targets), strict=True):
        inputs = tokenizer(
            selected.prefix + source, text_target=target, return_tensors="pt", return_token_type_ids=False
        )
        labels = inputs["labels"]
        logits = model(**_shifted(model, inputs)).logits.log_softmax(-1)
        own = logits.gather(2, labels[:, :, None])[0, :, 0].tolist()
        marks = {selected.forced_bos_token_id, selected.decoder_start_token_id}
        own = [score for score, label in zip(own, labels[0].tolist(), strict=True) if label not in marks]
        assert scores == pytest.approx(own, abs=1e-4)


def _shifted(model, inputs):
    """With the decoder input that the family makes of labels itself."""
    inputs = dict(inputs)
    labels = inputs.pop("labels")
    return inputs | {"decoder_input_ids": families.decoder_input_ids(model, labels)}
