"""Models that Marian trains, imported: the same translations as Marian's own, or the exact reason why not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import NamedTuple

import pytest
import sentencepiece
import torch
from settings_walk.keys import recipe_module

from hf_nmt.data import controlled
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.marian.weights import EOS, UNKNOWN
from hf_nmt.translators import load_translator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("pymarian") is None, reason="needs pymarian, see setup.cfg"),
]
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
model, vocabularies, options, lines = json.load(sys.stdin)
options |= dict(normalize=1, cpu_threads=1, max_length_factor=3)
options |= dict.fromkeys(("n_best", "word_scores", "quiet", "no_spm_decode"), True)
json.dump(Translator(models=model, vocabs=vocabularies, **options).translate(lines), sys.stdout)
"""
# Of a log-probability. The two add in another order, their layer norms add 1e-6 (Marian) or 1e-5 to a variance, and
# Marian writes six digits: for one piece they were never further apart than 5e-5.
SAME = 1e-4


class Found(NamedTuple):
    """The best translation of a sentence by Marian: pieces without their end, a log-probability for each and for the
    end, their mean."""

    pieces: list[str]
    scores: list[float]
    score: float


class Trained(NamedTuple):
    model: str
    vocabularies: list[str]

    def translate(self, lines: list[str], **options: object) -> list[Found]:
        given = json.dumps([self.model, self.vocabularies, options, lines])
        command = [sys.executable, "-c", TRANSLATE]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        best: dict[int, Found] = {}
        for line in json.loads(done.stdout):
            number, pieces, scores, *_, score = line.split(" ||| ")
            best.setdefault(int(number), Found(pieces.split(), [*map(float, scores.split()[1:])], float(score)))
        assert sorted(best) == [*range(len(lines))]
        return list(best.values())

    def score_next(self, source: str, pieces: list[str]) -> float:
        """Log-probability of the last of these pieces, after the others."""
        splitter = sentencepiece.SentencePieceProcessor(model_file=self.vocabularies[0])
        line = "\t".join([" ".join(splitter.encode(source, out_type=str)), " ".join(pieces)])
        options = {"beam_size": 1, "force_decode": True, "tsv": True, "tsv_fields": 2, "no_spm_encode": True}
        (found,) = self.translate([line], **options)
        assert found.pieces[: len(pieces)] == pieces
        return found.scores[len(pieces) - 1]


class Imported:
    def __init__(self, folder) -> None:
        self.translator = load_translator(folder, device="cpu")
        self.model, self.tokenizer = self.translator.model, self.translator.tokenizer
        self.numbers = self.tokenizer.target_encoder if self.tokenizer.separate_vocabs else self.tokenizer.encoder

    def next_scores(self, source: str, rows: list[list[int]]) -> torch.Tensor:
        """Log-probabilities of all pieces at each position, (rows, T + 1, V)."""
        start = self.model.config.decoder_start_token_id
        read = self.tokenizer([source] * len(rows), return_tensors="pt")
        with torch.no_grad():
            written = torch.tensor([[start, *row] for row in rows])
            return self.model(**read, decoder_input_ids=written).logits.log_softmax(-1)

    def scores(self, source: str, found: Found) -> list[float]:
        ids = [*(self.numbers[piece] for piece in found.pieces), EOS]
        table = self.next_scores(source, [ids[:-1]])[0]
        return [row[number].item() for row, number in zip(table, ids, strict=True)][: len(found.scores)]

    def search_as_marian(self, source: str, width: int) -> list[str]:
        """Marian's beam search (src/translator/beam_search.cpp): each hypothesis that ends narrows the beam by one,
        and it goes on until all have ended; of these the one of the best mean is taken."""
        limit = 3 * len(self.tokenizer(source)["input_ids"])
        live: list[tuple[float, list[int]]] = [(0.0, [])]
        ended: list[tuple[float, list[int]]] = []
        for length in range(1, limit + 1):
            table = self.next_scores(source, [ids for _, ids in live])[:, -1]
            table[:, UNKNOWN] = -torch.inf
            totals, places = (torch.tensor([[total] for total, _ in live]) + table).flatten().topk(width)
            size = table.shape[1]
            grown = [
                (total, [*live[place // size][1], place % size])
                for total, place in zip(totals.tolist(), places.tolist(), strict=True)
            ]
            ended += [(total / length, ids) for total, ids in grown if ids[-1] == EOS or length == limit]
            live = [(total, ids) for total, ids in grown if ids[-1] != EOS]
            width = len(live)
            if not live:
                break
        names = {number: piece for piece, number in self.numbers.items()}
        return [names[number] for number in max(ended)[1] if number != EOS]


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """A model that Marian trains in two minutes, and the same imported."""
    vocabularies, more = SHAPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    pairs = controlled.build("tiny", "train")[:6000]
    for side in ("source", "target"):
        (folder / side).write_text("".join(f"{line}\n" for line in pairs[side]), encoding="utf-8")
    arguments = [*TRAIN, *more.split(), "--model", "model.npz", "--train-sets", "source", "target", "--vocabs"]
    command = "import sys, _pymarian; sys.exit(_pymarian.main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", command, *arguments, *vocabularies], cwd=folder, check=True)
    return import_model(Trained(str(folder / "model.npz"), [str(folder / name) for name in vocabularies]), folder)


def import_model(marian: Trained, folder) -> tuple[Trained, Imported]:
    arguments = [marian.model, f"vocabularies=[{','.join(marian.vocabularies)}]", f"output={folder / 'imported'}"]
    assert recipe_module("import_marian").main(arguments) == 0
    return marian, Imported(folder / "imported")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return list(controlled.build("tiny", "test")[:300]["source"])


def compare(pair, sentences, beams: int):
    """Assert that both give the same translations the same scores; return where the translations differ."""
    marian, imported = pair
    settings = DecodingSettings(num_beams=beams, split_sentences=False, max_length_ratio=3, max_length_extra=0)
    ours = [best[0] for best in imported.translator.translate(sentences, settings)]
    theirs = marian.translate(sentences, beam_size=beams)
    assert len({" ".join(found.pieces) for found in theirs}) > 100
    different = []
    for number, (translation, found) in enumerate(zip(ours, theirs, strict=True)):
        pieces = [token for token in translation.tokens if token != "</s>"]
        if pieces != found.pieces:
            different.append((sentences[number], pieces, found))
            assert imported.scores(sentences[number], found) == pytest.approx(found.scores, abs=SAME)
        else:
            assert translation.token_scores == pytest.approx(found.scores, abs=SAME)
            assert translation.score == pytest.approx(found.score, abs=SAME)
    return different


def test_greedy_translations_part_only_where_two_pieces_are_equal(pair, sentences):
    """Where they part, both systems give the two pieces log-probabilities that are the same but for rounding."""
    marian, imported = pair
    different = compare(pair, sentences, 1)
    assert len(different) <= 3
    for source, pieces, found in different:
        place = next(n for n, both in enumerate(zip(pieces, found.pieces, strict=False)) if len({*both}) > 1)
        ids = [imported.numbers[piece] for piece in pieces[:place]]
        table = imported.next_scores(source, [ids])[0, -1]
        ours, theirs = (table[imported.numbers[piece]].item() for piece in (pieces[place], found.pieces[place]))
        assert 0 <= ours - theirs < SAME
        assert -SAME < marian.score_next(source, pieces[: place + 1]) - found.scores[place] <= 0


def test_beams_differ_only_as_the_two_searches_do(pair, sentences):
    """Where they differ, both give Marian's translation the same probability, and Marian's search over the imported
    model finds it, piece by piece."""
    _, imported = pair
    different = compare(pair, sentences, 4)
    assert len(different) <= 30
    for source, _, found in different:
        assert imported.search_as_marian(source, 4) == found.pieces
