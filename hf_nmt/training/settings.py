"""Settings of the training loop: our own, and every argument of `Seq2SeqTrainer` under its own name.

The fields of `Seq2SeqTrainingArguments` are taken over by `_trainer_fields`, so that types convert and `--help` lists
them. `TRAINER_DEFAULTS` is the one place where a default differs from Transformers; `REFUSED` names the arguments that
would do nothing or break something here, and `RENAMED` the ones that Transformers 5 dropped.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import logging
import os
import types
import typing
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from pydantic import Field
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hf_nmt.config import Settings
from hf_nmt.config_keys import shown
from hf_nmt.errors import ConfigError, need
from hf_nmt.training import sharding, zero
from hf_nmt.training.trainer_meanings import meaning_of

logger = logging.getLogger(__name__)

TRAINER_DEFAULTS: dict[str, tuple[Any, str]] = {
    "learning_rate": (5e-4, "common for transformers trained from new weights"),
    "num_train_epochs": (20.0, "small corpora need tens of passes; early stopping ends sooner"),
    "adam_beta2": (0.98, "Vaswani et al. (2017), 5.3"),
    "adam_epsilon": (1e-9, "Vaswani et al. (2017), 5.3"),
    "label_smoothing_factor": (0.1, "Vaswani et al. (2017), 5.4"),
    "logging_steps": (50.0, "an update of a token batch is worth many of the Trainer's eight-sentence batches"),
    "logging_nan_inf_filter": (False, "a loss that is not finite must be seen; the filter also waits for the device"),
    "eval_strategy": ("steps", "the best checkpoint is chosen by validation"),
    "eval_steps": (500.0, "one validation for each checkpoint"),
    "save_steps": (500.0, "one checkpoint for each validation"),
    "save_total_limit": (3, "newest checkpoints to keep; the best one and those to be averaged are kept besides"),
    "metric_for_best_model": ("bleu", "of the translations of the validation texts: bleu, chrf or loss"),
    "log_level": ("warning", "our own log tells the rest"),
    "ddp_find_unused_parameters": (
        False,
        "every weight is used in every step; it turns true by itself for models that leave layers out (layerdrop)",
    ),
}

# Optimizers that the Trainer lacks -> what its arguments are told in their place.
OWN_OPTIMIZERS = {"lion": "lion_32bit", "muon": "adamw_torch_fused"}

# Trackers that are an extra of ours under their own name.
TRACKER_EXTRAS = ("tensorboard", "wandb", "mlflow")

_BATCHES = "batches are made by the token budget of the `batching` section; set it there"
_VALIDATION = "validation translates the texts under the `decoding` section and takes no such argument"
_FSDP = "launch with recipes/launch/fsdp.yaml to divide the weights among the processes"
_DEEPSPEED = (
    "launch with recipes/launch/deepspeed_zero2.yaml or deepspeed_zero3.yaml; its configuration is made from ours"
)
_SHARDED = "training runs on one device, in data-parallel processes, under FSDP or DeepSpeed (see recipes/launch)"
_HUB = "nothing is uploaded while training; push the finished model with recipes/push.py"

REFUSED: dict[str, str] = {
    "output_dir": "write output_dir at the top level; a run gets its own folder in it",
    "run_name": "write name at the top level",
    "seed": "write seed at the top level",
    "resume_from_checkpoint": "write resume=runs/<id> at the top level",
    "do_train": "it does nothing in the Trainer; this recipe trains",
    "do_eval": "it does nothing in the Trainer; set eval_strategy",
    "do_predict": "it does nothing in the Trainer; score a test set with recipes/validate.py",
    "local_rank": "the launcher sets it; use `accelerate launch` or torchrun",
    "per_device_train_batch_size": _BATCHES,
    "per_device_eval_batch_size": _VALIDATION,
    "auto_find_batch_size": _BATCHES,
    "dataloader_drop_last": _BATCHES,
    "accelerator_config": _BATCHES,
    "sortish_sampler": f"the Trainer accepts it and does nothing with it; {_BATCHES}",
    "train_sampling_strategy": f"the Trainer's samplers count sentences, not tokens; {_BATCHES}",
    "length_column_name": _BATCHES,
    "remove_unused_columns": "the columns that the model needs are chosen already",
    "label_names": "the labels of a translation model are always `labels`",
    "predict_with_generate": "validation always translates",
    "generation_max_length": "write decoding.max_target_length",
    "generation_num_beams": "write decoding.num_beams; while training it is training.validation_num_beams",
    "generation_config": "write the keys of the `decoding` section",
    "prediction_loss_only": _VALIDATION,
    "eval_do_concat_batches": _VALIDATION,
    "eval_use_gather_object": _VALIDATION,
    "eval_accumulation_steps": _VALIDATION,
    "include_for_metrics": _VALIDATION,
    "batch_eval_metrics": _VALIDATION,
    "bf16_full_eval": "validation runs in the precision of training; write bf16=true",
    "fp16_full_eval": "validation runs in the precision of training; write fp16=true",
    "load_best_model_at_end": "the best model always ends up in best/",
    "liger_kernel_config": "it belongs to use_liger_kernel, which has no kernels for translation models",
    "trackio_space_id": _HUB,
    "trackio_bucket_id": _HUB,
    "trackio_static_space_id": _HUB,
    "greater_is_better": "metric_for_best_model tells it: bleu and chrf up, loss down",
    "average_tokens_across_devices": "the loss is always the mean over the target tokens of all processes",
    "include_num_input_tokens_seen": "source and target tokens are always counted",
    "use_cache": "training needs no key-value cache; translation has it on",
    "ignore_data_skip": "a resumed run always goes on at the batch where it stopped",
    "restore_callback_states_from_checkpoint": "a resumed run always restores them",
    "save_only_model": "such a checkpoint cannot be resumed",
    "save_on_each_node": "the first process writes; let output_dir be on storage that all nodes share",
    "enable_jit_checkpoint": "it writes into folders that a resume does not look at; set save_steps instead",
    "use_liger_kernel": "it has no kernels for encoder-decoder translation models",
    "fsdp": _FSDP,
    "fsdp_config": _FSDP,
    "deepspeed": _DEEPSPEED,
    "parallelism_config": _SHARDED,
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "lr_scheduler_type": "write schedule.name",
    "lr_scheduler_kwargs": "write the keys of the `schedule` section",
    "warmup_steps": "write schedule.warmup_steps, or schedule.warmup_share for a share of all updates",
    "gradient_checkpointing": "write activation_checkpointing (this name goes away in Transformers 6)",
    "gradient_checkpointing_kwargs": "write activation_checkpointing_kwargs (this name goes away in Transformers 6)",
}

RENAMED: dict[str, str] = {
    "overwrite_output_dir": "dropped in Transformers 5; every run gets a new folder, so nothing is overwritten",
    "evaluation_strategy": "dropped in Transformers 5; write eval_strategy",
    "save_safetensors": "dropped in Transformers 5; weights are always saved as safetensors",
    "warmup_ratio": "dropped in Transformers 5; write schedule.warmup_share",
    "logging_dir": "dropped in Transformers 5; TensorBoard files go into the run folder",
    "group_by_length": f"dropped in Transformers 5; {_BATCHES}",
    "no_cuda": "dropped in Transformers 5; write use_cpu",
    "use_mps_device": "dropped in Transformers 5; the device is found by itself, use_cpu=true refuses it",
    "fp16_opt_level": "dropped in Transformers 5 with Apex; write fp16 or bf16",
    "half_precision_backend": "dropped in Transformers 5 with Apex; write fp16 or bf16",
    "fp16_backend": "dropped in Transformers 5 with Apex; write fp16 or bf16",
    "jit_mode_eval": "dropped in Transformers 5; write torch_compile",
    "use_ipex": "dropped in Transformers 5; write bf16",
    "tpu_num_cores": "dropped in Transformers 5; TPUs are not supported here",
    "past_index": "dropped in Transformers 5; it has no meaning for translation models",
    "push_to_hub_token": f"dropped in Transformers 5; {_HUB}",
    "push_to_hub_model_id": f"dropped in Transformers 5; {_HUB}",
    "push_to_hub_organization": f"dropped in Transformers 5; {_HUB}",
    "include_inputs_for_metrics": f"dropped in Transformers 5; {_VALIDATION}",
    "include_tokens_per_second": "dropped in Transformers 5; tokens per second are always measured",
    "torchdynamo": "dropped in Transformers 5; write torch_compile_backend",
    "ray_scope": "dropped in Transformers 5; it belonged to hyperparameter search",
    "tp_size": f"dropped in Transformers 5; {_SHARDED}",
    "mp_parameters": f"dropped in Transformers 5; {_SHARDED}",
    "fsdp_min_num_params": f"dropped in Transformers 5; {_FSDP}",
    "fsdp_transformer_layer_cls_to_wrap": f"dropped in Transformers 5; {_FSDP}",
    "split_batches": f"dropped in Transformers 5; {_BATCHES}",
    "dispatch_batches": f"dropped in Transformers 5; {_BATCHES}",
    "per_gpu_train_batch_size": f"dropped in Transformers 5; {_BATCHES}",
    "per_gpu_eval_batch_size": f"dropped in Transformers 5; {_VALIDATION}",
    "evaluate_during_training": "dropped in Transformers 5; write eval_strategy",
}


def _field_type(annotation: Any) -> Any:
    """An enumeration that also takes text becomes the list of its words, so that a wrong word is refused."""
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    for member in members:
        if isinstance(member, type) and issubclass(member, enum.Enum):
            return Literal[tuple(str(choice.value) for choice in member)]
    return annotation


def _trainer_fields() -> dict[str, Any]:
    """name -> (type, pydantic field) of every argument of the Trainer that has an effect here."""
    annotations = typing.get_type_hints(Seq2SeqTrainingArguments)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Seq2SeqTrainingArguments):
        if field.name in REFUSED:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default
        if isinstance(default, enum.Enum):
            default = default.value
        in_short = meaning = meaning_of(field)
        if field.name in TRAINER_DEFAULTS:
            ours, reason = TRAINER_DEFAULTS[field.name]
            theirs = "" if default is None or default == ours else f" (the Trainer's is {shown(default)})"
            meaning = f"{meaning} {shown(ours)}{theirs}: {reason}."
            default = ours
        kind = _field_type(annotations[field.name])
        if field.name == "optim":
            kind = Literal[(*typing.get_args(kind), *OWN_OPTIMIZERS)]
        elif field.name == "max_steps":
            kind = Annotated[kind, pydantic.BeforeValidator(lambda value: -1 if value is None else value)]
        fields[field.name] = (
            kind,
            Field(default=default, description=meaning, json_schema_extra={"in_short": in_short}),
        )
    return fields


class _OwnSettings(Settings):
    renamed_keys: ClassVar[dict[str, str]] = {name: f"{reason}." for name, reason in (REFUSED | RENAMED).items()}

    num_processes: int | None = Field(
        default=None,
        ge=1,
        description="Processes that the launcher must have started; training refuses to begin with another number. "
        "null takes what there is.",
    )
    early_stopping_patience: int | None = Field(
        default=10,
        ge=1,
        description="Validations in a row without a new best metric_for_best_model after which training ends. null: "
        "never.",
    )
    num_average_checkpoints: int = Field(
        default=5,
        ge=0,
        description="After training, the weights of the last N checkpoints are averaged and validated too; the better "
        "of the average and the best checkpoint becomes best/. 0: no average. 5 as in Vaswani et al. (2017), 6.1.",
    )
    validation_num_beams: int = Field(
        default=1,
        ge=1,
        description="Beams of the validations while training; 1 (greedy) costs little and ranks checkpoints nearly as "
        "well. The last validation, which picks best/, uses decoding.num_beams.",
    )
    num_validation_sentences: int | None = Field(
        default=None,
        ge=1,
        description="Sentences of a validation while training: a sample of the validation texts, drawn once with "
        "seed. null takes all. The last validation, which picks best/, always does.",
    )
    num_sample_translations: int = Field(
        default=3,
        ge=0,
        description="Validation sentences whose translation each validation writes into log.txt and "
        "validation_history.json; the console shows the first.",
    )
    matmul_precision: Literal["auto", "highest", "high", "medium"] = Field(
        default="auto",
        description="torch.set_float32_matmul_precision. auto measures a product before training and takes, on a CPU, "
        "the fastest that is as exact as highest there, and highest elsewhere; what was measured stands in run.json. "
        "high and medium may compute in TF32 or bfloat16 inside, on GPUs above all.",
    )

    sam_rho: float | None = Field(
        default=None,
        gt=0,
        description="Sharpness-aware minimization (SAM, Foret et al. 2021) around any optimizer: the gradients are "
        "those of the weights moved by this norm to where the loss is worst, such as 0.05. Each update takes twice "
        "the time, and the weights once more in memory. null is off.",
    )
    sam_adaptive: bool = Field(
        default=False,
        description="Measure sam_rho relative to each weight (ASAM, Kwon et al. 2021); it is larger then, as 0.5.",
    )


_Base = pydantic.create_model("_TrainerSettings", __base__=_OwnSettings, **_trainer_fields())


class TrainingSettings(_Base):
    """Our own keys, then those of `transformers.Seq2SeqTrainingArguments`."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        findings = []
        if self.metric_for_best_model not in ("bleu", "chrf", "loss"):
            findings.append(
                f"metric_for_best_model: given {self.metric_for_best_model!r}, allowed: bleu, chrf or loss."
            )
        if self.eval_strategy == "no":
            default = type(self).model_fields["early_stopping_patience"].default
            if self.early_stopping_patience not in (None, default):
                findings.append("early_stopping_patience: needs validations, but eval_strategy is no; set it to null.")
            if self.num_validation_sentences is not None:
                findings.append("num_validation_sentences: needs validations, but eval_strategy is no; leave it out.")
        if self.fp16 and self.bf16:
            findings.append("fp16: at most one of fp16 and bf16 can be true; set the other to false.")
        if self.sam_rho is not None and self.fp16:
            findings.append("sam_rho: the scaled loss of fp16 would scale its step too; use bf16, or set it to null.")
        if self.sam_rho is None and self.sam_adaptive:
            findings.append("sam_adaptive: does nothing without sam_rho; set that, such as 0.5, or leave this out.")
        if findings:
            raise ConfigError(findings)
        return self

    def validation_findings(self) -> list[str]:
        """Why a best model cannot be kept where there are validation texts; each opens with its key."""
        if self.eval_strategy == "no":
            return []
        if self.save_strategy not in (self.eval_strategy, "best"):
            return [
                f"save_strategy: given {self.save_strategy}, but a best model can only be kept where every validation "
                f"has its checkpoint; allowed with eval_strategy={self.eval_strategy}: {self.eval_strategy} or best."
            ]
        if self.save_strategy == "steps" and not _is_multiple(self.eval_steps, self.save_steps):
            return [
                f"eval_steps: given {_number(self.eval_steps)}, but a best model can only be kept where every "
                f"validation has its checkpoint; set a multiple of save_steps={_number(self.save_steps)} (the same "
                "where it is a share)."
            ]
        return []

    def arguments(self, *, seed: int, run_name: str, validate: bool) -> Seq2SeqTrainingArguments:
        """The Trainer's arguments on this machine; initialises the process group where a launcher started several.

        Args:
            seed: seed of weights, dropout and, unless data_seed is set, of the order of the batches.
            run_name: shown by trackers such as W&B.
            validate: whether there are validation texts; without them eval_strategy is "no".

        Raises:
            ConfigError: a setting cannot be honoured on this machine, or the launcher started another number of
                processes than num_processes.
        """
        _check_sharding({name: getattr(self, name) for name in ("fp16", "torch_compile", "optim", "sam_rho")})
        values = {name: getattr(self, name) for name in _trainer_fields()}
        if self.max_steps > 0 and self.num_train_epochs != TRAINER_DEFAULTS["num_train_epochs"][0]:
            logger.warning(
                "training.max_steps=%d tells how long the training is; training.num_train_epochs=%g is passed over. "
                "For whole epochs set training.max_steps=-1.", self.max_steps, self.num_train_epochs,
            )  # fmt: skip
        if self.optim in OWN_OPTIMIZERS:
            if self.optim == "lion":
                need("pytorch_optimizer", "optimizers")
            values["optim"] = OWN_OPTIMIZERS[self.optim]
        values["use_cpu"] = self.use_cpu or not _has_accelerator()
        values["dataloader_pin_memory"] = self.dataloader_pin_memory and not values["use_cpu"]
        if not validate:
            values["eval_strategy"] = "no"
        if values["eval_strategy"] == "no":
            values["metric_for_best_model"] = None
        else:
            values["greater_is_better"] = self.metric_for_best_model != "loss"
        findings = []
        if values["use_cpu"]:
            where = "use_cpu is true" if self.use_cpu else "this machine has no GPU that PyTorch can use"
            if self.fp16:
                findings.append(f"training.fp16: {where}, and the Trainer would silently train in fp32; use bf16.")
            if self.tf32:
                findings.append(f"training.tf32: {where}, and TF32 exists on NVIDIA GPUs only; leave it out.")
        if findings:
            raise ConfigError(findings)
        if values["use_cpu"]:
            zero.stay_on_processor()
            _meet_on_cpu(self.ddp_backend, self.ddp_timeout)
        try:
            with sharding.unseen_by_accelerate():
                arguments = Seq2SeqTrainingArguments(
                    run_name=run_name,
                    seed=seed,
                    remove_unused_columns=False,
                    restore_callback_states_from_checkpoint=True,
                    **values,
                )
        except ValueError as error:
            raise ConfigError(f"training: {error}") from error
        _check_precision(arguments)
        _check_trackers(arguments)
        _check_optimization(arguments, self.optim)
        _check_processes(arguments, self.num_processes)
        return arguments


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def _is_multiple(number: float | None, of: float | None) -> bool:
    if not number or not of or (number < 1) != (of < 1):  # a share of all steps against a number of steps
        return False
    if number < 1:  # each share is rounded up by itself, so that only equal ones fall on the same steps
        return number == of
    return abs(number / of - round(number / of)) < 1e-6


def _check_precision(arguments: Seq2SeqTrainingArguments) -> None:
    """The launcher's own precision, from its options or its configuration file, goes before the settings."""
    wanted = "fp16" if arguments.fp16 else "bf16" if arguments.bf16 else "no"
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", wanted).lower()
    if launched not in (wanted, "no"):
        raise ConfigError(
            f"training.{launched}: the launcher asks for {launched}, the settings for "
            f"{'fp32' if wanted == 'no' else wanted}. Launch with --mixed_precision no, or write "
            f"training.{launched}=true."
        )


def _meet_on_cpu(backend: str | None, timeout_seconds: int) -> None:
    """Make the process group of several processes: Transformers would forget `ddp_timeout` where there is no GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend or "gloo", timeout=timedelta(seconds=timeout_seconds))


def _check_sharding(settings: dict[str, Any]) -> None:
    """A launch file may ask for what is refused, or does not go with the settings."""
    findings = []
    if os.environ.get("ACCELERATE_USE_MEGATRON_LM", "").lower() in ("true", "1"):
        findings.append(f"training: the launcher asks for Megatron-LM; {_SHARDED}.")
    if sharding.is_asked_for():
        findings += sharding.launcher_findings()
        findings += sharding.settings_findings(settings)
    if findings:
        raise ConfigError(findings)


def _check_trackers(arguments: Seq2SeqTrainingArguments) -> None:
    known = sorted(INTEGRATION_TO_CALLBACK)
    for name in arguments.report_to:
        if name not in known:
            raise ConfigError(f"training.report_to: given {name!r}, allowed: none, all, {', '.join(known)}.")
        if name in TRACKER_EXTRAS:
            need(name, name)
    if "wandb" in arguments.report_to and "WANDB_MODE" not in os.environ:
        os.environ["WANDB_MODE"] = "offline"
        logger.info(
            "W&B writes on this machine only, for `wandb sync`. WANDB_MODE=online in the environment sends it."
        )


def _check_optimization(arguments: Seq2SeqTrainingArguments, optim: str) -> None:
    """What the optimizer needs and lacks, and what it does not take, is better known before the texts load."""
    findings = []
    options = [option for option in (arguments.optim_args or "").replace(" ", "").split(",") if option]

    def made_with(options: list[str]) -> Any:
        changed = copy.copy(arguments)
        changed.optim_args = ",".join(options)
        return Seq2SeqTrainer.get_optimizer_cls_and_kwargs(changed)

    idle = options
    try:
        if optim not in OWN_OPTIMIZERS:
            made = made_with(options)
            idle = [option for option in options if made_with([one for one in options if one != option]) == made]
    except (ImportError, ValueError) as error:
        # Some need the model as well; only a missing package is meant here.
        idle = [option for option in options if "=" not in option]
        if "install" in str(error) or "import" in str(error):
            findings.append(f"training.optim: {arguments.optim.value} cannot be used here: {error}")
    if idle:
        findings.append(
            f"training.optim_args: {', '.join(idle)} does nothing with training.optim={optim}; leave it out. Options "
            "are written as key=value,key=value; training.adam_beta1, adam_beta2 and adam_epsilon are keys of their "
            "own."
        )
    if findings:
        raise ConfigError(findings)


def _has_accelerator() -> bool:
    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()


def _check_processes(arguments: Seq2SeqTrainingArguments, num_processes: int | None) -> None:
    """Compare the processes that run with those that were asked for.

    `accelerate launch --cpu --num_processes 2` starts one process without a word, and a process that sees several
    GPUs would split every batch between them and so lose the token-exact loss.
    """
    world = int(os.environ.get("WORLD_SIZE", arguments.world_size))
    use_cpu = " training.use_cpu=true" if arguments.use_cpu else ""

    def line(count: int) -> str:
        if count == 1:
            return f"python recipes/train.py ...{use_cpu}"
        # --multi_gpu also where there is none: it is what makes accelerate start several processes.
        return f"accelerate launch --multi_gpu --num_processes {count} recipes/train.py ...{use_cpu}"

    if num_processes is not None and num_processes != world:
        raise ConfigError(
            f"training.num_processes: given {num_processes}, but {world} process{'es run' if world > 1 else ' runs'} "
            f"(`accelerate launch --cpu --num_processes N` silently runs one). Launch with: {line(num_processes)}"
        )
    if arguments.n_gpu > 1:
        raise ConfigError(
            f"training: one process sees {arguments.n_gpu} GPUs and would split each batch between them. Launch one "
            f"process for each GPU with: {line(arguments.n_gpu)}   or show it one GPU with CUDA_VISIBLE_DEVICES=0"
        )
