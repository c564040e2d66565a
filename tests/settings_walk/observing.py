"""Runs a recipe in this process, as far as is needed, and tells what can be seen of it.

Nothing that only repeats the settings counts: run.json, settings.yaml and such parts of records are left out, and so
are times. What remains is the same for the same arguments.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from hub_server import TOKEN, HubServer
from run_records import write_evaluation, write_run, write_scores

from hf_nmt.artifacts import write_json
from hf_nmt.cleaning import settings as cleaning_settings
from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.data import sources
from hf_nmt.errors import NmtError
from hf_nmt.evaluation import corpora
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.tokenizer_training import load_tokenizer
from hf_nmt.training import preparation
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.tuning.trials import Outcome, Validation
from settings_walk import inputs
from settings_walk.keys import recipe_module, settings_file

REPEATS_SETTINGS = {"settings", "decoding", "inputs", "command", "fingerprint", "recipe_hash", "settings_hash"}
REPEATS_SETTINGS_ONLY = {"run.json", "settings.yaml", "record.json", "COMPLETE"}
MEASURED_ONLY = {"profile.json", "trace.json"}
OF_TIME = {
    "created", "started", "ended", "environment", "seconds", "eval_seconds", "training_seconds", "cpu_seconds",
    "tokens_per_second", "statistics",
}  # fmt: skip
VERSION = re.compile(r"v\d{4}-\d{2}-\d{2}-[0-9a-f]+")
TIME = re.compile(r"\d{8}-\d{6}(-\d+)?")

PROBES = ["Anna Weiß trägt １２ Steine ☂.", "The dog sees the old house."]


class Reached(KeyboardInterrupt):
    """Ends a recipe where there is nothing more to see, as Ctrl-C would."""


class Workplace:
    """A folder in which the recipes run, each time in a folder of its own with `inputs` in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.inputs = folder / "inputs"
        self.count = 0
        inputs.write(self.inputs)
        inputs.write_model(self.inputs / "model", seed=1)
        inputs.write_model(self.inputs / "other_model", seed=2)
        inputs.write_model(self.inputs / "many", seed=1, several_languages=True)
        inputs.write_adapter(self.inputs / "adapter", self.inputs / "model", seed=1)
        inputs.write_adapter(self.inputs / "other_adapter", self.inputs / "model", seed=2)
        inputs.write_marian(self.inputs / "marian")
        write_scores(self.inputs / "scores", write_run(self.inputs / "run", self.inputs / "model") / "best")
        write_run(self.inputs / "edited_run", self.inputs / "model")
        for value, name in ((31.5, "evaluations"), (32.5, "other_evaluations")):
            write_evaluation(self.inputs / name / "one", self.inputs / "run" / "best", value)
        (self.inputs / "edited_run" / "best" / "README.md").write_text("# Mine\n", encoding="utf-8")
        self._leave_a_run_unfinished()

    # Recipes

    def train(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """Stages: run (folder and texts), tokenizer, batches (of the first epoch), updates (three), model (the last
        validation of a model without training, and what is saved), all."""
        module = recipe_module("train")
        with self._watching(arguments) as (seen, patch):
            # Slow, and no setting is about them.
            patch.setattr(module, "plot_run", lambda folder: None)
            patch.setattr("hf_nmt.evaluation.run_comparison.draw_comparison", lambda *given: [])
            opened = module.open_run

            def open_run(*given: Any, **options: Any) -> Any:
                texts = given[3]
                seen["texts/train"], seen["texts/validation"] = map(_rows, texts)
                return opened(*given, **options)

            def see_tokenizer(settings: Any, tokenizer: Any, **_: Any) -> None:
                seen["ids"] = [tokenizer(PROBES), tokenizer(text_target=PROBES)]
                seen["ids"] = [(ids["input_ids"], tokenizer.batch_decode(ids["input_ids"])) for ids in seen["ids"]]

            def see_batches(trainer: TranslationTrainer, **_: Any) -> None:
                seen["batches"] = [_contents(batch) for batch in trainer.get_train_dataloader()]
                seen["attention"] = trainer.model.config._attn_implementation
                seen["precision"] = torch.get_float32_matmul_precision()

            def see_weights(trainer: TranslationTrainer, *_: Any) -> None:
                seen["weights"] = _weights(trainer.model)
                seen["steps"] = trainer.state.global_step

            patch.setattr(module, "open_run", open_run)
            if stage == "run":
                patch.setattr(preparation, "prepare_tokenizer", _ending(lambda *given: None))
            elif stage == "tokenizer":
                patch.setattr(preparation, "build_model", _ending(see_tokenizer))
            elif stage == "batches":
                patch.setattr(TranslationTrainer, "train", _ending(see_batches))
            elif stage == "updates":
                patch.setattr(module, "choose_model", _ending(see_weights))
            elif stage == "model":
                patch.setattr(
                    TranslationTrainer, "train", lambda trainer, **options: inputs.make_varied(trainer.model)
                )
            if stage in ("model", "all"):
                summary = module.write_summary
                patch.setattr(module, "write_summary", lambda *given: (see_weights(given[0]), summary(*given))[1])
            self._run(module, arguments, seen)
        return seen

    def validate(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """Stages: texts (of the test set), all."""
        module = recipe_module("validate")
        with self._watching(arguments) as (seen, patch):
            if stage == "texts":

                def see_texts(rows: Any, *_: Any, **__: Any) -> None:
                    seen["texts/test"] = _rows(rows)

                patch.setattr(corpora, "corpus_of", _ending(see_texts))
            self._run(module, arguments, seen)
        return seen

    def translate(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. The standard input is the test set; `old.en` is there already."""
        with self._watching(arguments) as (seen, patch):
            Path("old.en").write_text("old\n", encoding="utf-8")
            with open("inputs/test.de", encoding="utf-8") as lines:
                patch.setattr("sys.stdin", lines)
                self._run(recipe_module("translate"), arguments, seen)
        return seen

    def backtranslate(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. `old.jsonl` is there already."""
        with self._watching(arguments) as (seen, _):
            Path("old.jsonl").write_text("old\n", encoding="utf-8")
            self._run(recipe_module("backtranslate"), arguments, seen)
            for path in Path().glob("*.jsonl"):
                seen[path.name] = path.read_text(encoding="utf-8")
        return seen

    def merge_adapter(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. The model `old` is there already."""
        with self._watching(arguments) as (seen, _):
            shutil.copytree("inputs/model", "old")
            self._run(recipe_module("merge_adapter"), arguments, seen)
        return seen

    def compare_runs(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. A comparison `old` is there already."""
        with self._watching(arguments) as (seen, _):
            Path("old").mkdir()
            Path("old/comparison.json").write_text("{}\n", encoding="utf-8")
            self._run(recipe_module("compare_runs"), arguments, seen)
        return seen

    def report_run(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage."""
        with self._watching(arguments) as (seen, patch):
            patch.setattr("hf_nmt.evaluation.run_comparison.draw_comparison", lambda *given: [])
            shutil.copytree("inputs/run", "reported")
            self._run(recipe_module("report_run"), arguments, seen)
        return seen

    def profile_run(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage; what it measured is left out. A profile `old` is there already."""
        with self._watching(arguments) as (seen, _):
            Path("old").mkdir()
            Path("old/profile.json").write_text("{}\n", encoding="utf-8")
            self._run(recipe_module("profile_run"), arguments, seen)
            seen["stdout"] = ""
            seen["written"] = sorted(str(path) for path in Path().glob("[!i]*/*"))
            for path in Path().glob("[!i]*/profile.json"):
                if record := json.loads(path.read_text(encoding="utf-8")):
                    training, inference = record["training"], record["inference"]
                    sizes = [row["batch_size"] for row in inference["rows"]]
                    peak = training["mfu"]["peak"] if training["mfu"]["peak_source"] == "given" else None
                    seen["profile"] = [record["run"], record["parameters"], record["warmup_updates"]]
                    seen["profile"] += [training["updates"], peak, sizes, inference["sentences"]]
        return seen

    def import_marian(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. A model `old` is there already."""
        with self._watching(arguments) as (seen, _):
            Path("old").mkdir()
            Path("old/config.json").write_text("{}\n", encoding="utf-8")
            self._run(recipe_module("import_marian"), arguments, seen)
        return seen

    def _run_in_one_process(
        self, module: Any, arguments: tuple[str, ...], seen: dict[str, Any], patch: Any, made_in: Any
    ) -> None:
        """Run a recipe that shares its work out, and see among how many processes it would.

        Args:
            made_in: module that makes the engine.
        """

        def engine(num_workers: int) -> LocalEngine:
            seen["workers"] = num_workers
            return LocalEngine(1)

        patch.setattr(made_in, "LocalEngine", engine)
        self._run(module, arguments, seen)

    def prepare_data(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage."""
        module = recipe_module("prepare_data")
        with self._watching(arguments) as (seen, patch):

            @contextlib.contextmanager
            def ray_engine(num_workers: int, address: str | None) -> Iterator[LocalEngine]:
                seen["ray"] = address or "here"
                yield LocalEngine(1)

            patch.setattr(cleaning_settings, "ray_engine", ray_engine)
            self._run_in_one_process(module, arguments, seen, patch, made_in=cleaning_settings)
            seen["stdout"] = VERSION.sub("VERSION", seen["stdout"])
            for path in Path().glob("*/v*/**/*.parquet"):
                if path.parts[0] == "inputs":
                    continue
                rows = pq.read_table(path).to_pylist()
                seen[path.name] = rows
        return seen

    def check_data(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage."""
        module = recipe_module("check_data")
        with self._watching(arguments) as (seen, patch):
            self._run_in_one_process(module, arguments, seen, patch, made_in=module)
        return seen

    def push(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. The Hub is a server here, where `me/there` holds the model already."""
        with self._watching(arguments) as (seen, patch), HubServer() as hub:
            constants = huggingface_hub.constants
            patch.setattr(constants, "ENDPOINT", hub.endpoint)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            )
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            patch.setenv("HF_TOKEN", TOKEN)
            hub.put("me/there", {"config.json": Path("inputs/model/config.json").read_bytes()})
            self._run(recipe_module("push"), arguments, seen)
            seen["stdout"] = seen["stdout"].replace(hub.endpoint, "HUB")
            for name, repo in hub.repos.items():
                seen |= {f"hub/{name}/private": repo.private, f"hub/{name}/pulls": len(repo.pulls)}
                for branch in repo.branches:
                    _, message, files = repo.at(branch)
                    seen[f"hub/{name}/{branch}/message"] = message
                    seen |= {f"hub/{name}/{branch}/files/{file}": content for file, content in files.items()}
        return seen

    def adapt_vocabulary(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """Stages: texts (of the corpus), all."""
        module = recipe_module("adapt_vocabulary")
        with self._watching(arguments) as (seen, patch):
            if stage == "texts":

                def load_pairs(*given: Any, **options: Any) -> None:
                    seen["texts/train"] = _rows(sources.load_pairs(*given, **options))
                    raise Reached

                patch.setattr(module, "load_pairs", load_pairs)
            self._run(module, arguments, seen)
            if Path("adapted").is_dir():
                tokenizer = load_tokenizer("adapted")
                seen["ids"] = [tokenizer.source_backend.encode(text).ids for text in PROBES]
                seen["languages"] = tokenizer.source_languages, tokenizer.target_languages
        return seen

    def tune(self, arguments: tuple[str, ...], stage: str) -> dict[str, Any]:
        """It has one stage. The trials are a formula of the learning rate."""
        pytest.importorskip("optuna")
        module = recipe_module("tune")
        with self._watching(arguments) as (seen, patch):
            seen["trials"] = []

            def run(command: list[str], folder: Path, name: str, on_validation: Any, resume: Any) -> Outcome:
                seen["trials"].append([Path(command[1]).name, *command[2:]])
                values = dict(word.partition("=")[::2] for word in command)
                loss = (math.log10(float(values["training.learning_rate"])) + 2) ** 2
                path = folder / f"{name}-20260101-000000"
                (path / "best").mkdir(parents=True)
                write_json(path / "run.json", {"schema_version": 1, "settings": values})
                write_json(path / "best" / "config.json", {})
                made: list[Validation] = []
                for number in (1, 2, 3):
                    metrics = {"loss": loss + 1 / number, "bleu": 30 - loss - 1 / number}
                    made.append(Validation(100 * number, metrics))
                    if not on_validation(made[-1]) and number < 3:
                        cost = {"updates": 100 * number, "cpu_seconds": 2.0 * number}
                        return Outcome(path, pruned=True, validations=tuple(made), **cost)
                return Outcome(path, updates=300, cpu_seconds=6.0, validations=tuple(made))

            resolved = {"training": {}, "metrics": {"names": ["bleu"]}}
            patch.setattr(module, "resolve", lambda command: resolved)
            patch.setattr(module, "Study", functools.partial(module.Study, run=run))
            patch.setattr("hf_nmt.tuning.report.plot", lambda study: [])  # slow, and no setting is about it
            self._run(module, arguments, seen)
        return seen

    def _leave_a_run_unfinished(self) -> None:
        module = recipe_module("train")
        with self._watching(()) as (seen, patch):
            patch.setattr(module, "choose_model", _ending(lambda *given: None))
            self._run(module, ("output_dir=left",), seen)
            (run,) = Path("left").iterdir()
            run.rename(self.inputs / "unfinished")

    # What is seen

    @contextlib.contextmanager
    def _watching(self, arguments: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], pytest.MonkeyPatch]]:
        """A new folder as the current one, with an eye on what the model decodes and what is logged."""
        self.count += 1
        folder = self.folder / f"run-{self.count}"
        folder.mkdir()
        seen: dict[str, Any] = {"decoded": [], "log": []}
        with pytest.MonkeyPatch.context() as patch, _kept_torch_state():
            patch.chdir(folder)
            os.symlink(self.inputs, "inputs")
            if "resume=unfinished" in arguments:
                shutil.copytree("inputs/unfinished", "unfinished")
            patch.setattr("datasets.config.HF_DATASETS_CACHE", self.folder / "cache")
            generate = NmtForConditionalGeneration.generate

            def watched(model: Any, input_ids: torch.Tensor, **options: Any) -> Any:
                ids = generate(model, input_ids, **options)
                seen["decoded"].append((tuple(input_ids.shape), ids.tolist()))
                return ids

            patch.setattr(NmtForConditionalGeneration, "generate", watched)
            handler = logging.Handler()
            handler.emit = lambda record: seen["log"].append(TIME.sub("TIME", record.getMessage()))
            logger = logging.getLogger("hf_nmt.recipes.validate")  # the others tell times
            level = logger.level
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                yield seen, patch
            finally:
                logger.setLevel(level)
                logger.removeHandler(handler)
                seen |= {f"files/{name}": content for name, content in _files(folder)}
                shutil.rmtree(folder)

    def _run(self, module: Any, arguments: tuple[str, ...], seen: dict[str, Any]) -> None:
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(output):
            try:
                config = Path("inputs", f"{module.__name__.removeprefix('_walked_')}.yaml")
                module.main(["--config", str(settings_file(config, arguments)), *arguments])
            except Reached:
                pass
            except NmtError as error:
                seen["refusal"] = str(error)
        seen["stdout"] = TIME.sub("TIME", output.buffer.getvalue().decode())


def _ending(look: Any) -> Any:
    """In place of a step of a recipe: looks at what the step was given and ends the recipe there."""

    def stop(*given: Any, **options: Any) -> None:
        look(*given, **options)
        raise Reached

    return stop


@contextlib.contextmanager
def _kept_torch_state() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


def _rows(dataset: Any) -> list[Any]:
    if dataset is None:
        return []
    return dataset[:] if isinstance(dataset, Dataset) else list(dataset)


def _contents(batch: Any) -> dict[str, list[list[int]]]:
    return {name: tensor.tolist() for name, tensor in batch.items()}


def _weights(model: torch.nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in model.state_dict().items()
    }


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names of all files, with the content of those that tell more than settings and times."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or name.parts[0] == "inputs" or path.name.endswith(".lock"):
            continue
        content: Any = None
        if not (path.name in REPEATS_SETTINGS_ONLY | MEASURED_ONLY or "checkpoints" in name.parts):
            if path.suffix == ".json":
                content = _without_noise(json.loads(path.read_text(encoding="utf-8")))
            elif path.name == "segments.jsonl":
                content = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            elif path.suffix in (".txt", ".en", ".tsv") and path.name != "log.txt":
                content = path.read_text(encoding="utf-8")
            elif path.suffix in (".safetensors", ".spm"):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
        yield TIME.sub("TIME", name.as_posix()), content


def _without_noise(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if name not in REPEATS_SETTINGS | OF_TIME}
        return {name: _without_noise(inner) for name, inner in kept.items()}
    if isinstance(value, list):
        return [_without_noise(inner) for inner in value]
    return TIME.sub("TIME", value) if isinstance(value, str) else value
