"""recipes/backtranslate.py as a user runs it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from settings_walk.keys import recipe_module
from small_models import sentences

from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.files import PartialOutput
from hf_nmt.translators import load_translator

SCRIPT = Path(__file__).parents[2] / "recipes" / "backtranslate.py"
LINES = sentences(50, seed=77)


@pytest.fixture(scope="module")
def recipe():
    return recipe_module("backtranslate")


@pytest.fixture(scope="module")
def model(copy_folder, tmp_path_factory):
    """It says that it translates from English to German."""
    folder = tmp_path_factory.mktemp("models") / "en-de"
    shutil.copytree(copy_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"source_language": "en", "target_language": "de"}))
    return folder


@pytest.fixture
def run(recipe, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mono.en").write_text("".join(f"{line}\n" for line in LINES))

    def run(*arguments: str) -> list[dict]:
        given = [f"model={model}", "device=cpu", "--config", "tiny", *arguments]
        assert recipe.main(given) == 0
        return [json.loads(line) for line in Path("synthetic.jsonl").read_text().splitlines()]

    return run


def test_each_line_becomes_the_target_of_a_record(run, model, capsys):
    records = run("domain=news", "licence=CC0-1.0")
    assert capsys.readouterr().out == "synthetic.jsonl\n"
    assert [record["target"] for record in records] == LINES
    found = load_translator(model, "cpu").translate(LINES, DecodingSettings(num_beams=1))
    assert [record["source"] for record in records] == [best.text for best, *_ in found]
    assert {json.dumps({**record, "source": "", "target": ""}, sort_keys=True) for record in records} == {
        json.dumps(
            {
                "source": "", "target": "", "source_language": "de", "target_language": "en", "domain": "news",
                "licence": "CC0-1.0", "origin": "mono.en", "synthetic": "backtranslation",
            }, sort_keys=True,
        )
    }  # fmt: skip
    record = json.loads(Path("synthetic.jsonl.json").read_text())
    assert record["input"]["lines"] == record["statistics"]["texts"] == len(LINES)


def test_lines_without_text_are_left_out_and_samples_are_records_of_their_own(run):
    Path("mono.en").write_text(f"{LINES[0]}\n\n  \n{LINES[1]}\n")
    three = ("decoding.do_sample=true", "decoding.num_return_sequences=3", "decoding.temperature=3")
    records = run(*three)
    assert [record["target"] for record in records] == [LINES[0]] * 3 + [LINES[1]] * 3
    assert len({record["source"] for record in records}) > 2


def test_sampling_is_the_same_for_any_size_of_batches(run):
    sampled = ("decoding.do_sample=true", "decoding.temperature=2")
    records = run(*sampled)
    assert run(*sampled, "decoding.batch_tokens=20", "overwrite=true") == records
    assert run(*sampled, "decoding.seed=1", "overwrite=true") != records


def test_the_tag_stands_before_the_source_and_survives_cleaning_and_the_tokenizer(run, tmp_path):
    from hf_nmt.cleaning.pipeline import NamedStep, apply_step
    from hf_nmt.cleaning.settings import default_steps, named_steps
    from hf_nmt.cleaning.step import CorpusStep
    from hf_nmt.data.readers import Corpus, Pair
    from hf_nmt.data.records import tables_of
    from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

    records = run("tag=<BT>")
    assert all(record["source"].startswith("<BT> ") for record in records)
    pairs = (
        Pair(1, "<BT> Ein alter Mann sitzt auf einer Bank.", "An old man is sitting on a bench.", None, {})
        for _ in range(1)
    )
    (table,) = tables_of(Corpus("x", "line", pairs), {"source_language": "de", "target_language": "en"}, rows=9)
    for named in named_steps(default_steps()):
        if not isinstance(named.step, CorpusStep):
            table, gone, _ = apply_step(NamedStep(named.name, named.step), table, None)
            assert not len(gone), named.name
    assert table["source"].to_pylist() == ["<BT> Ein alter Mann sitzt auf einer Bank."]
    tagged = [record["source"] for record in records]
    settings = TokenizerSettings(vocab_size=330)
    tokenizer = train_tokenizer(tagged, LINES, settings, source_language="de", target_language="en")
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("<BT> balo")["input_ids"])
    assert "".join(pieces[:3]).endswith("<BT>") and tokenizer.unk_token not in pieces


def test_it_goes_on_after_the_last_shard_that_was_written(run, monkeypatch):
    whole = run()
    Path("synthetic.jsonl").unlink()
    write, windows = PartialOutput.write, []

    def dying(output, lines, text, statistics):
        if len(windows) == 1:
            raise KeyboardInterrupt
        windows.append(len(lines))
        write(output, lines, text, statistics)

    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not Path("synthetic.jsonl").exists() and windows == [16]
    kept = Path("synthetic.jsonl.partial").read_bytes()
    with pytest.raises(ConfigError, match=r"synthetic.jsonl.partial was begun with another tag"):
        run("tag=<BT>")
    assert Path("synthetic.jsonl.partial").read_bytes() == kept
    assert run() == whole and not Path("synthetic.jsonl.partial").exists()


@pytest.mark.slow
def test_a_killed_process_goes_on(model, tmp_path):
    (tmp_path / "mono.en").write_text("".join(f"{line}\n" for line in sentences(3000, seed=5)))
    command = [
        sys.executable, str(SCRIPT), f"model={model}", "device=cpu", "source_language=de", "target_language=en",
        "input=mono.en", "decoding.window_size=64",
    ]  # fmt: skip
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}}
    process = subprocess.Popen([*command, "output=out.jsonl"], **options)
    partial = tmp_path / "out.jsonl.partial"
    while not (partial.exists() and partial.stat().st_size > 20_000):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "output=out.jsonl"], **options, check=True)
    subprocess.run([*command, "output=again.jsonl.gz"], **options, check=True)
    assert gzip.decompress((tmp_path / "again.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()


def test_records_are_read_as_training_text(run):
    records = run()
    rows = load_pairs(CorpusSettings(path="synthetic.jsonl"), source_language="de", target_language="en")
    assert rows["source"][:] == [record["source"] for record in records]
    assert set(rows["synthetic"][:]) == {"backtranslation"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["source_language=en", "target_language=de"],
            r"model: for records from en to de text is translated from de to en, which .* does not do\. The source "
            r"language 'de' was asked for; this model has en\. .*swap source_language and target_language",
        ),
        (["input=nowhere.en"], r"input: nowhere.en: there is no such file"),
        (["input=empty.en"], r"empty.en: there is no text in it\. Give a file of one sentence a line"),
        (["input=rows.jsonl"], r"input: rows.jsonl is no plain text by its name"),
        (["output=old.jsonl"], r"output: old.jsonl exists\. Choose another name, or replace it with overwrite=true"),
        (["output=out.txt"], r"output: out.txt must end in .jsonl or .jsonl.gz: it holds records"),
        (["tag=a b"], r"tag: given 'a b'"),
        (["model=nowhere"], r"model: nowhere: there is no such folder"),
    ],
)
def test_refusals(run, arguments, message):
    for name, text in (("empty.en", "\n \n"), ("rows.jsonl", "{}\n"), ("old.jsonl", "{}\n")):
        Path(name).write_text(text)
    before = sorted(path.name for path in Path().iterdir())
    with pytest.raises((ConfigError, DataError, NmtError), match=message):
        run(*arguments)
    assert sorted(path.name for path in Path().iterdir() if not path.name.startswith(".")) == before
