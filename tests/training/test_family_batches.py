"""What the models of each family are given in training, against the families' own code and documented forms."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch
from toy_training import GroupSampler, make_run, make_trainer

from hf_nmt import runs
from hf_nmt.batching import BatchingSettings, PairEncoder, TranslationCollator
from hf_nmt.config import fingerprint
from hf_nmt.models.sources_nmt import Languages

SOURCES, TARGETS = families.pairs(12, seed=31)


def encoded(name: str, model, tokenizer, targets: list[str] | None = None):
    """The rows of a family, all in its usual languages or each in its own target language."""
    family = families.FAMILIES[name]
    encoder = PairEncoder(
        tokenizer, BatchingSettings(), languages=Languages.of(model.config, tokenizer),
        source_language=family.source, target_language=family.target,
    )  # fmt: skip
    return encoder({"source": SOURCES, "target": TARGETS} | ({"target_language": targets} if targets else {}))


def test_token_ids_are_found_again_for_the_same_instructions_only():
    """The rows may name all languages, and what T5 is told in words for them is not in its tokenizer."""
    model, tokenizer = families.load("t5")

    def key(prefix: str, usual: tuple[str | None, str | None]) -> str:
        model.config.task_specific_params = {"translation_en_to_de": {"prefix": prefix}}
        languages = Languages.of(model.config, tokenizer)
        source, target = usual
        encoder = PairEncoder(
            tokenizer, BatchingSettings(), languages=languages, source_language=source, target_language=target
        )
        return fingerprint(encoder.fingerprint())

    for usual in ((None, None), ("en", "de")):
        assert key("to German: ", usual) == key("to German: ", usual) != key("German, please: ", usual)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_row_of_a_mixed_batch_is_in_its_languages(name):
    model, tokenizer = families.load(name)
    family = families.FAMILIES[name]
    choices = family.targets or (family.target,)
    targets = [choices[row % len(choices)] for row in range(len(SOURCES))]
    rows = encoded(name, model, tokenizer, targets if family.targets else None)
    assert rows.kept.all()
    pieces = tokenizer.convert_ids_to_tokens
    forms = zip(SOURCES, TARGETS, targets, rows.input_ids, rows.labels, strict=True)
    prefixes = Languages.of(model.config, tokenizer).prefixes
    if family.targets and hasattr(tokenizer, "tgt_lang"):  # any will do: some refuse to encode without one
        tokenizer.src_lang, tokenizer.tgt_lang = family.source, family.targets[0]
    for source, text, target, input_ids, labels in forms:
        source = prefixes.get((family.source, target), "") + source
        special = [families.special_ids(tokenizer, form, family.source, target) for form in families.FORMS[name]]
        expected = [
            [*before, *tokenizer(**argument, add_special_tokens=False)["input_ids"], *after]
            for (before, after), argument in zip(special, ({"text": source}, {"text_target": text}), strict=True)
        ]
        assert [pieces(input_ids), pieces(labels)] == [pieces(ids) for ids in expected]


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_decoder_reads_what_the_family_makes_of_labels(name):
    model, tokenizer = families.load(name)
    rows = encoded(name, model, tokenizer)
    pairs = [{"input_ids": ids, "labels": labels} for ids, labels in zip(rows.input_ids, rows.labels, strict=True)]
    batch = TranslationCollator.for_model(model)(pairs)
    own = families.decoder_input_ids(model, batch["labels"])
    assert torch.equal(batch["decoder_input_ids"], own)
    assert len({len(labels) for labels in rows.labels}) > 2  # some rows are padded


@pytest.mark.parametrize("name", families.FAMILIES)
def test_accumulated_batches_equal_a_whole_one(name, tmp_path):
    def updates(size: int, accumulation: int):
        rates = dict.fromkeys(_RATES.get(name, ("dropout", "attention_dropout")), 0.0)
        model, tokenizer = families.load(name, **rates)
        rows = encoded(name, model, tokenizer)
        count = np.arange(8)
        with make_run(tmp_path / f"{size}x{accumulation}") as run:
            make_trainer(
                run, model=model, pairs=_Rows([(rows.input_ids[row], rows.labels[row]) for row in count]),
                sampler=GroupSampler(8, size, shuffle=False), collator=TranslationCollator.for_model(model),
                max_steps=3, logging_steps=1, save_strategy="no", gradient_accumulation_steps=accumulation,
                label_smoothing_factor=0.1,
            ).train()  # fmt: skip
        entries = runs.read_metrics(run.folder)
        return [runs.series(entries, series)[1] for series in ("loss", "grad_norm")]

    whole, parts = updates(8, 1), updates(2, 4)
    assert len(whole[0]) == 3
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


_M2M_RATES = ("dropout", "attention_dropout", "encoder_layerdrop", "decoder_layerdrop")
_RATES = {"t5": ("dropout_rate",), "mt5": ("dropout_rate",), "m2m_100": _M2M_RATES, "nllb": _M2M_RATES}


class _Rows(torch.utils.data.Dataset):
    def __init__(self, pairs: list[tuple[list[int], list[int]]]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        source, target = self.pairs[index]
        return {"input_ids": source, "labels": target}
