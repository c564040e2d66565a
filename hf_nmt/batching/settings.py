"""Settings of batches: how long pairs may be, and how many make a batch."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from hf_nmt.config import Settings


class BatchingSettings(Settings):
    """Sizes of training batches and limits of length, in tokens of the tokenizer, the end symbol counted."""

    batch_tokens: int = Field(
        4096,
        gt=0,
        description="tokens of one batch on one device, padding counted: pairs times the longest side (max-tokens of "
        "fairseq). An update has this times accumulation steps times processes. 4096 is usual for a base transformer",
    )
    memory_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the memory there is, of the GPU or of the machine, that training may take, such as 0.8: "
        "before it begins the largest budget up to batch_tokens that fits is measured with the longest pairs, and "
        "kept for the run; null takes batch_tokens as it stands",
    )
    max_sentences: int | None = Field(
        None, gt=0, description="most pairs of one batch on one device; null leaves it to batch_tokens alone"
    )
    updates_per_bucket: int = Field(
        2,
        gt=0,
        description="a length bucket holds at least the pairs of this many updates, mixed anew in each epoch; 1 "
        "keeps some updates the same in all epochs, more mix better and pad more",
    )
    max_source_length: int = Field(256, gt=1, description="tokens; longer sources are treated as too_long says")
    max_target_length: int = Field(256, gt=1, description="tokens; longer targets are treated as too_long says")
    too_long: Literal["drop", "error", "truncate"] = Field(
        "drop", description="pairs beyond a limit of length: left out and counted, refused, or cut and counted"
    )
    pad_to_multiple_of: int | None = Field(
        None, gt=0, description="padded lengths are rounded up to a multiple of this; 8 helps GPUs of half precision"
    )

    streaming_window: int = Field(
        50_000,
        gt=1,
        description="pairs of a stream (data.train.streaming) that are held, encoded and cut into batches together: "
        "more of them mix better and pad less, and take more memory, about 1 KB each",
    )

    @pydantic.model_validator(mode="after")
    def _budget_holds_the_longest(self) -> BatchingSettings:
        longest = max(self.max_source_length, self.max_target_length)
        if self.batch_tokens < longest:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} cannot hold a single pair of {longest} tokens (max_source_length, "
                "max_target_length); raise it or lower them"
            )
        return self
