from __future__ import annotations

import pytest
import torch
from toy_training import make_model, make_tokenizer
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from hf_nmt.errors import NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.training.finish import duration_text, save_model
from hf_nmt.training.saved import check_saved


def test_a_saved_model_is_the_same_and_decodes_as_told(tmp_path):
    model, folder = make_model(dropout=0.3).train(), tmp_path / "best"
    save_model(model, make_tokenizer(), folder, DecodingSettings(num_beams=3, length_penalty=0.7))
    assert model.training
    loaded = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.num_beams, generation.length_penalty) == (3, 0.7)
    assert generation.decoder_start_token_id == 2 and generation.eos_token_id == 3
    assert loaded.config.use_cache
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".py"}
    save_model(model, make_tokenizer(), folder, DecodingSettings(num_beams=1))  # takes the place of the old one
    assert GenerationConfig.from_pretrained(folder).num_beams == 1


def test_a_model_that_takes_short_texts_only_is_checked_too(tmp_path):
    model = make_model(max_position_embeddings=16)
    save_model(model, make_tokenizer(), tmp_path / "best", DecodingSettings())
    generation = GenerationConfig.from_pretrained(tmp_path / "best")
    assert generation.max_length == 16  # not the 20 of Transformers
    ids = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "best").generate(torch.tensor([[5, 6, 3]]))
    assert ids.shape[1] <= 16


def test_a_weight_that_comes_back_different_is_an_error(tmp_path):
    model = make_model()
    save_model(model, make_tokenizer(), tmp_path / "best", DecodingSettings())
    with torch.no_grad():
        model.model.encoder.embed_tokens.weight[5, 0] += 1e-6
    with pytest.raises(NmtError, match="read back differently: the weight .* came back different"):
        check_saved(model, make_tokenizer(), tmp_path / "best")


def test_a_setting_that_comes_back_different_is_an_error(tmp_path):
    model = make_model()
    save_model(model, make_tokenizer(), tmp_path / "best", DecodingSettings())
    model.model.encoder.embedding_scale *= 2
    with pytest.raises(NmtError, match="its logits differ by up to"):
        check_saved(model, make_tokenizer(), tmp_path / "best")


def test_nothing_stays_of_a_model_that_is_not_right(tmp_path, monkeypatch):
    def fail(*args):
        raise NmtError("different")

    monkeypatch.setattr("hf_nmt.training.finish.check_saved", fail)
    with pytest.raises(NmtError, match="different"):
        save_model(make_model(), make_tokenizer(), tmp_path / "best", DecodingSettings())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.54, "1.5 s"), (59.97, "1 min 00 s"), (70.2, "1 min 10 s"), (3599.9, "1 h 00 min"), (7512, "2 h 05 min")],
)
def test_a_duration_is_told_in_units_that_suit_it(seconds, text):
    assert duration_text(seconds) == text
