"""The tokenizer of M2M100 as one of NLLB: the same pieces and ids, and open to further codes of languages.

M2M100Tokenizer has its codes in its source and numbers them itself, so that no file can hold another one. The models
of NLLB are of the same class as those of M2M100, and their tokenizer puts the code of a language in the same place;
but its codes are special tokens like any, in files. A code of M2M100 is then written as its token, `__de__`, because
the piece `de` is one of text.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import NllbTokenizer

from hf_nmt.errors import NmtError, need
from hf_nmt.tokenizer_training import SPACE
from hf_nmt.vocabularies.subword_models import ScoredBpe
from hf_nmt.vocabularies.tokenizer_files import (
    NORMAL,
    SOURCE,
    SentencePieceFiles,
    Vocabulary,
    with_pieces,
)

# Of random pieces in a row, which differ far oftener than text: there two ways to join one piece meet.
NUM_PROBES, PROBE_LENGTH, MAX_DIFFERENT = 500, 12, 0.05
_INSTEAD = "Its class has no room for another code: let the new language take the code of one that you do not need."


class InNllbLayout(SentencePieceFiles):
    """Reads the files of M2M100Tokenizer, and writes those of NllbTokenizer.

    SentencePiece joins any two neighbours whose union is a piece, the highest score first; here they are merges in
    that order. They differ where one piece can be joined in two ways at once, of which SentencePiece takes the left
    one. White space at the ends of a text, which SentencePiece strips, becomes a piece.

    Raises:
        NmtError: the SentencePiece model has pieces that NllbTokenizer has no counterpart for.
    """

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        (old,) = self.vocabularies
        (part,) = old.parts
        if not isinstance(part.model, ScoredBpe) or any(piece.type > 3 for piece in self._protos[SOURCE].pieces):
            raise NmtError(
                f"add_languages: the SentencePiece model of this M2M100Tokenizer is no plain BPE. {_INSTEAD}"
            )
        self.vocabularies = [dataclasses.replace(old, tail=())]

    def write(self, folder: Path, vocabularies: Sequence[Vocabulary], config: dict[str, Any]) -> None:
        """See `TokenizerFiles.write`.

        Raises:
            NmtError: texts are not segmented as before.
        """
        (vocabulary,) = vocabularies
        (part,) = vocabulary.parts
        assert isinstance(part.model, ScoredBpe)
        index = {token: number for number, token in enumerate(vocabulary.tokens) if token is not None}
        proto = with_pieces(self._protos[SOURCE], part.model.scores)
        old, own = self.tokenizer, {*self.tokenizer.all_special_tokens}
        tokenizer = NllbTokenizer(
            vocab=index,
            merges=part.model.as_merges(index),
            _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap or None,
            extra_special_tokens=[token for token in index if token in vocabulary.fixed - own],
            src_lang=old.get_lang_token(old.src_lang),
            tgt_lang=old.get_lang_token(old.tgt_lang) if old.tgt_lang is not None else None,
            mask_token=None,
            model_max_length=old.model_max_length,
            **{f"{name}_token": getattr(old, f"{name}_token") for name in ("bos", "eos", "sep", "unk", "pad")},
        )
        tokenizer.save_pretrained(folder)
        self._check(tokenizer, proto, index)

    def _check(self, tokenizer: Any, proto: Any, index: dict[str, int]) -> None:
        """Compare the merges with SentencePiece itself, on random pieces in a row."""
        processor = need("sentencepiece", "sentencepiece").SentencePieceProcessor(
            model_proto=proto.SerializeToString()
        )
        pieces = sorted(piece.piece for piece in proto.pieces if piece.type == NORMAL and piece.piece in index)
        draw = random.Random(0)
        rows = ("".join(draw.choices(pieces, k=PROBE_LENGTH)).replace(SPACE, " ").strip() for _ in range(NUM_PROBES))
        different = sum(processor.encode(row, out_type=str) != tokenizer.tokenize(row) for row in rows)
        if different > MAX_DIFFERENT * NUM_PROBES:
            raise NmtError(
                f"add_languages: in the layout of NLLB, {different} of {NUM_PROBES} texts of random pieces are not "
                f"segmented as before. {_INSTEAD}"
            )
