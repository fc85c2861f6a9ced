"""optimizers.safetensors and optimizers.json: 100 steps of each optimizer.

Two parameters, [37] and [5, 7], with a stored random gradient a step. The
gradients' sizes differ by element over four decades and some are zero, so
that epsilon, bias correction and decay all show. Computed in float64 from
float32 values.
"""

import os

import torch

import json_io
import safetensors_io

SHAPES = {"vector": (37,), "matrix": (5, 7)}
STEPS = 100
KEPT_STEPS = (1, 10, 100)


class Lion(torch.optim.Optimizer):
    """Lion, by algorithm 2 of Chen et al. 2023 (arXiv:2302.06675).

    update = sign(beta1 m + (1 - beta1) g)
    parameter -= learning_rate (update + weight_decay parameter)
    m = beta2 m + (1 - beta2) g
    """

    def __init__(self, parameters, lr, betas, weight_decay):
        super().__init__(
            parameters,
            {"lr": lr, "betas": betas, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure=None):
        """One update from the gradients."""
        assert closure is None
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum, gradient = state["momentum"], parameter.grad
                blend = beta1 * momentum + (1 - beta1) * gradient
                # A sign that rounding could turn would be a bad referee.
                scale = (beta1 * momentum).abs() + gradient.abs()
                assert bool(((blend.abs() > 1e-6 * scale) | (scale == 0))
                            .all()), "choose another seed"
                parameter -= rate * (blend.sign() + decay * parameter)
                momentum.mul_(beta2).add_(gradient, alpha=1 - beta2)


# name: (kind, class, arguments under PyTorch's names). Where a learning rate
# and a decoupled decay multiply, both are powers of two: float32 then holds
# 1 - rate * decay exactly, whose rounding would otherwise add up over 100
# steps to more than the permitted error, in whichever way it is computed.
CASES = {
    "adamw": (
        "AdamW",
        torch.optim.AdamW,
        {"lr": 0.00390625, "betas": [0.9, 0.95], "eps": 1e-8,
         "weight_decay": 0.125},
    ),
    "adamw_large_epsilon": (
        "AdamW",
        torch.optim.AdamW,
        {"lr": 1e-2, "betas": [0.8, 0.999], "eps": 1e-3,
         "weight_decay": 0.0},
    ),
    "adam_l2": (
        "Adam",
        torch.optim.Adam,
        {"lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8,
         "weight_decay": 0.05},
    ),
    "sgd": ("SGD", torch.optim.SGD, {"lr": 1e-2}),
    "sgd_momentum": (
        "SGD",
        torch.optim.SGD,
        {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0,
         "weight_decay": 0.02, "nesterov": False},
    ),
    "sgd_nesterov": (
        "SGD",
        torch.optim.SGD,
        {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0,
         "weight_decay": 0.02, "nesterov": True},
    ),
    "adagrad": (
        "Adagrad",
        torch.optim.Adagrad,
        {"lr": 5e-2, "lr_decay": 0.0, "weight_decay": 0.01,
         "initial_accumulator_value": 0.0, "eps": 1e-10},
    ),
    "adagrad_decay": (
        "Adagrad",
        torch.optim.Adagrad,
        {"lr": 5e-2, "lr_decay": 0.01, "weight_decay": 0.0,
         "initial_accumulator_value": 0.1, "eps": 1e-8},
    ),
    "lion": (
        "Lion",
        Lion,
        {"lr": 0.0009765625, "betas": [0.9, 0.99], "weight_decay": 0.125},
    ),
}


def _run(kind, arguments, initial, gradients, dtype):
    """{step: {name: parameter}} of one optimizer in `dtype`."""
    parameters = {
        name: value.to(dtype).clone().requires_grad_()
        for name, value in initial.items()
    }
    optimizer = kind(parameters.values(), **arguments)
    kept = {}
    for step in range(1, STEPS + 1):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step - 1].to(dtype)
        optimizer.step()
        if step in KEPT_STEPS:
            kept[step] = {
                name: parameter.detach().clone()
                for name, parameter in parameters.items()
            }
    return kept


def make(root):
    """Writes optimizers.safetensors and optimizers.json under `root`."""
    generator = torch.Generator().manual_seed(20)
    initial, gradients = {}, {}
    for name, shape in SHAPES.items():
        initial[name] = torch.randn(shape, generator=generator)
        sizes = 10 ** (
            2 - 4 * torch.rand(shape, generator=generator)
        )  # 1e-2 to 1e2
        noise = torch.randn((STEPS, *shape), generator=generator)
        drift = torch.randn(shape, generator=generator)
        gradients[name] = (noise + drift) * sizes
        # Elements that have no gradient for a while, or ever.
        gradients[name][:20, ..., 0] = 0
        gradients[name][50:60, ..., 1] = 0
        gradients[name][..., 2] = 0

    tensors = {}
    for name in SHAPES:
        tensors[f"initial.{name}"] = initial[name]
        tensors[f"gradients.{name}"] = gradients[name]
    cases = {}
    for case, (kind, constructor, arguments) in CASES.items():
        exact = _run(
            constructor, arguments, initial, gradients, torch.float64
        )
        single = _run(
            constructor, arguments, initial, gradients, torch.float32
        )
        worst = 0.0
        for step, parameters in exact.items():
            for name, parameter in parameters.items():
                tensors[f"{case}.{step}.{name}"] = parameter
                error = (single[step][name] - parameter).abs()
                worst = max(worst, float(error.max() / parameter.abs().max()))
        cases[case] = {
            "optimizer": kind,
            "arguments": arguments,
            "float32_error": worst,
        }
        print(f"optimizers: {case}: float32 differs by {worst:.1e}")
    safetensors_io.save(
        os.path.join(root, "optimizers.safetensors"), tensors
    )
    json_io.save(
        os.path.join(root, "optimizers.json"),
        {
            "parameters": list(SHAPES),
            "steps": STEPS,
            "kept_steps": list(KEPT_STEPS),
            "cases": cases,
        },
    )
