"""From the files of a Marian model to a folder that translates."""

from __future__ import annotations

import logging
from pathlib import Path

import marian_files
import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from safetensors.torch import load_file
from settings_walk.keys import recipe_module
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.generation import adapters
from hf_nmt.generation.adapters import write_adapter
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.marian.importing import find_files, write_model
from hf_nmt.marian.vocabularies import read_vocabulary
from hf_nmt.training.adapters import AdapterSettings, add_adapter, merge_folder
from hf_nmt.translators import load_model, load_translator
from hf_nmt.vocabularies.adaptation import adapt_vocabulary
from hf_nmt.vocabularies.settings import VocabularySettings

TEXTS = ["derhund siehtein hausn.", "katzezwei", "ein Fisch ☂."]


def run(*argv, **options):
    arguments = [str(argument) for argument in argv] + [f"{key}={value}" for key, value in options.items()]
    assert recipe_module("import_marian").main(arguments) == 0
    return Path(options["output"])


@pytest.mark.parametrize("tied", ["all", "sides", "target", "none"])
def test_a_folder_translates_as_its_parameters_say(tmp_path, tied, capsys):
    """Greedy search of the second implementation gives what the translator of the imported folder gives."""
    path = marian_files.write_model(tmp_path / "marian", tied)
    folder = run(path, output=tmp_path / "imported", source_language="de", target_language="de")
    assert capsys.readouterr().out == f"{folder}\n"
    opts = marian_files.options(tied)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if not name.startswith("special")}
    source, target = (
        sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm")) for side in ("source", "target")
    )
    settings = DecodingSettings(num_beams=1, split_sentences=False, max_length_ratio=0, max_length_extra=8)
    found = [best[0] for best in load_translator(folder).translate(TEXTS, settings)]
    assert len(found) == len(TEXTS)
    for text, translation in zip(TEXTS, found, strict=True):
        ids, scores = [], []
        while len(ids) < 8 and (not ids or ids[-1] != 0):
            last = marian_files.log_probabilities(opts, arrays, [*source.encode(text), 0], [*ids, 0])[-1]
            last[1] = -np.inf  # Marian never takes the unknown word
            ids.append(int(last.argmax()))
            scores.append(last.max())
        assert translation.text == target.decode([token for token in ids if token]).strip()
        assert translation.token_scores == pytest.approx(scores, abs=1e-3)


def test_two_vocabularies_of_different_size(tmp_path):
    path = marian_files.write_model(tmp_path / "marian", "none")
    folder = run(path, output=tmp_path / "imported")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    source, target = (read_vocabulary(tmp_path / "marian" / f"{side}.spm") for side in ("source", "target"))
    assert len(source) > len(target)
    assert tokenizer.pad_token_id == model.config.pad_token_id == len(source)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "marian" / "source.spm"))
    assert tokenizer(TEXTS[0])["input_ids"] == [*pieces.encode(TEXTS[0]), 0]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "marian" / "target.spm"))
    assert tokenizer(text_target=TEXTS[1])["input_ids"] == [*pieces.encode(TEXTS[1]), 0]
    assert tokenizer.decode(pieces.encode(TEXTS[1]), skip_special_tokens=True) == TEXTS[1]


def test_search_settings_come_from_the_decoders_file(tmp_path, caplog):
    path = marian_files.write_model(tmp_path / "marian")
    files = find_files(path)
    (tmp_path / "one").mkdir()
    model, _ = write_model(files, tmp_path / "one")
    found = model.generation_config
    assert (found.num_beams, found.length_penalty, found.suppress_tokens) == (3, 0.6, [1])
    (tmp_path / "other.yml").write_text("beam-size: 7\nallow-unk: true\nword-penalty: 0.5\n")
    files = find_files(path, [tmp_path / "marian" / "vocab.spm"], decoder=tmp_path / "other.yml")
    (tmp_path / "two").mkdir()
    with caplog.at_level(logging.WARNING, "hf_nmt"):
        model, _ = write_model(files, tmp_path / "two")
    found = model.generation_config
    assert (found.num_beams, found.length_penalty, found.suppress_tokens) == (7, None, None)
    assert "word-penalty of the decoder is 0.5; it has no counterpart and is left out" in caplog.text


def test_vocabularies_of_pieces(tmp_path):
    """As OPUS-MT has them: one list of pieces in another order, and SentencePiece models of source and target."""
    path = marian_files.write_model(tmp_path / "marian")
    spm = tmp_path / "marian" / "vocab.spm"
    pieces = read_vocabulary(spm)
    shuffled = {piece: number if number < 2 else len(pieces) + 1 - number for piece, number in pieces.items()}
    (tmp_path / "vocab.yml").write_text(yaml.safe_dump(shuffled, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"splitters: .*vocab.yml lists pieces, and does not say how text is split"):
        find_files(path, [tmp_path / "vocab.yml"])
    folder = run(path, vocabularies=tmp_path / "vocab.yml", splitters=spm, output=tmp_path / "imported")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [shuffled[piece] for piece in sentencepiece.SentencePieceProcessor(model_file=str(spm)).encode(
        TEXTS[0], out_type=str)]  # fmt: skip
    assert tokenizer(TEXTS[0])["input_ids"] == [*expected, 0]
    assert tokenizer.decode([*expected, 0], skip_special_tokens=True) == TEXTS[0]


def test_files_that_do_not_belong_together(tmp_path):
    path = marian_files.write_model(tmp_path / "marian")
    other = marian_files.write_spm(tmp_path / "other.spm", 45)
    with pytest.raises(DataError, match=r"other.spm: it has 45 entries, and the embeddings of the model 60"):
        write_model(find_files(path, [other]), tmp_path)
    twin = marian_files.write_spm(tmp_path / "twin.spm", 60, [text[::-1] for text in marian_files.SENTENCES])
    with pytest.raises(DataError, match="source and target share their embeddings, so that they have one vocabulary"):
        write_model(find_files(path, [tmp_path / "marian" / "vocab.spm", twin]), tmp_path)
    (path.parent / "model.npz.decoder.yml").unlink()
    with pytest.raises(ConfigError, match="vocabularies: 0 were found, and the model has one or two"):
        find_files(path)
    with pytest.raises(ConfigError, match="splitters: 3 are given"):
        find_files(path, [other], [other] * 3)


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("v.spm", b"no model", "this is not a SentencePiece model"),
        ("v.yml", b"a: [", "this is not a vocabulary"),
        ("v.yml", b"- a", "a vocabulary holds lines of `piece: number`"),
        ("v.yml", b"a: 0\nb: 1\n", "</s> and <unk> have the numbers None and None; in Marian they are 0 and 1"),
        ("v.fsv", b"", "Factored vocabularies are not imported"),
        ("v.txt", b"", r"ends in .spm, .yml, .yaml or .json"),
    ],
)
def test_vocabularies_that_cannot_be_used(tmp_path, name, content, answer):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=answer):
        read_vocabulary(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "answer"), [(b"a: [", "this is not YAML"), (b"- a", "the decoder's file holds options")]
)
def test_decoder_files_that_cannot_be_used(tmp_path, content, answer):
    path = marian_files.write_model(tmp_path)
    (tmp_path / "d.yml").write_bytes(content)
    with pytest.raises(DataError, match=answer):
        find_files(path, decoder=tmp_path / "d.yml")


def test_options_that_are_no_yaml(tmp_path):
    path = marian_files.write_model(tmp_path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["special:model.yml"] = np.frombuffer(b"type: [", dtype=np.int8)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="special:model.yml is not YAML"):
        find_files(path)


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        recipe_module("import_marian").main(["missing.npz", "vocabularies=[a.spm,b.spm]"])
    assert error.value.findings == [
        "output: not given. Type output=PATH.",
        "model: there is no file missing.npz.",
        "vocabularies: there is no file a.spm.",
        "vocabularies: there is no file b.spm.",
    ]
    path = marian_files.write_model(tmp_path / "marian")
    folder = run(path, output="imported")
    with pytest.raises(ConfigError, match="output: imported is there already; overwrite=true replaces it"):
        run(path, output="imported")
    before = (folder / "model.safetensors").read_bytes()
    marian_files.write_model(tmp_path / "marian", seed=3)
    run(path, output="imported", overwrite="true")
    assert (folder / "model.safetensors").read_bytes() != before


def test_what_is_no_model_is_not_replaced(tmp_path):
    path = marian_files.write_model(tmp_path / "marian")
    mine = tmp_path / "thesis" / "chapter.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(ConfigError, match="output: .*thesis is no model, and so is not replaced. Choose another name"):
        run(path, output=mine.parent, overwrite="true")
    assert mine.read_text() == "years of work"


def test_its_positions_go_into_every_copy(tmp_path):
    """Saved from memory, merged with an adapter of its own, with another vocabulary."""
    folder = run(marian_files.write_model(tmp_path / "marian"), output=tmp_path / "imported")
    texts = dict.fromkeys(("source", "target"), marian_files.SENTENCES)
    model, tokenizer = load_model(folder)
    positions = model.model.decoder.embed_positions.weight.clone()
    model.save_pretrained(tmp_path / "copy")
    add_adapter(model, AdapterSettings(rank=2))
    adapters.write_adapter(model, tmp_path / "adapter")
    merge_folder(tmp_path / "adapter", tmp_path / "merged")
    adapt_vocabulary(*load_model(folder), tmp_path / "small", VocabularySettings(trim=True), texts)
    for copy in ("copy", "merged", "small"):
        found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / copy).model.decoder.embed_positions.weight
        assert torch.equal(found, positions), copy


def test_nothing_half_made_stays(tmp_path):
    path = marian_files.write_model(tmp_path / "marian")
    other = marian_files.write_spm(tmp_path / "other.spm", 45)
    with pytest.raises(NmtError):
        run(path, vocabularies=other, output=tmp_path / "imported")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["marian", "other.spm"]


def test_an_imported_model_is_trained_further_with_its_positions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = run(marian_files.write_model(tmp_path / "marian"), output=tmp_path / "imported")
    before = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
    for side in ("source", "target"):
        Path(side).write_text("".join(f"{text}\n" for text in marian_files.SENTENCES[:40]))
    texts = [f"data.{split}.{side}={side}" for split in ("train", "validation") for side in ("source", "target")]
    capsys.readouterr()
    steps = ["max_steps=2", "eval_steps=2", "save_steps=1", "num_average_checkpoints=2"]
    arguments = [f"model.pretrained={folder}", "data.source_language=de", "data.target_language=nl", *texts]
    settings = [*(f"training.{step}" for step in steps), "schedule.warmup_steps=0", "decoding.num_beams=2"]
    assert recipe_module("train").main([*arguments, *settings]) == 0
    after = AutoModelForSeq2SeqLM.from_pretrained(capsys.readouterr().out.strip()).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert (
        "model.encoder.embed_positions.weight" not in changed and "model.decoder.embed_positions.weight" not in changed
    )
    assert "model.encoder.layers.0.fc1.weight" in changed


def test_positions_go_along_with_adapters_and_vocabularies(tmp_path, monkeypatch, capsys):
    """A merged adapter and a trimmed vocabulary of an imported model still have Marian's positions, in the file."""
    monkeypatch.chdir(tmp_path)
    folder = run(marian_files.write_model(tmp_path / "marian"), output=tmp_path / "imported")
    wanted = load_file(folder / "model.safetensors")
    model, tokenizer = load_model(folder)
    add_adapter(model, AdapterSettings(rank=2))
    write_adapter(model, "adapter")
    tokenizer.save_pretrained("adapter")
    merge_folder(Path("adapter"), Path("merged"), base=str(folder))
    Path("text").write_text("".join(f"{text}\n" for text in marian_files.SENTENCES[:3]))
    texts = [f"data.train.{side}=text" for side in ("source", "target")]
    assert recipe_module("adapt_vocabulary").main([str(folder), "output=trimmed", "trim=true", *texts]) == 0
    assert len(AutoTokenizer.from_pretrained("trimmed")) < len(tokenizer)
    for copy in ("merged", "trimmed"):
        found = load_file(Path(copy) / "model.safetensors")
        for side in ("encoder", "decoder"):
            name = f"model.{side}.embed_positions.weight"
            assert torch.equal(found[name], wanted[name])
