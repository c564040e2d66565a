"""What training minimises, summed over the target tokens of a batch; the trainer divides by those of the update."""

from __future__ import annotations

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError
from hf_nmt.training.cross_entropy import CrossEntropy, Objective
from hf_nmt.training.moving_average import MovingAverageSettings
from hf_nmt.training.r_drop import NO_DROPOUT, RDrop, RDropSettings, has_dropout
from hf_nmt.training.scheduled_sampling import ScheduledSampling, ScheduledSamplingSettings, special_ids


class ObjectiveSettings(Settings):
    """What is learned, beside the label-smoothed cross-entropy (training.label_smoothing_factor)."""

    ema: MovingAverageSettings | None = Field(
        None,
        description="Keep an exponential moving average of the weights (objective.ema.decay=0.999): a candidate for "
        "best/. It costs their size in float32 once more, in memory and in each checkpoint. null keeps none.",
    )

    scheduled_sampling: ScheduledSamplingSettings | None = Field(
        None,
        description="Let the decoder read some of its own predictions in place of the reference "
        "(objective.scheduled_sampling.probability=0.3), as it has to in translating. It costs one more forward pass, "
        "once the ramp has begun. null reads the reference alone.",
    )
    r_drop: RDropSettings | None = Field(
        None,
        description="Compute each batch twice under different dropout and bring the two distributions together "
        "(objective.r_drop.alpha=2.5). It needs dropout, and about twice the time and the memory of an update. null: "
        "once.",
    )

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse what would do nothing with this model.

        Raises:
            ConfigError: R-Drop, and there is no dropout.
        """
        if self.r_drop is not None and not has_dropout(model):
            raise ConfigError(NO_DROPOUT)

    def build(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arguments: Seq2SeqTrainingArguments
    ) -> Objective:
        """The objective that training calls.

        Args:
            model: as it is, not wrapped for several processes.
            tokenizer: tells which target ids are no words.
            arguments: label smoothing, seed, processes.

        Raises:
            ConfigError: see `check_model`.
        """
        self.check_model(model)
        smoothing = arguments.label_smoothing_factor
        objective: Objective = CrossEntropy(model, smoothing)
        if self.r_drop is not None:
            objective = RDrop(model, smoothing, self.r_drop)
        if self.scheduled_sampling is not None:
            objective = ScheduledSampling(
                objective, self.scheduled_sampling, model, special_ids(tokenizer),
                seed=arguments.seed, rank=arguments.process_index, world_size=arguments.world_size,
                accumulation=arguments.gradient_accumulation_steps,
            )  # fmt: skip
        return objective

    def sharding_findings(self) -> list[str]:
        """What does not go with weights that are divided among the processes, by FSDP or DeepSpeed."""
        if self.ema is None:
            return []
        return [
            "objective.ema: with weights divided among the processes (FSDP, DeepSpeed) none of them has whole ones to "
            "average after each update. Set it to null; training.num_average_checkpoints averages checkpoints "
            "there too."
        ]
