"""A saved model trained further on several language pairs."""

from __future__ import annotations

from collections import Counter

import families
import pytest
from families import FAMILIES
from families import load as load_family
from transformers import AutoTokenizer

from hf_nmt import runs
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.training.pretrained import adopt_pairs
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.translators import load_translator

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


# Runs

TRAINED = {
    "nllb": [("eng_Latn", "deu_Latn"), ("eng_Latn", "fra_Latn"), ("deu_Latn", "eng_Latn")],
    "m2m_100": [("en", "de"), ("en", "fr"), ("de", "en")],
    "marian_multilingual": [("eng", "deu"), ("eng", "fra"), ("eng", "cmn_Hans")],
    "mbart50": [("en_XX", "de_DE"), ("en_XX", "fr_XX"), ("de_DE", "en_XX")],
    "mbart": [("en_XX", "de_DE"), ("en_XX", "fr_XX"), ("de_DE", "en_XX")],
    "t5": [("en", "de"), ("en", "fr"), ("en", "ro")],
    "nmt_tags": [("de", "en"), ("de", "fr"), ("de", "zh")],
}
COUNTS = (40, 24, 12)
# Where the decoder reads the code of the target language.
CODE_AT = {"nllb": 1, "m2m_100": 1, "mbart50": 1, "mbart": 0}
NO_PAIR = [f"data.{key}=null" for key in ("source_language", "target_language", "train", "validation")]


def token_of(name: str, code: str) -> str:
    return f"__{code}__" if name == "m2m_100" else code


def documented_ids(name, model, tokenizer, pair, texts):
    """Source ids and labels of a row, in the form that the family's documentation gives."""
    source, target = pair
    tasks = model.config.task_specific_params if name == "t5" else {}
    prefix = {"t5": tasks.get(f"translation_{source}_to_{target}", {}).get("prefix", ""),
              "marian_multilingual": ""}.get(name, "")  # fmt: skip
    rows = []
    for form, argument in zip(families.FORMS[name], ("text", "text_target"), strict=True):
        text = (prefix if argument == "text" else "") + texts[len(rows)]
        before, after = families.special_ids(tokenizer, form, source, target)
        rows.append((*before, *tokenizer(**{argument: text}, add_special_tokens=False)["input_ids"], *after))
    return tuple(rows)


@pytest.mark.parametrize(
    "name",
    [name if name in ("nllb", "m2m_100", "marian_multilingual") else pytest.param(name, marks=pytest.mark.slow)
     for name in TRAINED],
)  # fmt: skip
def test_every_row_that_a_run_trains_on_is_in_its_languages(name, train_family, tmp_path, monkeypatch):
    """Each batch that the trainer gets, row by row, against the documented form of just the pair of that row."""
    model, tokenizer = load_family(name)
    if hasattr(tokenizer, "tgt_lang"):  # any will do: some refuse to encode without one
        tokenizer.src_lang, tokenizer.tgt_lang = TRAINED[name][0]
    expected, more = {}, [*NO_PAIR, "data.sampling_temperature=5"]
    for number, (pair, count) in enumerate(zip(TRAINED[name], COUNTS, strict=True)):
        for split, rows in (("train", count), ("validation", 4)):
            seed = 100 + 10 * number + (split == "train")
            files = families.write_pairs(tmp_path, rows, seed, f"{number}.{split}")
            more += [f"data.pairs.{'-'.join(pair)}.{split}.{side}={file}" for side, file in files.items()]
        for texts in zip(*families.pairs(count, 101 + 10 * number), strict=True):
            expected[documented_ids(name, model, tokenizer, pair, texts)] = pair
    batches = []
    compute_loss = TranslationTrainer.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        batches.append({key: value.clone() for key, value in inputs.items()})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(TranslationTrainer, "compute_loss", watched)
    steps = [f"training.{key}=12" for key in ("max_steps", "save_steps", "eval_steps")]
    run = train_family(name, *more, *steps, "model.attn_implementation=eager")

    seen = Counter()
    for batch in batches:
        decoder = families.decoder_input_ids(model, batch["labels"])
        assert batch["decoder_input_ids"].equal(decoder)
        for row in range(len(batch["labels"])):
            source = tuple(batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist())
            labels = tuple(label for label in batch["labels"][row].tolist() if label != -100)
            assert (source, labels) in expected, tokenizer.convert_ids_to_tokens([*source, *labels])
            seen[expected[source, labels]] += 1
            if name in CODE_AT:  # the decoder reads the code too
                code = tokenizer.convert_tokens_to_ids(token_of(name, expected[source, labels][1]))
                assert decoder[row, CODE_AT[name]] == code != tokenizer.unk_token_id
    assert len(batches) >= 12 and set(seen) == set(TRAINED[name])
    shares = [seen[pair] / seen.total() for pair in TRAINED[name]]
    assert shares[0] < 40 / 76 and shares[2] > 12 / 76, "drawn by temperature"

    # The saved model is told each language, too.
    assert {f"eval_chrf_{'-'.join(pair)}" for pair in TRAINED[name]} <= {
        entry["name"] for entry in runs.read_metrics(run)
    }
    translator = load_translator(run / "best", "cpu")
    assert translator.model.generation_config.forced_bos_token_id is None
    saved = AutoTokenizer.from_pretrained(run / "best")
    sources, targets = zip(*TRAINED[name], strict=True)
    asked = DecodingSettings(num_beams=1, max_target_length=6, split_sentences=False)
    told = {"source_language": list(sources), "target_language": list(targets)}
    given = []
    generate = translator.model.generate
    monkeypatch.setattr(
        translator.model, "generate", lambda *args, **kwargs: given.append(kwargs) or generate(*args, **kwargs)
    )
    assert len(list(translator.translate(["balo."] * 3, asked, **told))) == 3
    codes = [saved.convert_tokens_to_ids(token_of(name, code)) for code in targets]
    if name in CODE_AT:
        key = "decoder_start_token_id" if name == "mbart" else "forced_bos_token_id"
        assert [kwargs.get(key, kwargs.get("decoder_input_ids")) for kwargs in given] == codes
