"""A model tells how many sentences before each it was trained on, wherever it is loaded."""

from __future__ import annotations

from types import SimpleNamespace

from transformers import AutoConfig, MarianConfig

from hf_nmt.generation.contexts import sentences_read
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.training.preparation import _keep_context


def test_the_number_goes_with_the_configuration(tmp_path, caplog):
    for number, kind in enumerate((NmtConfig, MarianConfig), 2):
        model = SimpleNamespace(config=kind())
        _keep_context(model, 0)
        assert not hasattr(model.config, "context_sentences")
        _keep_context(model, number)
        model.config.save_pretrained(tmp_path / str(number))
        loaded = SimpleNamespace(config=AutoConfig.from_pretrained(tmp_path / str(number)))
        assert sentences_read(loaded) == sentences_read(SimpleNamespace(model=loaded)) == number
    assert not caplog.messages
    _keep_context(loaded, 0)
    assert sentences_read(loaded) == 0
    assert caplog.messages == [
        "The model was trained on 3 sentences before each; it goes on with data.context_sentences=0."
    ]
