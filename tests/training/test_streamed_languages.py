"""Rows of a stream whose language the model does not have, far behind the rows that are looked at before the start."""

from __future__ import annotations

import json
import pickle
import random

import pytest
from families import load as load_family
from recipe_processes import run_recipe
from translation_tasks import make_sources, translated

from hf_nmt import runs
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.training import checkpoints
from hf_nmt.training.streams import RowLanguages


@pytest.mark.parametrize(
    ("family", "usual", "row", "told"),
    [
        ("nllb", ("eng_Latn", None), (None, "deu_Latn"), ""),
        ("nllb", ("eng_Latn", None), (None, "de"), ""),
        ("nllb", ("eng_Latn", None), (None, None), "the row has no target_language. Write one into it, or give"),
        ("nllb", ("eng_Latn", None), (None, "tlh"), "from eng_Latn to tlh. The target language 'tlh' was asked for"),
        ("nllb", ("eng_Latn", None), ("German", "deu_Latn"), "the column source_language: given 'German', which"),
        ("nmt_tags", ("de", None), ("de", "fr"), ""),
        ("nmt_tags", ("de", None), ("de", "cs"), "The target language 'cs' was asked for; this model has en, fr, zh"),
        ("nmt", ("de", "en"), (None, None), ""),
        ("nmt", ("de", "en"), (None, "fr"), "The target language 'fr' was asked for; this model has en."),
        ("nmt", ("de", "en"), ("fr", None), "The source language 'fr' was asked for; this model has de."),
        ("marian_multilingual", ("eng", None), (None, "fra"), ""),
        ("marian_multilingual", ("eng", None), (None, "spa"), "this model has cmn_Hans, deu, fra"),
        ("t5", ("en", None), (None, "fr"), ""),
        ("t5", ("en", None), (None, "it"), "this model has de, fr, ro"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_languages_of_a_row(family, usual, row, told):
    model, tokenizer = load_family(family)
    languages = Languages.of(model.config, tokenizer)
    check = RowLanguages(languages, usual)
    if tokenizer.is_fast:  # those of Marian are opened from their files
        check = pickle.loads(pickle.dumps(check))  # as a worker gets it where processes are not forked
    before = getattr(tokenizer, "tgt_lang", None)
    found = check(*row)
    assert (told in found) if told else found == ""
    assert getattr(tokenizer, "tgt_lang", None) == before


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_stops_at_the_row_and_goes_on_once_it_is_mended(tmp_path, workers):
    draw = random.Random(5)
    records = []
    for text in make_sources(2300, seed=3):
        target = draw.choice(["aa", "bb"])
        records.append(
            {"source": text, "target": translated(text, target), "source_language": "xx", "target_language": target}
        )
    path = tmp_path / "text.jsonl"

    def save(code: str | None) -> None:
        records[2100]["target_language"] = code
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    argv = [
        f"data.train.path={path}",
        "data.train.streaming=true",
        "batching.streaming_window=500",
        "--config",
        "tiny",
    ]
    argv += ["batching.batch_tokens=1024", "tokenizer.vocab_size=300", "training.max_steps=24"]
    argv += [f"training.dataloader_num_workers={workers}", f"output_dir={tmp_path / 'runs'}"]
    save("cc")
    assert run_recipe(argv, tmp_path / "first") == 2
    told = (tmp_path / "first.err").read_text()
    assert (
        f"{path}, line 2101: the row is from xx to cc. The target language 'cc' was asked for; this model has aa, bb."
        in told
    )
    assert "Mend the row or take it out; a new model has the languages of the first 1,000 rows" in told
    assert "Traceback" not in told
    (run,) = (tmp_path / "runs").iterdir()
    assert checkpoints.latest_whole(run / "checkpoints") is not None
    save(None)
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 2
    assert (
        f"{path}, line 2101: the row has no target_language. Write one into it"
        in (tmp_path / "second.err").read_text()
    )
    save("bb")
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0, (tmp_path / "third.err").read_text()
    assert runs.load(run).record["status"] == "finished"
