"""The recurrent unit against its definition, and decoding with its states against decoding without."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.layers_nmt import SequenceLayout
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.ssru_nmt import SimplerSimpleRecurrentUnit, StateLayer, keep_states, linear_recurrence
from hf_nmt.training.adapters import projections

PAD, BOS, EOS, VOCAB = 1, 2, 3, 40


def make_model(seed: int = 0, scale: float = 2.0, **settings) -> NmtForConditionalGeneration:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCAB, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
        "decoder_layer_type": "ssru", "tie_word_embeddings": False,
    }  # fmt: skip
    model = NmtForConditionalGeneration(NmtConfig(**shape | settings)).eval()
    with torch.no_grad():  # Xavier's weights give nearly uniform outputs
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name and "lm_head" not in name:
                weight.mul_(scale * 2 if "encoder_attn" in name else scale)
    return model


@pytest.fixture
def unit() -> SimplerSimpleRecurrentUnit:
    torch.manual_seed(0)
    return SimplerSimpleRecurrentUnit(NmtConfig(d_model=8), layer_idx=0).double()


@pytest.fixture
def source() -> dict[str, torch.Tensor]:
    input_ids = torch.randint(4, VOCAB, (3, 6), generator=torch.Generator().manual_seed(1))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 3:] = 0
    return {"input_ids": input_ids.masked_fill(attention_mask == 0, PAD), "attention_mask": attention_mask}


def definition(unit: SimplerSimpleRecurrentUnit, sequence: torch.Tensor, state=None):
    """Outputs of one sequence (T, D) by the equations of Kim et al. 2019, and the last state, step by step."""
    state = torch.zeros(sequence.shape[1], dtype=sequence.dtype) if state is None else state
    outputs = []
    for x in sequence:
        forget = 1 / (1 + torch.exp(-(unit.forget_gate.weight @ x + unit.forget_gate.bias)))
        state = forget * state + (1 - forget) * (unit.candidate.weight @ x)
        outputs.append(state.clamp(min=0))
    return torch.stack(outputs), state


class TestUnit:
    @pytest.mark.parametrize("lengths", [(1,), (5, 5), (4, 1, 6)])
    def test_is_its_definition(self, unit, lengths):
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        layout = SequenceLayout.from_mask(mask, *mask.shape)
        tokens = torch.randn(sum(lengths), 8, dtype=torch.float64)
        expected = torch.cat([definition(unit, sequence)[0] for sequence in tokens.split(lengths)])
        torch.testing.assert_close(unit(tokens, layout), expected, rtol=1e-12, atol=1e-12)

    def test_its_gradients_are_those_of_the_definition(self, unit):
        tokens = torch.randn(9, 8, dtype=torch.float64, requires_grad=True)
        mask = torch.tensor([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 0]])
        weights = torch.randn(9, 8, dtype=torch.float64)
        wanted = [tokens, *unit.parameters()]
        ours = torch.autograd.grad((unit(tokens, SequenceLayout.from_mask(mask, 2, 6)) * weights).sum(), wanted)
        by_definition = torch.cat([definition(unit, sequence)[0] for sequence in tokens.split((4, 5))])
        for one, other in zip(ours, torch.autograd.grad((by_definition * weights).sum(), wanted), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)

    def test_goes_on_from_the_state_of_a_cache_over_padding(self, unit):
        """Four tokens, then none in one row and two in the other, then one each."""
        cache = DynamicCache()
        keep_states(cache, 1)
        rows = torch.randn(2, 7, 8, dtype=torch.float64)
        outputs: list[list[torch.Tensor]] = [[], []]
        chunks = [([4, 4], 4), ([0, 2], 2), ([1, 1], 1)]
        starts = [0, 0]
        for counts, width in chunks:
            mask = torch.arange(width)[None] >= width - torch.tensor(counts)[:, None]  # padding on the left
            tokens = torch.cat([rows[row, starts[row] : starts[row] + counts[row]] for row in range(2)])
            for row, part in enumerate(unit(tokens, SequenceLayout.from_mask(mask, 2, width), cache).split(counts)):
                outputs[row].append(part)
                starts[row] += counts[row]
        for row, length in enumerate((5, 7)):
            expected, state = definition(unit, rows[row, :length])
            torch.testing.assert_close(torch.cat(outputs[row]), expected)
            torch.testing.assert_close(cache.layers[0].state[row], state)
        assert cache.get_seq_length() == 7

    def test_closed_gates_keep_and_open_gates_replace(self, unit):
        """Gates so far out that products of them are exactly 0 or 1."""
        layout = SequenceLayout.from_mask(None, 1, 50)
        tokens = torch.randn(50, 8, requires_grad=True)
        unit.float().candidate.weight.data.copy_(torch.eye(8))
        for bias in (-200.0, 200.0):
            unit.forget_gate.bias.data.fill_(bias)
            output = unit(tokens, layout)
            assert torch.equal(output, tokens.relu() if bias < 0 else torch.zeros_like(output))
            (gradient,) = torch.autograd.grad(output.sum(), tokens)
            assert torch.equal(gradient, (tokens > 0).float() if bias < 0 else torch.zeros_like(gradient))


class TestRecurrence:
    @pytest.mark.parametrize("length", [1, 2, 7])
    def test_gradient(self, length):
        generator = torch.Generator().manual_seed(length)
        decay, inputs = torch.rand(2, 2, length, 3, generator=generator, dtype=torch.float64).unbind()
        initial = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        arguments = [tensor.requires_grad_() for tensor in (decay, inputs, initial)]
        assert torch.autograd.gradcheck(linear_recurrence, arguments)
        with torch.no_grad():
            without = linear_recurrence(*arguments)
        assert torch.equal(without, linear_recurrence(*arguments))

    def test_autocast_leaves_it_in_float32(self, unit):
        """A gate that is never quite closed, over 300 positions: in bfloat16 the state would stop moving."""
        unit.float().forget_gate.weight.data.zero_()
        unit.forget_gate.bias.data.fill_(6.0)
        unit.candidate.weight.data.copy_(torch.eye(8))
        cache = DynamicCache()
        keep_states(cache, 1)
        layout = SequenceLayout.from_mask(None, 1, 300)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = unit(torch.ones(300, 8), layout, cache)
        forget = torch.sigmoid(torch.tensor(6.0, dtype=torch.float64))
        assert output.dtype == torch.bfloat16
        state = cache.layers[0].state
        assert state.dtype == torch.float32
        torch.testing.assert_close(state.double(), (1 - forget**300).expand(1, 8), rtol=1e-5, atol=0)
        low = torch.tensor(0.0, dtype=torch.bfloat16)
        for _ in range(300):
            low = forget.bfloat16() * low + (1 - forget).bfloat16()
        assert abs(low.item() - state[0, 0].item()) > 0.01


class TestDecoding:
    @pytest.mark.parametrize(
        "settings",
        [
            {"num_beams": 1},
            {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.6},
            {"num_beams": 4, "decoder_input_ids": torch.tensor([[BOS, 7, 9]] * 3)},
            {"do_sample": True, "num_return_sequences": 3},
        ],
        ids=["greedy", "beam", "prompt", "sample"],
    )
    def test_cache_changes_nothing(self, source, settings):
        model = make_model()
        outputs = []
        for use_cache in (True, False):
            torch.manual_seed(3)
            outputs.append(model.generate(**source, **settings, max_new_tokens=14, use_cache=use_cache))
        assert torch.equal(*outputs)
        assert len({tuple(row) for row in outputs[0].tolist()}) > 1

    def test_static_cache(self, source):
        model = make_model()
        plain = model.generate(**source, num_beams=3, max_new_tokens=9)
        options = {"num_beams": 3, "max_new_tokens": 9, "cache_implementation": "static", "disable_compile": True}
        assert torch.equal(model.generate(**source, **options), plain)
        assert torch.equal(model.generate(**source, **options), plain)  # the cache is used again

    def test_reorder_select_and_repeat(self, source):
        """The next step after each is that of the prefixes in the new order."""
        model = make_model()
        prefixes = torch.randint(4, VOCAB, (3, 4), generator=torch.Generator().manual_seed(5))
        step = torch.randint(4, VOCAB, (6, 1), generator=torch.Generator().manual_seed(6))
        with torch.no_grad():
            first = model(**source, decoder_input_ids=prefixes, use_cache=True)
        moves = {
            "reorder_cache": (torch.tensor([2, 0, 0]), [2, 0, 0]),
            "batch_select_indices": (torch.tensor([1]), [1]),
            "batch_repeat_interleave": (2, [0, 0, 1, 1, 2, 2]),
        }
        for name, (argument, rows) in moves.items():
            cache = copy.deepcopy(first.past_key_values)
            getattr(cache, name)(argument)
            chosen = {key: value[rows] for key, value in source.items()}
            ours = model(**chosen, decoder_input_ids=step[: len(rows)], past_key_values=cache).logits
            whole = torch.cat([prefixes[rows], step[: len(rows)]], dim=1)
            torch.testing.assert_close(
                ours[:, -1], model(**chosen, decoder_input_ids=whole).logits[:, -1], rtol=1e-4, atol=1e-4
            )

    def test_its_state_does_not_grow(self, source):
        model = make_model()
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for _ in range(2):
            model.generate(**source, past_key_values=cache, min_new_tokens=9, max_new_tokens=9)
            assert [layer.state.shape for layer in cache.self_attention_cache.layers] == [(3, 16)] * 2
            assert cache.get_seq_length() == 9
            cache.reset()
            assert cache.get_seq_length() == 0

    def test_refuses_a_cache_of_keys(self, source):
        given = make_model(decoder_layer_type="self_attention")
        start = torch.full((3, 1), BOS)
        cache = given(**source, decoder_input_ids=start, use_cache=True).past_key_values
        with pytest.raises(ValueError, match=r"holds keys and values of self-attention.*Give a new cache, or none"):
            make_model()(**source, decoder_input_ids=start, past_key_values=cache)

    def test_takes_no_token_back(self):
        layer = StateLayer()
        layer.replace(torch.zeros(1, 4), 3)
        layer.crop(0)
        assert not layer.is_croppable
        with pytest.raises(ValueError, match="Decode without an assistant model"):
            layer.crop(-1)


class TestModel:
    def test_weights(self):
        """Two matrices a layer where self-attention has four with their biases."""
        counts = [
            sum(weight.numel() for weight in make_model(decoder_layer_type=kind).model.decoder.layers[0].parameters())
            for kind in ("self_attention", "ssru")
        ]
        assert counts[0] - counts[1] == 4 * (16 * 16 + 16) - (2 * 16 * 16 + 16)

    def test_half_precision_weights_and_saved_folder(self, tmp_path, source):
        model = make_model().to(torch.bfloat16)
        model.save_pretrained(tmp_path)
        again = NmtForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
        ids = [each.generate(**source, num_beams=2, max_new_tokens=8) for each in (model, again)]
        assert torch.equal(*ids)
        assert again.config.decoder_layer_type == "ssru"

    def test_configurations_without_the_key_have_self_attention(self):
        values = make_model(decoder_layer_type="self_attention").config.to_dict()
        del values["decoder_layer_type"]
        assert NmtConfig.from_dict(values).decoder_layer_type == "self_attention"

    def test_starts_with_the_weights_it_says(self):
        """More rows in the vocabulary than columns, the padding entry beyond the width."""
        shape = {"d_model": 64, "vocab_size": 100, "pad_token_id": 90, "decoder_layer_type": "ssru"}
        model = NmtForConditionalGeneration(NmtConfig(**shape, encoder_layers=1, decoder_layers=4))
        for number, layer in enumerate(model.model.decoder.layers, 1):
            limit = (6 / 128) ** 0.5
            assert layer.ssru.forget_gate.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
            assert layer.ssru.candidate.weight.abs().max().item() == pytest.approx(limit * number**-0.5, rel=0.01)
            assert layer.ssru.forget_gate.bias.abs().max() == 0
        assert model.lm_head.weight[90].abs().max() == 0

    def test_an_adapter_finds_its_matrices(self):
        names = {name.rpartition(".")[2] for name in projections(make_model()) if ".ssru." in name}
        assert names == {"forget_gate", "candidate"}

    def test_activation_checkpointing_gives_the_same_gradients(self, source):
        gradients = []
        for checkpointing in (False, True):
            model = make_model(dropout=0.0).train()
            if checkpointing:
                model.activation_checkpointing_enable()
            model(**source, labels=source["input_ids"]).loss.backward()
            gradients.append(model.model.decoder.layers[0].ssru.forget_gate.weight.grad)
        assert gradients[0].abs().max() > 0
        assert torch.allclose(*gradients, atol=1e-7)

    def test_learns_to_copy_where_only_the_state_tells_the_place(self):
        """With rotary positions the decoder gets none, and two symbols alone are far too few to find the place by."""
        model = make_model(
            position_embedding="rotary", d_model=32, decoder_layers=1, vocab_size=6, dropout=0.0, scale=1.0
        ).train()  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(7)

        def draw(rows: int) -> torch.Tensor:
            ids = torch.randint(4, 6, (rows, 8), generator=generator)
            ids[:, -1] = EOS
            return ids

        for _ in range(300):
            ids = draw(64)
            loss = model(input_ids=ids, labels=ids, return_logits=False).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ids = draw(32)
        assert torch.equal(model.eval().generate(ids, num_beams=1, max_new_tokens=8)[:, 1:], ids)
