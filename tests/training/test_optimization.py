from __future__ import annotations

import sys

import pytest
import torch
from process_groups import run_in_processes
from torch.nn import functional
from toy_training import GroupSampler, collate, make_model, make_pairs, make_run, make_trainer

from hf_nmt import runs
from hf_nmt.config import load
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.training import sharding
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.sharpness import moved_uphill

CONSTANT = {"name": "constant", "warmup_steps": 0}
UPDATES = 4


def train(folder, *, model=None, seed: int = 1, checkpoint=None, shuffle=False, **settings) -> dict[str, torch.Tensor]:
    """The weights after some updates of 2 x 8 pairs."""
    defaults = {
        "max_steps": UPDATES, "gradient_accumulation_steps": 2, "save_steps": 2, "logging_steps": 1,
        "label_smoothing_factor": 0, "schedule": CONSTANT, "use_cpu": True,
    }  # fmt: skip
    trainer = make_trainer(
        make_run(folder), model=make_model(seed, dropout=0) if model is None else model,
        sampler=GroupSampler(64, 8, shuffle=shuffle), **(defaults | settings),
    )  # fmt: skip
    trainer.train(checkpoint)
    train.trainer = trainer
    return {name: tensor.detach().clone() for name, tensor in trainer.model.named_parameters()}


def batches() -> list[list[dict[str, torch.Tensor]]]:
    """The same batches, by update."""
    pairs = make_pairs(64)
    every = [collate([pairs[index] for index in group]) for group in GroupSampler(64, 8, shuffle=False)]
    return [every[start : start + 2] for start in range(0, 2 * UPDATES, 2)]


def gradients(model, update) -> list[torch.Tensor]:
    """Of the cross-entropy of all target tokens of an update, computed plainly."""
    model.zero_grad()
    count = sum(int((batch["labels"] != -100).sum()) for batch in update)
    for batch in update:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)
        (functional.cross_entropy(logits, batch["labels"].flatten(), reduction="sum") / count).backward()
    return [weight.grad.clone() for weight in model.parameters()]


def by_hand(step) -> dict[str, torch.Tensor]:
    """Weights after the same updates, each by `step(model, update)`."""
    model = make_model(1, dropout=0)
    model.train()
    for update in batches():
        step(model, update)
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def close(found, expected) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=2e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def differs(found, other) -> bool:
    return any(not torch.equal(found[name], other[name]) for name in other)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_that_of_a_plain_loop_with_accumulation_and_clipping(tmp_path, adaptive):
    rho = 0.5 if adaptive else 0.05

    @torch.no_grad()
    def step(model, update):
        with torch.enable_grad():
            first = gradients(model, update)
        weights = list(model.parameters())
        before = [weight.clone() for weight in weights]
        if adaptive:
            norm = sum(((weight.abs() * grad) ** 2).sum() for weight, grad in zip(weights, first, strict=True)).sqrt()
            moves = [rho * weight**2 * grad / norm for weight, grad in zip(weights, first, strict=True)]
        else:
            moves = [rho * grad / sum((grad**2).sum() for grad in first).sqrt() for grad in first]
        for weight, move in zip(weights, moves, strict=True):
            weight += move
        with torch.enable_grad():
            second = gradients(model, update)
        norm = sum((grad**2).sum() for grad in second).sqrt()
        assert norm > 0.1  # so that it is clipped
        for weight, old, grad in zip(weights, before, second, strict=True):
            weight.copy_(old - 0.3 * 0.1 * grad / norm)

    options = {"optim": "sgd", "learning_rate": 0.3, "max_grad_norm": 0.1}
    found = train(tmp_path, **options, sam_rho=rho, sam_adaptive=adaptive)
    close(found, by_hand(step))
    with pytest.raises(AssertionError):
        close(train(tmp_path, **options), by_hand(step))


@pytest.mark.parametrize("max_norm", [0.1, 0])
def test_clipping_is_of_the_whole_update(tmp_path, max_norm):
    """The batches of an update are summed before; 0 is off."""
    norms = []

    def step(model, update):
        grads = gradients(model, update)
        norms.append(float(sum((grad**2).sum() for grad in grads).sqrt()))
        with torch.no_grad():
            for weight, grad in zip(model.parameters(), grads, strict=True):
                weight -= 0.3 * grad * (min(max_norm / norms[-1], 1) if max_norm else 1)

    expected = by_hand(step)
    close(train(tmp_path, optim="sgd", learning_rate=0.3, max_grad_norm=max_norm), expected)
    logged = [entry["value"] for entry in runs.read_metrics(train.trainer.run.folder) if entry["name"] == "grad_norm"]
    assert logged == pytest.approx(norms, rel=1e-3) and min(norms) > 0.1


def test_sam_moves_as_that_of_pytorch_optimizer():
    library = pytest.importorskip("pytorch_optimizer")
    model = make_model(1, dropout=0)
    gradients(model, batches()[0])
    theirs = library.SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
    start = [weight.detach().clone() for weight in model.parameters()]
    theirs.first_step()
    expected = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        for weight, old in zip(model.parameters(), start, strict=True):
            weight.copy_(old)
    with moved_uphill([*model.parameters()], 0.05):
        for weight, moved in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(weight.detach(), moved)
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), start, strict=True))
    moves = torch.cat([(moved - old).flatten() for moved, old in zip(expected, start, strict=True)])
    assert moves.norm() == pytest.approx(0.05, rel=1e-4)


def test_a_step_of_no_length_trains_as_without_sam_bit_for_bit(tmp_path):
    """Both passes see the same dropout, and leave the random numbers where one pass would."""
    plain, near = (
        train(tmp_path / name, model=make_model(1, dropout=0.3), shuffle=True, sam_rho=rho)
        for name, rho in (("plain", None), ("near", 1e-30))
    )
    assert not differs(near, plain)
    far = train(tmp_path / "far", model=make_model(1, dropout=0.3), shuffle=True, sam_rho=0.05)
    assert differs(far, plain)


def test_lion_is_that_of_its_paper(tmp_path):
    pytest.importorskip("pytorch_optimizer")
    means: dict[int, torch.Tensor] = {}

    def step(model, update):
        decays = {name for name, _ in model.named_parameters() if "bias" not in name and "norm" not in name}
        for index, ((name, weight), grad) in enumerate(
            zip(model.named_parameters(), gradients(model, update), strict=True)
        ):
            mean = means.get(index, torch.zeros_like(grad))
            direction = torch.sign(0.9 * mean + 0.1 * grad)
            means[index] = 0.98 * mean + 0.02 * grad
            with torch.no_grad():
                weight -= 1e-3 * (direction + (0.1 * weight if name in decays else 0))

    options = {"optim": "lion", "learning_rate": 1e-3, "adam_beta1": 0.9, "adam_beta2": 0.98, "weight_decay": 0.1}
    found = train(tmp_path, **options, max_grad_norm=0)
    expected = by_hand(step)
    # The bias of keys has no gradient: softmax takes no notice of it. What rounding leaves may have either sign.
    off = {name: int(((found[name] - tensor).abs() > 1e-6).sum()) for name, tensor in expected.items()}
    assert sum(count for name, count in off.items() if "k_proj.bias" not in name) <= 3
    assert train.trainer.args.optim == "lion_32bit" and type(train.trainer.optimizer.optimizer).__name__ == "Lion"


def test_muon_moves_matrices_along_all_directions_alike_and_the_rest_as_adamw(tmp_path):
    """Against the iteration's own closed form: it leaves singular vectors as they are, and takes each singular value
    through a polynomial (Jordan et al. 2024)."""
    rate, decay, momentum = 1e-2, 0.1, 0.95
    state: dict[str, tuple] = {}

    def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        assert values.max() < 1.3
        return (left * values @ right).float()

    @torch.no_grad()
    def step(model, update):
        with torch.enable_grad():
            found = gradients(model, update)
        for (name, weight), grad in zip(model.named_parameters(), found, strict=True):
            decays = 0 if "bias" in name or "norm" in name else decay
            weight *= 1 - rate * decays
            if weight.ndim == 2 and "embed" not in name:
                mean = momentum * state.get(name, torch.zeros_like(grad)) + (1 - momentum) * grad
                state[name] = mean
                direction = orthogonalised(momentum * mean + (1 - momentum) * grad)
                weight -= rate * 0.2 * max(weight.shape) ** 0.5 * direction
            else:
                count, first, second = state.get(name, (0, 0, 0))
                count, first, second = count + 1, 0.9 * first + 0.1 * grad, 0.98 * second + 0.02 * grad**2
                state[name] = count, first, second
                weight -= rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.98**count)).sqrt() + 1e-9)

    options = {"learning_rate": rate, "adam_beta1": 0.9, "adam_beta2": 0.98, "weight_decay": decay}
    found = train(tmp_path, optim="muon", max_grad_norm=0, **options)
    expected = by_hand(step)
    start = dict(make_model(1, dropout=0).named_parameters())
    matrices = {name for name, kept in state.items() if isinstance(kept, torch.Tensor)}
    assert 20 < len(matrices) and all("proj" in name or "fc" in name for name in matrices)
    for name, tensor in expected.items():
        if "k_proj.bias" not in name:  # without a gradient but for rounding, see above
            moved, off = (tensor - start[name]).norm(), found[name] - tensor
            if name in matrices:
                assert off.norm() < 0.06 * moved, name  # the iteration runs in bfloat16
            else:  # AdamW turns with the sign of a gradient near zero
                assert off.abs().median() < 0.02 * moved / off.numel() ** 0.5, name
    assert [group["is_matrix"] for group in train.trainer.optimizer.param_groups] == [True, False, False]


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adafactor", "lion", "muon", "sgd"])
def test_each_optimizer_resumes_under_sam_as_if_never_stopped(tmp_path, optim):
    if optim == "lion":
        pytest.importorskip("pytorch_optimizer")
    options = {"optim": optim, "sam_rho": 0.05, "learning_rate": 1e-3, "shuffle": True}
    options |= {"optim_args": "momentum=0.9"} if optim == "sgd" else {}
    whole = train(tmp_path / "whole", model=make_model(1, dropout=0.3), **options)
    checkpoint = runs.checkpoint_folder(train.trainer.run.checkpoints, 2)
    resumed = train(tmp_path / "resumed", model=make_model(9, dropout=0.3), checkpoint=checkpoint, **options)
    assert not differs(resumed, whole)


def in_one_process(folder: str, accumulation: int) -> dict:
    weights = train(
        folder + str(torch.distributed.is_initialized() and torch.distributed.get_rank()), optim="sgd",
        learning_rate=0.3, sam_rho=0.05, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    return {name: tensor.numpy() for name, tensor in weights.items()}


@pytest.mark.slow
def test_two_processes_move_to_the_same_point_as_one_that_accumulates(tmp_path):
    (alone,) = run_in_processes(in_one_process, 1, str(tmp_path / "one"), 4)
    pair = run_in_processes(in_one_process, 2, str(tmp_path / "two"), 2)
    for found in pair:
        close({name: torch.tensor(value) for name, value in found.items()},
              {name: torch.tensor(value) for name, value in alone.items()})  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sam_rho=0.05", "fp16=true"], "sam_rho: the scaled loss of fp16 would scale its step too; use bf16"),
        (["sam_adaptive=true"], "sam_adaptive: does nothing without sam_rho"),
        (["sam_rho=0"], "sam_rho: given '?0'?, allowed: number > 0"),
        (
            ["optim=lions"],
            r"optim: given 'lions'. Did you mean lion or lion_8bit or lion_32bit\? Allowed are 4\d words; "
            r"--help optim lists them\.$",
        ),
        (["optim=adam"], r"optim: given 'adam'. Did you mean adamw_\w+ or adamw_torch or "),
        (["optim=zzz"], r"optim: given 'zzz'. Allowed are 4\d words; --help optim lists them\.$"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(TrainingSettings, overrides=overrides)


@pytest.mark.parametrize(
    ("optim", "given", "idle"),
    [
        ("sgd", "momentum=0.9", None),
        ("sgd", "momentum=0.9, nesterov=true", None),
        ("sgd", "momentun=0.9,dampening=0.1", "momentun=0.9"),
        ("sgd", "momentum", "momentum"),
        ("adamw_torch_fused", "beta1=0.8,eps=1e-8", "beta1=0.8, eps=1e-8"),
        ("lion", "weight_decouple=false", "weight_decouple=false"),
        ("muon", "momentum=0.9", "momentum=0.9"),
    ],
)
def test_options_that_an_optimizer_does_not_take_are_refused(optim, given, idle):
    settings = TrainingSettings(optim=optim, optim_args=given)
    if idle is None:
        assert settings.arguments(seed=1, run_name="x", validate=False).optim_args == given
        return
    with pytest.raises(ConfigError, match=rf"training\.optim_args: {idle} does nothing with training\.optim={optim}"):
        settings.arguments(seed=1, run_name="x", validate=False)


def test_divided_weights_refuse_sam_lion_and_muon(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    settings = {"fp16": False, "torch_compile": False, "sam_rho": 0.05}
    for optim in ("lion", "muon"):
        optimizer, sam = sharding.settings_findings(settings | {"optim": optim})
        assert optimizer.startswith(f"training.optim: given {optim}, allowed under FSDP: adamw_torch")
    assert (
        sam == "training.sam_rho: under FSDP no process has the whole gradient, along which it moves; set it to null."
    )


def test_lion_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(NmtError, match=r"'pytorch_optimizer' is needed here .* pip install .hf_nmt\[optimizers\]"):
        TrainingSettings(optim="lion").arguments(seed=1, run_name="x", validate=False)
