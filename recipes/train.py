"""Train a translation model.

    python recipes/train.py
    python recipes/train.py --config de-en_small data.train.source=train.de data.train.target=train.en \\
        data.validation.source=val.de data.validation.target=val.en
    python recipes/train.py resume=runs/<id>
    python recipes/train.py --from-run-translation args.json [key=value ...]
    python recipes/train.py --plot-schedule schedule.png [key=value ...]    draws the learning rate, trains nothing

Given nothing, it trains on the built-in corpus. Every run gets a folder of its own under output_dir, with the model in
best/, checkpoints, metrics, plots and the log. Prints the path of best/.

A JSON or YAML file of arguments of Transformers' run_translation.py is taken for the settings they are here, and each
is accounted for in the log. With --dry-run the settings are printed as a file that --config takes.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from hf_nmt.config import from_command_line, interrupts_told, launch

with interrupts_told():  # torch and Transformers take seconds to import
    import pydantic
    from pydantic import Field

    from hf_nmt import runs
    from hf_nmt.cards import write_card
    from hf_nmt.errors import ConfigError
    from hf_nmt.evaluation.training_report import PAGE, write_training_report
    from hf_nmt.reporting import plot_run
    from hf_nmt.training.finish import choose_model, merge_adapter, save_model, summary_lines, write_summary
    from hf_nmt.training.model_building import ModelSettings, names_saved_model
    from hf_nmt.training.preparation import latest_checkpoint, open_run, prepare_training
    from hf_nmt.training.pretrained import open_pretrained
    from hf_nmt.training.recipe import TrainingRecipe
    from hf_nmt.training.run_translation import command_line
    from hf_nmt.training.schedule_plot import plot_schedule, take_option
    from hf_nmt.training.sharding import check_model, is_asked_for

logger = logging.getLogger("hf_nmt.recipes.train")


class TrainRecipe(TrainingRecipe):
    model: ModelSettings = Field(ModelSettings(), description="The model to train further, or the shape of a new one.")

    @pydantic.model_validator(mode="after")
    def _model_fits(self) -> TrainRecipe:
        if self.model.pretrained is not None:
            own = "the tokenizer of model.pretrained", "set model.pretrained to null"
            if findings := self.tokenizer.settled(*own, beside=("dropout",)):
                raise ConfigError([f"tokenizer.{finding}" for finding in findings])
            return self
        longest = max(self.batching.max_source_length, self.batching.max_target_length)
        if longest > self.model.max_position_embeddings:
            raise ConfigError(
                f"model.max_position_embeddings: the model takes {self.model.max_position_embeddings} tokens, and "
                f"batching lets pairs of {longest} through. Raise it, or lower batching.max_source_length and "
                "batching.max_target_length."
            )
        return self

    def check_files(self) -> list[str]:
        return super().check_files() + (self.model.check_files() if self.resume is None else [])


SETTINGS = TrainRecipe


def main(argv: list[str]) -> int:
    argv, picture = take_option(argv)
    given = command_line(argv)
    with given.told():
        settings = from_command_line(
            TrainRecipe,
            given.arguments,
            recipe="train",
            doc=__doc__,
            default_config="finetune" if names_saved_model(given.arguments) else "default",
            recorded=lambda folder: runs.resume(folder, "train").record["settings"],
        )
    if picture is None:
        return train(settings)
    plot_schedule(settings, picture, train)
    sys.stdout.write(f"{picture}\n")
    return 0


def train(settings: TrainRecipe, plan: Callable[..., None] | None = None) -> int:
    """Train, or give `plan` a trainer that has all it needs."""
    resumed = runs.resume(settings.resume, "train") if settings.resume is not None else None
    with redirect_stdout(sys.stderr):  # some libraries print when they are first used, as DeepSpeed does
        arguments = settings.arguments()
        if is_asked_for():
            check_model(adapter=settings.model.adapter is not None)
        pretrained = open_pretrained(settings) if resumed is None else None
        with arguments.main_process_first(local=True, desc="texts"):
            texts = settings.data.load()

    with open_run("train", settings, arguments, texts, resumed=resumed) as run, redirect_stdout(sys.stderr):
        logger.info("run folder: %s", run.folder)
        checkpoint = None
        if resumed is not None:
            checkpoint = latest_checkpoint(run, arguments)
            pretrained = open_pretrained(settings, run, checkpoint)
        elif pretrained is not None:
            pretrained.note(run)
        trainer = prepare_training(run, settings, arguments, texts, pretrained)
        if plan is not None:
            plan(trainer)
            return 0
        trainer.train(resume_from_checkpoint=checkpoint)

        chosen, candidates = choose_model(trainer)
        if pretrained is not None and settings.model.adapter is not None:
            full = settings.model.model_copy(update={"quantization": None})
            load = functools.partial(pretrained.load, full, **settings.data.only_languages(texts.train))
            chosen = merge_adapter(trainer, trainer.processing_class, settings.decoding, chosen, load)
        if trainer.is_world_process_zero():
            save_model(trainer.model, trainer.processing_class, run.best, settings.decoding)
            summary = write_summary(trainer, chosen, candidates)
            plot_run(run.folder)
            write_card(run.best)
            if run.adapter.is_dir():
                write_card(run.adapter)
            logger.info("\n%s", "\n".join(summary_lines(trainer, summary)))
    if trainer.is_world_process_zero():
        write_training_report(run.folder, settings.report.baseline)
        logger.info("report: %s", run.folder / PAGE)
        sys.stdout.write(f"{run.best}\n")
    return 0


if __name__ == "__main__":
    launch(main)
