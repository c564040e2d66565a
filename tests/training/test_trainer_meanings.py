from __future__ import annotations

import dataclasses
import re

import pytest
from transformers import Seq2SeqTrainingArguments

from hf_nmt.training.settings import REFUSED, TRAINER_DEFAULTS, TrainingSettings
from hf_nmt.training.trainer_meanings import MEANINGS, meaning_of

FIELDS = {field.name: field for field in dataclasses.fields(Seq2SeqTrainingArguments)}
TAKEN = sorted(set(FIELDS) - set(REFUSED))


def test_there_are_arguments_to_tell():
    assert len(TAKEN) > 50 and {"learning_rate", "optim", "report_to"} <= set(TAKEN)


def test_a_meaning_is_of_an_argument_that_is_taken():
    assert set(MEANINGS) - set(TAKEN) == set()


@pytest.mark.parametrize("name", TAKEN)
def test_a_meaning_is_one_short_line_and_speaks_of_what_is_here(name):
    field = TrainingSettings.model_fields[name]
    meaning = field.json_schema_extra["in_short"]
    assert field.description.startswith(meaning) and 10 < len(meaning) < 120
    words = set(re.findall(r"\w+", field.description))
    assert not words & {"TPU", "streaming", "per_device_train_batch_size", "load_best_model_at_end", "Liger", "tuning"}
    assert not words & (set(REFUSED) - {"seed"}), "names a key that is refused here"
    ours = TRAINER_DEFAULTS.get(name)
    assert ours is None or ours[1] in field.description


def test_an_argument_without_a_meaning_of_ours_keeps_its_first_sentence():
    long = dataclasses.field(metadata={"help": "Costs 5%% of time, e.g. on a GPU. Only for `__len__` of a TPU."})
    long.name = "new_argument"
    assert meaning_of(long) == "Costs 5% of time, e.g. on a GPU."
    none = dataclasses.field()
    none.name = "newer_argument"
    assert meaning_of(none) == "See the Trainer's documentation."
