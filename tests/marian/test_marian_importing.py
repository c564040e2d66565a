"""From the files of a Marian model to a folder that translates; with pymarian, to the same translations as Marian."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import marian_files
import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from settings_walk.keys import recipe_module
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt.data import controlled
from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.marian.importing import find_files, write_model
from hf_nmt.marian.vocabularies import read_vocabulary
from hf_nmt.translators import load_translator

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
    Path("text").write_text("".join(f"{text}\n" for text in marian_files.SENTENCES[:40]))
    texts = [f"data.{split}.{side}=text" for split in ("train", "validation") for side in ("source", "target")]
    capsys.readouterr()
    steps = ["max_steps=2", "eval_steps=2", "save_steps=1", "warmup_steps=0", "num_average_checkpoints=2"]
    arguments = [f"model.pretrained={folder}", "data.source_language=de", "data.target_language=nl", *texts]
    assert (
        recipe_module("train").main([*arguments, *(f"training.{step}" for step in steps), "decoding.num_beams=2"]) == 0
    )
    after = AutoModelForSeq2SeqLM.from_pretrained(capsys.readouterr().out.strip()).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert (
        "model.encoder.embed_positions.weight" not in changed and "model.decoder.embed_positions.weight" not in changed
    )
    assert "model.encoder.layers.0.fc1.weight" in changed


# Against Marian itself

TRAIN = (
    "train --type transformer --cpu-threads 1 -w 1500 --seed 7 --mini-batch 64 --maxi-batch 20 --learn-rate 0.002 "
    "--lr-warmup 200 --lr-decay-inv-sqrt 200 --clip-norm 1 --max-length 60 --save-freq 100000 --after-batches 350 "
    "--cost-type ce-mean-words --quiet"
).split()
SHAPES = {
    "tied": (["vocab.spm", "vocab.spm"], "--tied-embeddings-all --dim-vocabs 800 800 --dim-emb 64 --enc-depth 2 "
             "--dec-depth 2 --transformer-heads 4 --transformer-dim-ffn 128"),
    "untied": (["source.spm", "target.spm"], "--dim-vocabs 700 260 --dim-emb 96 --enc-depth 3 --dec-depth 1 "
               "--transformer-heads 8 --transformer-dim-ffn 160 --transformer-ffn-activation relu"),
}  # fmt: skip
# In a process of its own: Marian ends the process where it fails.
TRANSLATE = """
import json, sys
from pymarian import Translator
folder, vocabularies, beams, lines = json.load(sys.stdin)
options = dict(beam_size=beams, normalize=1, cpu_threads=1, max_length_factor=3)
options |= dict.fromkeys(("n_best", "quiet", "no_spm_decode"), True)
translator = Translator(models=f"{folder}/model.npz", vocabs=vocabularies, **options)
json.dump(translator.translate(lines), sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pymarian") is None, reason="needs pymarian (extra pymarian)")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_translations_as_marian(tmp_path, shape):
    """A model that Marian trains in two minutes. Greedy translations are the same, piece by piece, and scores of the
    same translation agree to 1e-3, with beams too. Beam search itself is done in two ways, so that a few translations
    differ: Marian's beam gets narrower with each finished hypothesis, and it goes on until none is left; that of
    `generate` stays wide, and ends when a better one of this length is impossible."""
    vocabularies, more = SHAPES[shape]
    pairs, test = controlled.build("tiny", "train")[:6000], controlled.build("tiny", "test")[:300]["source"]
    for side in ("source", "target"):
        (tmp_path / side).write_text("".join(f"{line}\n" for line in pairs[side]), encoding="utf-8")
    arguments = [*TRAIN, *more.split(), "--model", "model.npz", "--train-sets", "source", "target", "--vocabs"]
    command = "import sys, _pymarian; sys.exit(_pymarian.main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", command, *arguments, *vocabularies], cwd=tmp_path, check=True)
    folder = run(tmp_path / "model.npz", output=tmp_path / "imported")
    translator = load_translator(folder)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for beams in (1, 4):
        given = json.dumps([str(tmp_path), [str(tmp_path / name) for name in vocabularies], beams, list(test)])
        done = subprocess.run(
            [sys.executable, "-c", TRANSLATE], input=given, capture_output=True, text=True, check=True
        )
        theirs: dict[int, tuple[list[str], float]] = {}
        for line in json.loads(done.stdout):
            index, pieces, _, score = line.split(" ||| ")
            theirs.setdefault(int(index), (pieces.split(), float(score)))
        settings = DecodingSettings(num_beams=beams, split_sentences=False, max_length_ratio=3, max_length_extra=0)
        ours = [best[0] for best in translator.translate(test, settings)]
        assert len(ours) == len(theirs) == 300
        assert len({translation.text for translation in ours}) > 100
        different, better, worst = [], 0, 0.0
        for index, translation in enumerate(ours):
            pieces, score = theirs[index]
            if [token for token in translation.tokens if token != "</s>"] == pieces:
                assert translation.score == pytest.approx(score, abs=1e-3)
            else:
                different.append(index)
                better += translation.score > score
            ended = translation.finish_reason == "eos" and index not in different
            if ended or index in different:
                worst = max(worst, abs(score_of(model, tokenizer, test[index], pieces) - score))
        assert worst < 1e-3
        assert len(different) <= (0 if beams == 1 else 15)
        assert better >= len(different) / 2


def score_of(model, tokenizer, source: str, pieces: list[str]) -> float:
    """Mean log-probability of a translation in pieces, its end counted."""
    vocabulary = tokenizer.target_encoder if tokenizer.separate_vocabs else tokenizer.encoder
    target = torch.tensor([[*(vocabulary[piece] for piece in pieces), 0]])
    shifted = torch.cat([torch.full((1, 1), model.config.decoder_start_token_id), target[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(**tokenizer(source, return_tensors="pt"), decoder_input_ids=shifted).logits.log_softmax(-1)
    return logits.gather(2, target[..., None]).mean().item()
