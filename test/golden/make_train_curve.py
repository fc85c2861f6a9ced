"""train_curve/: 50 steps of training a small Llama, the trainer's referee.

A model folder with the initial weights, and curve.json with the token
batches, the settings, and every step's loss, gradient norm and learning
rate. Run in float32; the same run in float64 says how far rounding alone
moves the losses.
"""

import math
import os

import torch

import families
import json_io
import make_models
import safetensors_io

STEPS, BATCH, LENGTH = 50, 4, 25
ADAMW = {"lr": 4e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
CLIPPING = 1.2
SCHEDULE = {
    "total_num_steps": STEPS,
    "warmup_num_steps": 10,
    "warmup_min_ratio": 0.1,
    "cos_min_ratio": 0.05,
    "warmup_type": "linear",
}
CONFIG = {
    **make_models.CONFIGS["llama"],
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 104,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 128,
}


def learning_rate(step):
    """DeepSpeed's WarmupCosineLR at iteration `step`, counted from 0."""
    warmup = SCHEDULE["warmup_num_steps"]
    if step < warmup:
        low = SCHEDULE["warmup_min_ratio"]
        return ADAMW["lr"] * (low + (1 - low) * step / warmup)
    low = SCHEDULE["cos_min_ratio"]
    progress = (step - warmup + 1) / (SCHEDULE["total_num_steps"] - warmup)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return ADAMW["lr"] * (low + (1 - low) * cosine)


def _batches(generator):
    """Token batches [steps][batch][length] that a model can learn.

    A random walk: from each token four of five steps lead to one of three
    fixed successors, the fifth anywhere.
    """
    vocabulary = CONFIG["vocab_size"]
    successors = torch.randint(
        0, vocabulary, (vocabulary, 3), generator=generator
    ).tolist()

    def below(limit):
        return int(torch.randint(0, limit, (), generator=generator))

    batches = []
    for _ in range(STEPS):
        batch = []
        for _ in range(BATCH):
            tokens = [below(vocabulary)]
            while len(tokens) < LENGTH:
                if below(5) == 0:
                    tokens.append(below(vocabulary))
                else:
                    tokens.append(successors[tokens[-1]][below(3)])
            batch.append(tokens)
        batches.append(batch)
    return batches


def _train(initial, batches, dtype):
    """Losses and gradient norms (before clipping) of every step."""
    weights = {
        name: tensor.to(dtype).clone().requires_grad_()
        for name, tensor in initial.items()
    }
    decayed = [tensor for tensor in weights.values() if tensor.dim() >= 2]
    others = [tensor for tensor in weights.values() if tensor.dim() < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed},
            {"params": others, "weight_decay": 0.0},
        ],
        **ADAMW,
    )
    losses, norms = [], []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss = families.mean_loss(CONFIG, weights, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            list(weights.values()), CLIPPING
        )
        optimizer.step()
        losses.append(float(loss))
        norms.append(float(norm))
    return losses, norms, weights


def make(root):
    """Writes train_curve/ under `root`."""
    generator = torch.Generator().manual_seed(40)
    initial = make_models.random_weights(CONFIG, generator, gain=0.5)
    batches = _batches(generator)
    losses, norms, weights = _train(initial, batches, torch.float32)
    exact_losses, exact_norms, _ = _train(initial, batches, torch.float64)

    def deviation(values, reference):
        return max(abs(a - b) / b for a, b in zip(values, reference))

    clipped = sum(norm > CLIPPING for norm in norms)
    if not 5 <= clipped <= STEPS - 5:
        raise SystemExit(
            f"train_curve: {clipped} of {STEPS} steps clipped; norms "
            f"{min(norms):.2f} to {max(norms):.2f}"
        )
    directory = os.path.join(root, "train_curve")
    os.makedirs(directory, exist_ok=True)
    json_io.save(os.path.join(directory, "config.json"), CONFIG)
    safetensors_io.save(
        os.path.join(directory, "model.safetensors"),
        initial,
        {"format": "pt"},
    )
    json_io.save(
        os.path.join(directory, "curve.json"),
        {
            "optimizer": {
                "type": "AdamW",
                "params": ADAMW,
                "decayed": "tensors of two dimensions or more",
            },
            "gradient_clipping": CLIPPING,
            "scheduler": {"type": "WarmupCosineLR", "params": SCHEDULE},
            "losses": losses,
            "gradient_norms": norms,
            "learning_rates": [learning_rate(step) for step in range(STEPS)],
            "final_parameter_sums_of_squares": {
                name: float(tensor.detach().double().square().sum())
                for name, tensor in weights.items()
            },
            "float64_losses": exact_losses,
            "float64_gradient_norms": exact_norms,
            "batches": batches,
        },
    )
    print(
        f"train_curve: loss {losses[0]:.4f} to {losses[-1]:.4f}, {clipped} "
        f"steps clipped, float32 differs by "
        f"{deviation(losses, exact_losses):.1e} in loss, "
        f"{deviation(norms, exact_norms):.1e} in norm"
    )
