"""What the arguments of `Seq2SeqTrainer` mean here, in a line each.

Transformers' own texts speak of options that do not exist here and of uses other than translation. What is not told
here is told by the first sentence of theirs.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

_STEPS = "in updates; below 1 a share of all"

MEANINGS: dict[str, str] = {
    "num_train_epochs": "Passes over the training text.",
    "max_steps": "Updates of the weights, in place of num_train_epochs; -1 or null leaves it to num_train_epochs.",
    "learning_rate": "Peak of the learning rate; its course is in the schedule section.",
    "optim": "Optimizer, such as adamw_torch_fused, muon, adafactor, lion, sgd; those of other packages need these.",
    "optim_args": "Further options of optim, as text key=value,key=value, for those that take any.",
    "weight_decay": "Factor of decoupled weight decay; biases and layer norms are left out.",
    "adam_beta1": "Decay of the mean of the gradients in Adam.",
    "adam_beta2": "Decay of the mean of their squares in Adam.",
    "adam_epsilon": "Added to the denominator in Adam.",
    "optim_target_modules": "Modules that GaLore and APOLLO optimize; for these two optimizers only.",
    "gradient_accumulation_steps": "Batches of one update on each device; an update has this times batch_tokens "
    "times processes.",
    "max_grad_norm": "Gradients of a larger norm are scaled down to it; 0 is off.",
    "label_smoothing_factor": "Probability taken from the right token and given to all in training; 0 is off.",
    "bf16": "Compute in bfloat16, with weights in fp32.",
    "fp16": "Compute in float16, with weights in fp32 and a scaled loss; on GPUs without bfloat16.",
    "tf32": "TF32 products on NVIDIA GPUs from Ampere on; null is PyTorch's own choice.",
    "activation_checkpointing": "Compute activations again in the backward pass: less memory, about a fifth slower.",
    "activation_checkpointing_kwargs": "Options of activation_checkpointing, such as {every_n_layers: 2}.",
    "torch_compile": "Compile the model with torch.compile.",
    "torch_compile_backend": "Backend of torch.compile; setting it switches torch_compile on.",
    "torch_compile_mode": "Mode of torch.compile; setting it switches torch_compile on.",
    "neftune_noise_alpha": "Noise on the embeddings in training (NEFTune), such as 5; null is off.",
    "torch_empty_cache_steps": "Updates after which the device's memory cache is emptied again; null: never.",
    "logging_strategy": "When loss and speed are logged: no, steps or epoch.",
    "logging_steps": f"From one log line to the next, {_STEPS}.",
    "logging_first_step": "Log the first update too.",
    "log_on_each_node": "With several machines: log on each of them.",
    "logging_nan_inf_filter": "Leave losses that are not finite out of the log.",
    "log_level": "Of Transformers' own log: debug, info, warning, error or critical.",
    "log_level_replica": "The same on the processes other than the first.",
    "disable_tqdm": "No progress bar; null shows one on a terminal.",
    "report_to": "Trackers to report to: none, tensorboard, wandb, mlflow, or a list of them.",
    "project": "Name of the project, for the tracker Trackio only.",
    "eval_strategy": "When to validate: no, steps or epoch.",
    "eval_steps": f"From one validation to the next, {_STEPS}.",
    "eval_delay": "Updates or epochs (as eval_strategy counts) before the first validation.",
    "eval_on_start": "Validate before the first update.",
    "save_strategy": "When to write a checkpoint: no, steps, epoch or best.",
    "save_steps": f"From one checkpoint to the next, {_STEPS}.",
    "save_total_limit": "Newest checkpoints to keep; null keeps all.",
    "metric_for_best_model": "What chooses the best model and ends training early: bleu, chrf or loss.",
    "full_determinism": "Deterministic kernels only, to find faults; slow.",
    "data_seed": "Seed of the order of the batches; null takes seed.",
    "use_cpu": "Train on the processor even where there is a GPU.",
    "dataloader_num_workers": "Processes that make batches ahead; 0 makes them in the training process.",
    "dataloader_pin_memory": "Batches in pinned memory, which copies faster to a GPU.",
    "dataloader_persistent_workers": "Keep these processes from one epoch to the next.",
    "dataloader_prefetch_factor": "Batches that each of these processes makes ahead; null is PyTorch's own choice.",
    "dataloader_multiprocessing_context": "How these processes start: fork, spawn or forkserver; null is "
    "PyTorch's own choice.",
    "dataloader_in_order": "Take the batches of these processes in their order.",
    "ddp_find_unused_parameters": "Several processes: look for weights without a gradient in every update.",
    "ddp_bucket_cap_mb": "Several processes: MiB of gradients exchanged at once; null is PyTorch's own choice.",
    "ddp_broadcast_buffers": "Several processes: send buffers from the first to all in each forward pass.",
    "ddp_static_graph": "Several processes: the graph is the same in every update.",
    "ddp_backend": "Several processes: how they talk, nccl or gloo; null takes what suits the device.",
    "ddp_timeout": "Several processes: seconds that one waits for the others.",
    "debug": "underflow_overflow looks for numbers that are not finite in each layer; slow.",
    "skip_memory_metrics": "Do not measure memory, which slows training down.",
}


def meaning_of(field: dataclasses.Field[Any]) -> str:
    """What an argument means: ours, else the first sentence of Transformers' own text."""
    if field.name in MEANINGS:
        return MEANINGS[field.name]
    text = " ".join(str(field.metadata.get("help", "")).split()).replace("%%", "%")
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)[0] or "See the Trainer's documentation."
