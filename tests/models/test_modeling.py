"""The transformer against a second implementation, closed forms, and itself by another way."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.layers_nmt import SequenceLayout, rotate, sinusoidal_table
from hf_nmt.models.loss_nmt import smoothed_cross_entropy, smoothed_cross_entropy_from_logits
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration

PAD, BOS, EOS, VOCAB = 1, 2, 3, 60

VARIANTS = {
    "base": {},
    "post_norm_swiglu_rotary": {
        "norm_position": "post",
        "activation_function": "swiglu",
        "position_embedding": "rotary",
    },
    "learned_gelu_two_vocabularies": {
        "position_embedding": "learned",
        "activation_function": "gelu",
        "source_vocab_size": 70,
    },
    "untied_deep_encoder": {"tie_word_embeddings": False, "encoder_layers": 3, "decoder_layers": 1},
    "ssru": {"decoder_layer_type": "ssru"},
    "unscaled": {"scale_embedding": False, "encoder_attention_heads": 2},
}


def make_model(seed: int = 0, **settings) -> NmtForConditionalGeneration:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCAB,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
    }
    model = NmtForConditionalGeneration(NmtConfig(**shape | settings)).eval()
    with torch.no_grad():  # random weights as Xavier makes them give nearly uniform outputs
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name and "lm_head" not in name:
                weight.mul_(4.0 if "encoder_attn" in name else 2.0)
    return model


@pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
def model(request) -> NmtForConditionalGeneration:
    return make_model(**VARIANTS[request.param])


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(4, VOCAB, (4, 7), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    attention_mask[2, 3:] = 0
    labels = torch.randint(4, VOCAB, (4, 6), generator=generator)
    labels[0, 4:] = -100
    labels[2, 2:] = -100
    return {
        "input_ids": input_ids.masked_fill(attention_mask == 0, PAD),
        "attention_mask": attention_mask,
        "labels": labels,
    }


class TestForward:
    def test_attention_implementations_agree(self, model, batch):
        outputs = []
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            outputs.append(model(**batch))
        assert torch.allclose(outputs[0].logits, outputs[1].logits, atol=1e-4)
        assert torch.allclose(outputs[0].loss, outputs[1].loss, atol=1e-6)

    def test_padding_changes_nothing(self, model, batch):
        whole = model(**batch).logits
        for row in range(len(whole)):
            source = batch["input_ids"][row, batch["attention_mask"][row] == 1][None]
            labels = batch["labels"][row, batch["labels"][row] != -100][None]
            alone = model(input_ids=source, labels=labels).logits[0]
            assert torch.allclose(whole[row, : labels.shape[1]], alone, atol=1e-4)

    def test_left_padding_and_gaps_change_nothing(self, model):
        ids = torch.tensor([[5, 6, 7, 8]])
        decoder_ids = torch.tensor([[BOS, 9, 10]])
        plain = model(input_ids=ids, decoder_input_ids=decoder_ids).logits
        spread = model(
            input_ids=torch.tensor([[PAD, 5, 6, PAD, 7, 8]]),
            attention_mask=torch.tensor([[0, 1, 1, 0, 1, 1]]),
            decoder_input_ids=torch.tensor([[PAD, PAD, BOS, 9, 10]]),
            decoder_attention_mask=torch.tensor([[0, 0, 1, 1, 1]]),
        ).logits[:, 2:]
        assert torch.allclose(plain, spread, atol=1e-4)

    def test_the_future_does_not_matter(self, model, batch):
        ids = torch.randint(4, VOCAB, (4, 6), generator=torch.Generator().manual_seed(2))
        changed = ids.clone()
        changed[:, 4:] = 5
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        before = model(**source, decoder_input_ids=ids).logits
        after = model(**source, decoder_input_ids=changed).logits
        assert torch.equal(before[:, :4].argmax(-1), after[:, :4].argmax(-1))
        assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
        assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)

    def test_hidden_states_and_attentions(self, model, batch):
        model.set_attn_implementation("eager")
        outputs = model(**batch, output_hidden_states=True, output_attentions=True)
        depth = model.config.decoder_layers
        assert len(outputs.decoder_hidden_states) == depth + 1
        assert len(outputs.encoder_hidden_states) == model.config.encoder_layers + 1
        assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
        assert outputs.decoder_hidden_states[0].shape == (4, 6, 32)
        assert [tuple(a.shape) for a in outputs.cross_attentions] == [(4, 4, 6, 7)] * depth
        if model.config.decoder_layer_type == "ssru":
            assert outputs.decoder_attentions is None
        else:
            assert [tuple(a.shape) for a in outputs.decoder_attentions] == [(4, 4, 6, 6)] * depth
        sums = outputs.cross_attentions[0].sum(-1)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
        assert outputs.cross_attentions[0][1, :, :, 5:].abs().max() == 0  # source padding gets no attention

    def test_attentions_need_eager(self, model, batch):
        model.set_attn_implementation("sdpa")
        with pytest.raises(ValueError, match=r'set_attn_implementation\("eager"\)'):
            model(**batch, output_attentions=True)

    def test_too_long_is_refused(self, model):
        with pytest.raises(ValueError, match="65 tokens was given; the model takes at most 64"):
            model(input_ids=torch.full((1, 65), 5), decoder_input_ids=torch.tensor([[BOS]]))

    def test_activation_checkpointing_gives_the_same_gradients(self, batch):
        gradients = []
        for checkpointing in (False, True):
            model = make_model(dropout=0.0).train()
            if checkpointing:
                model.activation_checkpointing_enable()
            model(**batch).loss.backward()
            gradients.append(model.model.encoder.layers[0].self_attn.q_proj.weight.grad)
        assert torch.allclose(*gradients, atol=1e-7)


class TestAgainstTorch:
    """One encoder layer and one decoder layer of torch.nn, given our weights."""

    @pytest.mark.parametrize("norm_position", ["pre", "post"])
    @pytest.mark.parametrize("activation", ["relu", "gelu"])
    def test_layers(self, norm_position, activation, batch):
        model = make_model(
            norm_position=norm_position, activation_function=activation, encoder_layers=1, decoder_layers=1,
            scale_embedding=False, encoder_ffn_dim=48,
        )  # fmt: skip
        settings = {
            "batch_first": True,
            "norm_first": norm_position == "pre",
            "dropout": 0.0,
            "activation": activation,
        }
        encoder = nn.TransformerEncoderLayer(32, 4, 48, **settings).eval()
        decoder = nn.TransformerDecoderLayer(32, 4, 48, **settings).eval()
        ours_encoder, ours_decoder = model.model.encoder, model.model.decoder
        _copy_layer(ours_encoder.layers[0], encoder)
        _copy_layer(ours_decoder.layers[0], decoder)
        table = sinusoidal_table(64, 32)
        source_padding = batch["attention_mask"] == 0
        decoder_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        memory = encoder(
            ours_encoder.embed_tokens(batch["input_ids"]) + table[:7], src_key_padding_mask=source_padding
        )
        memory = ours_encoder.layer_norm(memory)
        states = decoder(
            ours_decoder.embed_tokens(decoder_ids) + table[:6],
            memory,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(6),
            memory_key_padding_mask=source_padding,
        )
        expected = ours_decoder.layer_norm(states) @ model.lm_head.weight.T
        is_token = batch["labels"] != -100
        logits = model(**batch).logits
        keep = [i for i in range(VOCAB) if i != PAD]
        assert torch.allclose(logits[is_token][:, keep], expected[is_token][:, keep], atol=1e-4)


def _copy_layer(ours, theirs) -> None:
    blocks = {"self_attn": "self_attn", "multihead_attn": "encoder_attn"}
    norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
    if not hasattr(theirs, "multihead_attn"):
        del blocks["multihead_attn"], norms[1]
    with torch.no_grad():
        for their_name, our_name in blocks.items():
            mine, other = getattr(ours, our_name), getattr(theirs, their_name)
            projections = (mine.q_proj, mine.k_proj, mine.v_proj)
            other.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
            other.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            other.out_proj.load_state_dict(mine.out_proj.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward.fc1.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.fc2.state_dict())
        for number, name in enumerate(norms, 1):
            getattr(theirs, f"norm{number}").load_state_dict(getattr(ours, name).state_dict())


class TestLayout:
    def test_pad_and_flatten_undo_each_other(self):
        mask = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1]])
        layout = SequenceLayout.from_mask(mask, 3, 3)
        tokens = torch.arange(14.0).view(7, 2)
        padded = layout.pad(tokens)
        assert padded.shape == (3, 3, 2)
        assert padded[0, 2].tolist() == [0, 0]
        assert torch.equal(layout.flatten(padded), tokens)
        assert layout.positions.tolist() == [0, 1, 0, 1, 0, 1, 2]

    def test_positions_go_on_after_the_past(self):
        assert SequenceLayout.from_mask(None, 2, 1, past=5).positions.tolist() == [5, 5]
        mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
        assert SequenceLayout.from_mask(mask, 2, 1, past=2).positions.tolist() == [1, 2]


class TestPositions:
    def test_sinusoidal_table(self):
        table = sinusoidal_table(9, 6)
        for position in (0, 3, 8):
            for pair in range(3):
                angle = position / 10000 ** (2 * pair / 6)
                assert table[position, pair] == pytest.approx(math.sin(angle), abs=1e-6)
                assert table[position, 3 + pair] == pytest.approx(math.cos(angle), abs=1e-6)

    def test_rotation_depends_on_distance_alone(self):
        table = sinusoidal_table(40, 8)
        generator = torch.Generator().manual_seed(0)
        query, key = torch.randn(2, 1, 1, 8, generator=generator)
        products = [
            (rotate(query, table[i : i + 1]) * rotate(key, table[i + 5 : i + 6])).sum().item() for i in (0, 7, 30)
        ]
        assert products == pytest.approx([products[0]] * 3, abs=1e-5)
        assert rotate(query, table[3:4]).norm() == pytest.approx(query.norm().item(), abs=1e-5)

    def test_a_model_without_a_sense_of_order_would_fail(self, model):
        ids = torch.tensor([[5, 6, 7, 8]])
        start = torch.tensor([[BOS]])
        assert not torch.allclose(
            model(input_ids=ids, decoder_input_ids=start).logits,
            model(input_ids=ids.flip(1), decoder_input_ids=start).logits,
            atol=1e-3,
        )


class TestLoss:
    def test_closed_form(self, model, batch):
        outputs = model(**batch, label_smoothing=0.1)
        is_token = batch["labels"] != -100
        log_probabilities = outputs.logits[is_token].log_softmax(-1)
        target = log_probabilities.gather(1, batch["labels"][is_token][:, None]).squeeze(1)
        keep = [i for i in range(VOCAB) if i != PAD]
        expected = -(0.9 * target + 0.1 * log_probabilities[:, keep].mean(1)).mean()
        assert outputs.loss.item() == pytest.approx(expected.item(), rel=1e-6)

    def test_divided_by_the_given_count(self, model, batch):
        count = int((batch["labels"] != -100).sum())
        assert model(**batch, num_items_in_batch=2 * count).loss.item() == pytest.approx(
            model(**batch).loss.item() / 2, rel=1e-6
        )

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("rows", [3, 1100])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
    def test_chunked_equals_whole(self, smoothing, rows, dtype, tolerance):
        generator = torch.Generator().manual_seed(3)
        hidden = torch.randn(rows, 16, generator=generator, dtype=dtype).requires_grad_()
        weight = torch.randn(20, 16, generator=generator, dtype=dtype).requires_grad_()
        labels = torch.randint(2, 20, (rows,), generator=generator)
        loss = smoothed_cross_entropy(hidden, weight, labels, masked_id=1, smoothing=smoothing)
        gradients = torch.autograd.grad(loss * 0.5, (hidden, weight))
        keep = [i for i in range(20) if i != 1]
        logits = (hidden @ weight.T)[:, keep]
        shifted = torch.where(labels > 1, labels - 1, labels)
        expected = nn.functional.cross_entropy(logits, shifted, label_smoothing=smoothing, reduction="sum")
        expected_gradients = torch.autograd.grad(expected * 0.5, (hidden, weight))
        assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
        for ours, theirs in zip(gradients, expected_gradients, strict=True):
            assert ours.dtype == dtype and torch.allclose(ours, theirs, atol=10 * tolerance)
        assert gradients[1][1].abs().max() == 0

    def test_extreme_logits(self):
        """The masked entry has no part even where all others are far below; float16 may overflow."""
        weight, labels = torch.diag(torch.tensor([1.0, 1, 1, 1, 2])), torch.tensor([3, 2])
        for row, kind in (([-2e4, 9.0, -3e4, -2.1e4, -2.5e4], torch.float32), ([0, 9, 1, 2, -6e4], torch.float16)):
            hidden = torch.tensor([row, row], dtype=kind)
            loss = smoothed_cross_entropy(hidden, weight, labels, masked_id=1)
            logits = (hidden @ weight.to(kind)).float()[:, [0, 2, 3, 4]]
            assert logits.isinf().any() == (kind == torch.float16)
            expected = nn.functional.cross_entropy(logits, torch.tensor([2, 1]), reduction="sum")
            assert loss.item() == pytest.approx(expected.item(), rel=1e-6)

    def test_bfloat16_follows_float32(self, batch):
        model = make_model()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(**batch, return_logits=False, output_hidden_states=True)
        # The sums of the residual branches too, and the weights and their gradients in float32.
        assert {state.dtype for state in outputs.decoder_hidden_states[:-1]} == {torch.bfloat16}
        exact = model(**batch).loss
        assert outputs.loss.item() == pytest.approx(exact.item(), rel=0.02)
        weights = list(model.parameters())
        low, high = (torch.autograd.grad(loss, weights) for loss in (outputs.loss, exact))
        assert {gradient.dtype for gradient in low} == {torch.float32}
        low, high = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (low, high))
        assert nn.functional.cosine_similarity(low, high, dim=0) > 0.98

    def test_no_gradient_is_computed_where_none_is_wanted(self, batch):
        with torch.no_grad():
            assert make_model()(**batch, return_logits=False).loss.requires_grad is False

    def test_from_logits(self):
        logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([[4, 5, -100], [6, -100, -100]])
        log_probabilities = logits.log_softmax(-1)
        expected = 0.0
        for row, column in ((0, 0), (0, 1), (1, 0)):
            token = log_probabilities[row, column]
            expected -= 0.8 * token[labels[row, column]] + 0.2 * token.mean()
        assert smoothed_cross_entropy_from_logits(logits, labels, 0.2).item() == pytest.approx(expected.item())


class TestPaddingEntry:
    def test_row_stays_zero_and_has_no_probability(self, model, batch):
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(**batch, label_smoothing=0.1, return_logits=False).loss.backward()
            optimizer.step()
        assert model.model.decoder.embed_tokens.weight[PAD].abs().max() == 0
        assert model.lm_head.weight[PAD].abs().max() == 0
        probabilities = model.eval()(**batch).logits.softmax(-1)
        assert probabilities[..., PAD].max() == 0
        assert probabilities[..., EOS].max() > 0


class TestGeneration:
    def test_cache_changes_nothing(self, model, batch):
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        for num_beams in (1, 4):
            with_cache, without = (
                model.generate(**source, num_beams=num_beams, max_new_tokens=12, use_cache=use_cache)
                for use_cache in (True, False)
            )
            assert torch.equal(with_cache, without)
        assert len({tuple(row) for row in with_cache.tolist()}) > 1

    def test_batch_equals_one_by_one(self, model, batch):
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        together = model.generate(**source, num_beams=3, max_new_tokens=10)
        for row, mask in enumerate(batch["attention_mask"]):
            alone = model.generate(batch["input_ids"][row : row + 1, mask == 1], num_beams=3, max_new_tokens=10)[0]
            assert torch.equal(together[row, : len(alone)], alone)

    def test_step_by_step_equals_teacher_forcing(self, model, batch):
        decoder_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])[1:2]
        source = {name: batch[name][1:2] for name in ("input_ids", "attention_mask")}
        whole = model(**source, decoder_input_ids=decoder_ids).logits
        encoder_outputs, cache = model.get_encoder()(**source), None
        for step in range(decoder_ids.shape[1]):
            outputs = model(
                encoder_outputs=encoder_outputs, attention_mask=source["attention_mask"],
                decoder_input_ids=decoder_ids[:, step : step + 1], past_key_values=cache, use_cache=True,
            )  # fmt: skip
            cache = outputs.past_key_values
            assert torch.allclose(outputs.logits[:, 0], whole[:, step], atol=1e-5)


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"d_model": 30}, r"d_model \(30\) must be a multiple of encoder_attention_heads \(8\)"),
            ({"norm_position": "middle"}, "norm_position is 'middle'; allowed: pre, post"),
            ({"activation_function": "tanh"}, "allowed: relu, gelu, swiglu"),
            ({"position_embedding": "none"}, "allowed: sinusoidal, learned, rotary"),
            ({"decoder_layer_type": "gru"}, "decoder_layer_type is 'gru'; allowed: self_attention, ssru"),
            ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
            ({"decoder_layers": 0}, "decoder_layers is 0; it must be at least 1"),
            (
                {
                    "d_model": 24,
                    "encoder_attention_heads": 8,
                    "decoder_attention_heads": 8,
                    "position_embedding": "rotary",
                },
                "even width per head",
            ),
        ],
    )
    def test_refusals(self, settings, message):
        with pytest.raises(ValueError, match=message):
            NmtConfig(**settings)


class TestSavedFolder:
    def test_reload_is_equal_and_keeps_ties(self, model, tmp_path, batch):
        model.save_pretrained(tmp_path)
        again = NmtForConditionalGeneration.from_pretrained(tmp_path).eval()
        for (name, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs), name
        assert torch.equal(model(**batch).logits, again(**batch).logits)
        tied = model.config.tie_word_embeddings
        assert (again.lm_head.weight is again.model.decoder.embed_tokens.weight) == tied
        shared = tied and model.config.source_vocab_size is None
        assert (again.model.encoder.embed_tokens.weight is again.model.decoder.embed_tokens.weight) == shared

    def test_loads_where_hf_nmt_is_not_installed(self, tmp_path, batch):
        model = make_model(activation_function="swiglu", position_embedding="rotary")
        model.save_pretrained(tmp_path / "saved")
        torch.save(batch, tmp_path / "batch.pt")
        script = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nmt":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForSeq2SeqLM
model = AutoModelForSeq2SeqLM.from_pretrained("saved", trust_remote_code=True).eval()
torch.save(model(**torch.load("batch.pt")).logits, "logits.pt")
model.save_pretrained("again")
"""
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)
        assert torch.equal(torch.load(tmp_path / "logits.pt"), model(**batch).logits)
        names = {path.name for path in (tmp_path / "saved").iterdir()}
        assert {path.name for path in (tmp_path / "again").iterdir()} == names
        assert {"modeling_nmt.py", "layers_nmt.py", "ssru_nmt.py", "loss_nmt.py", "configuration_nmt.py"} <= names
        assert "AutoModelForSeq2SeqLM" in json.loads((tmp_path / "saved/config.json").read_text())["auto_map"]
