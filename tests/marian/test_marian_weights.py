"""Parameters of Marian in MarianMTModel: equal to a second implementation of Marian, and nothing left over."""

from __future__ import annotations

import os
import subprocess
import sys

import marian_files
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, MarianConfig, MarianMTModel

from hf_nmt.errors import DataError
from hf_nmt.marian.archive import ALLOWED, read_archive
from hf_nmt.marian.weights import NEVER, build_model
from hf_nmt.models.marian_positions_nmt import keep_positions, position_table
from hf_nmt.translators import SavedModel

SOURCE, TARGET = [5, 9, 4, 12, 3, 8, 0], [7, 4, 11, 6, 0]
SIZES = (20, 20)
POSITIONS = {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}


def write(folder, tied="all", sizes=SIZES, keep=lambda arrays: arrays, **changes):
    opts = marian_files.options(tied, **changes)
    arrays = marian_files.random_arrays(opts, sizes)
    return opts, arrays, marian_files.write_npz(folder / "model.npz", opts, keep(arrays))


def log_probabilities(model, source=SOURCE, target=TARGET):
    start = model.config.decoder_start_token_id
    decoder = torch.tensor([[start, *target[:-1]]])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=decoder).logits
    return logits.log_softmax(-1)[0].float().numpy()


@pytest.mark.parametrize(
    ("tied", "sizes", "changes"),
    [
        ("all", (20, 20), {}),
        ("all", (20, 20), {"transformer-ffn-activation": "gelu", "output-omit-bias": True, "transformer-heads": 2}),
        ("target", (25, 20), {"transformer-ffn-activation": "relu", "dec-depth": 3}),
        ("target", (20, 33), {"transformer-decoder-dim-ffn": 10}),
        ("sides", (20, 20), {"dim-emb": 20, "transformer-heads": 5}),
        ("none", (20, 26), {"enc-depth": 1, "transformer-dim-ffn": 40}),
    ],
)
def test_probabilities_are_those_of_a_second_implementation(tmp_path, tied, sizes, changes):
    opts, arrays, path = write(tmp_path, tied, sizes, **changes)
    model = build_model(read_archive(path))
    ours, theirs = log_probabilities(model), marian_files.log_probabilities(opts, arrays, SOURCE, TARGET)
    assert theirs.shape == (len(TARGET), sizes[1])
    # The layer norms differ in what they add to the variance: 1e-5 in Transformers, 1e-6 in Marian.
    np.testing.assert_allclose(ours[:, : sizes[1]], theirs, atol=2e-4)
    assert (np.exp(ours[:, sizes[1] :]) == 0).all()
    assert np.abs(theirs).max() > 1


def test_the_folder_holds_everything(tmp_path):
    """As saved and loaded by Transformers alone, and once more."""
    _, _, path = write(tmp_path, "none", (25, 20))
    model = build_model(read_archive(path))
    before = log_probabilities(model)
    for number in range(2):
        model.save_pretrained(tmp_path / f"saved-{number}")
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / f"saved-{number}")
        assert keep_positions(model)
        assert not model.model.encoder.embed_positions.weight.requires_grad
        assert np.array_equal(log_probabilities(model), before)
    assert load_file(tmp_path / "saved-1" / "model.safetensors").keys() >= POSITIONS


ALONE = """
import sys
sys.modules["hf_nmt"] = None  # not to be imported, wherever it is installed
import numpy, torch
from transformers import AutoModelForSeq2SeqLM
folder, source, target = sys.argv[1], *(torch.tensor([eval(ids)]) for ids in sys.argv[2:])
with torch.no_grad():
    logits = AutoModelForSeq2SeqLM.from_pretrained(folder)(input_ids=source, decoder_input_ids=target).logits
numpy.save(f"{folder}/logits.npy", logits.log_softmax(-1)[0].numpy())
"""


def test_transformers_alone_computes_what_marian_does(tmp_path):
    """Where hf_nmt is not installed."""
    opts, arrays, path = write(tmp_path, "target", (25, 20))
    model = build_model(read_archive(path))
    model.save_pretrained(tmp_path / "saved")
    ids = str(SOURCE), str([model.config.decoder_start_token_id, *TARGET[:-1]])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", ALONE, str(tmp_path / "saved"), *ids]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "saved" / "logits.npy")
    assert np.array_equal(found, log_probabilities(model))
    theirs = marian_files.log_probabilities(opts, arrays, SOURCE, TARGET)
    np.testing.assert_allclose(found[:, :20], theirs, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_that_transformers_dropped_come_back(tmp_path, dtype):
    """Transformers loads the folder and saves it without its positions; hf_nmt opens what it saved as it was."""
    _, _, path = write(tmp_path)
    build_model(read_archive(path)).save_pretrained(tmp_path / "imported")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "imported", dtype=dtype)
    before = log_probabilities(plain)
    plain.save_pretrained(tmp_path / "dropped")
    assert not load_file(tmp_path / "dropped" / "model.safetensors").keys() & POSITIONS
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "dropped", dtype=dtype)
    assert np.abs(log_probabilities(again) - before).max() > 0.01
    model = SavedModel(str(tmp_path / "dropped")).model(dtype=dtype)
    assert np.array_equal(log_probabilities(model), before)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert np.array_equal(log_probabilities(again), before)


def test_positions_of_transformers_stay_with_transformers(tmp_path):
    config = MarianConfig(vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                          decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=8,
                          decoder_start_token_id=8, max_position_embeddings=16)  # fmt: skip
    MarianMTModel(config).save_pretrained(tmp_path)
    model = MarianMTModel.from_pretrained(tmp_path)
    assert not keep_positions(model)
    model.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "positions" in name]


def test_positions_by_their_closed_form():
    table = position_table(50, 6).numpy()
    # Width 6: three frequencies, 1, 1/100 and 1/10000.
    for position in (0, 1, 7, 49):
        angles = position * np.array([1, 1e-2, 1e-4])
        np.testing.assert_allclose(table[position], [*np.sin(angles), *np.cos(angles)], atol=1e-5)


def test_padding_starts_from_nothing_and_is_never_taken(tmp_path):
    _, _, path = write(tmp_path, "target", (25, 20))
    model = build_model(read_archive(path))
    padding = model.config.pad_token_id
    assert padding == model.config.decoder_start_token_id == 25
    assert not model.model.decoder.embed_tokens.weight[padding].any()
    assert (model.final_logits_bias[0, 20:] == NEVER).all() and (model.final_logits_bias[0, :20] != NEVER).all()


def test_parameters_that_do_not_fit_are_told_all_at_once(tmp_path):
    def spoil(arrays):
        del arrays["encoder_l1_self_Wq"]
        arrays["decoder_l1_ffn_W1"] = arrays["decoder_l1_ffn_W1"].T
        arrays["decoder_ff_logit_out_b"] = arrays["decoder_ff_logit_out_b"][:, :7]
        arrays["decoder_l1_extra"] = arrays["decoder_l1_ffn_b2"]
        return arrays

    _, _, path = write(tmp_path, keep=spoil)
    with pytest.raises(DataError) as error:
        build_model(read_archive(path))
    message = str(error.value)
    assert "the parameter encoder_l1_self_Wq is missing." in message
    assert "the parameter decoder_l1_ffn_W1 has the shape (24, 16) instead of (16, 24)." in message
    assert "the parameter decoder_ff_logit_out_b has 7 entries instead of 20." in message
    assert "these parameters have no place in MarianMTModel: decoder_l1_extra." in message


def test_embeddings_and_heads_that_cannot_be(tmp_path):
    _, _, path = write(tmp_path, keep=lambda arrays: {k: v for k, v in arrays.items() if k != "Wemb"})
    with pytest.raises(DataError, match="the parameter Wemb is missing, which its options ask for"):
        build_model(read_archive(path))
    _, _, path = write(tmp_path, **{"transformer-heads": 3})
    with pytest.raises(DataError, match=r"dim-emb is 16; it must be even and a multiple of transformer-heads \(3\)"):
        build_model(read_archive(path))


# What cannot be imported

OTHER_VALUES = {
    "type": "amun", "transformer-preprocess": "n", "transformer-postprocess": "da", "transformer-postprocess-emb": "n",
    "transformer-postprocess-top": "n", "transformer-decoder-autoreg": "rnn", "transformer-ffn-depth": 3,
    "transformer-decoder-ffn-depth": 1, "transformer-ffn-activation": "tanh", "transformer-attention-mask": "alibi",
    "transformer-no-projection": True, "transformer-pool": True, "transformer-no-bias": True, "right-left": True,
    "transformer-no-affine": True, "transformer-tied-layers": [1, 1], "transformer-train-position-embeddings": True,
    "transformer-disable-position-embeddings": True, "lemma-dependency": "re-embedding", "ulr": True,
}  # fmt: skip


def test_every_option_that_stands_against_it_is_told(tmp_path):
    assert OTHER_VALUES.keys() == ALLOWED.keys()
    for name, value in OTHER_VALUES.items():
        path = write(tmp_path)[2]
        marian_files.write_npz(path, marian_files.options("all", **{name: value}), {})
        with pytest.raises(DataError) as error:
            read_archive(path)
        assert f"{name} is " in str(error.value) and "allowed: " in str(error.value)
        assert str(error.value).count("\n") == 1


def test_a_prenorm_ssru_model_is_told_of_both(tmp_path):
    changes = {"transformer-preprocess": "n", "transformer-postprocess": "da", "transformer-decoder-autoreg": "rnn"}
    _, _, path = write(tmp_path, **changes)
    with pytest.raises(DataError) as error:
        read_archive(path)
    message = str(error.value)
    assert "transformer-postprocess is 'da', allowed: 'dan' or 'an'. MarianMTModel has its layer norm after" in message
    assert "transformer-decoder-autoreg is 'rnn', allowed: 'self-attention'." in message and "no SSRU" in message


def test_options_that_are_missing(tmp_path):
    opts, arrays, path = write(tmp_path)
    marian_files.write_npz(path, {name: value for name, value in opts.items() if name != "enc-depth"}, arrays)
    with pytest.raises(DataError, match="enc-depth is missing from its options"):
        read_archive(path)
    marian_files.write_npz(path, ["no", "options"], arrays)
    with pytest.raises(DataError, match="not the options of a model"):
        read_archive(path)


def test_arrays_of_other_types(tmp_path):
    def quantized(arrays):
        return arrays | {"Wemb": arrays["Wemb"].astype(np.int8)}

    _, _, path = write(tmp_path, keep=quantized)
    with pytest.raises(DataError, match="Wemb and 0 more are of type int8, allowed: float32, float16"):
        read_archive(path)


def test_files_that_are_no_models(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", a=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "model.bin").write_bytes(b"\x01\x02")
    for name, answer in (
        ("other.npz", "there is no 'special:model.yml' in the file"),
        ("pickled.npz", "Object arrays cannot be loaded"),
        ("text.npz", "this is not a whole .npz file of Marian"),
        ("model.bin", "Give the .npz file it was made from."),
        ("missing.npz", "there is no such file"),
    ):
        with pytest.raises(DataError, match=answer):
            read_archive(tmp_path / name)


def test_an_archive_cut_off(tmp_path):
    _, _, path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="this is not a whole .npz file of Marian"):
        read_archive(path)
