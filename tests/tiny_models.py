"""Models of random weights that scorers are tried with."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = "der hund bellt ein kind schläft the dog barks a child sleeps . ,".split()


def save_translator(folder: Path, *, seed: int, languages: tuple[str, str] = ("de", "en")) -> Path:
    from settings_walk.inputs import write_model  # which imports this file

    write_model(folder, seed=seed)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= dict(zip(("source_language", "target_language"), languages, strict=True))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def save_causal(folder: Path, *, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=_tokenizer(folder), n_embd=16, n_layer=1, n_head=2, n_positions=32,
                        bos_token_id=1, eos_token_id=2)  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)
    model.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, *, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=_tokenizer(folder), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=32)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> int:
    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    own = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    symbols = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=own, **symbols).save_pretrained(folder)
    return len(words)
