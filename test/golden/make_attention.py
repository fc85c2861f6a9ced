"""attention.safetensors and attention.json: attention with its gradients.

Sequences of different lengths lie end to end, without padding: q, out and
their gradients are [tokens, heads, head_dim], k and v and theirs
[tokens, kv_heads, head_dim]. No token sees another sequence. Computed in
float64 from float32 inputs.
"""

import os

import torch

import families
import json_io
import safetensors_io


def _case(lengths, heads, kv_heads, head_dim, window=None, scale=None):
    """One case, under the names that attention.json has."""
    return {
        "lengths": lengths,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "window": window,
        "scale": head_dim**-0.5 if scale is None else scale,
    }


CASES = {
    "causal": _case([19], 2, 2, 8),
    "long": _case([131], 1, 1, 16),
    "packed": _case([1, 5, 17, 2, 33], 3, 3, 12),
    "grouped": _case([9, 26], 6, 2, 8),
    "multi_query": _case([7, 13], 5, 1, 20),
    "window": _case([40], 2, 2, 8, window=7),
    "window_of_one": _case([6, 3], 2, 1, 8, window=1),
    "window_packed_grouped": _case([3, 70, 11], 4, 2, 8, window=16),
    "scaled": _case([15], 2, 2, 8, scale=0.5),
}


def make(root):
    """Writes attention.safetensors and attention.json under `root`."""
    generator = torch.Generator().manual_seed(30)
    tensors = {}
    for name, case in CASES.items():
        tokens, size = sum(case["lengths"]), case["head_dim"]

        def random(heads, count=tokens, width=size):
            return torch.randn((count, heads, width), generator=generator)

        inputs = {
            "q": 1.5 * random(case["heads"]),
            "k": 1.5 * random(case["kv_heads"]),
            "v": random(case["kv_heads"]),
        }
        output_gradient = random(case["heads"])
        leaves = {
            key: value.double().requires_grad_()
            for key, value in inputs.items()
        }
        pieces = zip(
            *(leaves[key].split(case["lengths"]) for key in ("q", "k", "v"))
        )
        output = torch.cat([
            families.attention(*piece, case["scale"], case["window"])
            for piece in pieces
        ])
        output.backward(output_gradient.double())
        for key, value in inputs.items():
            tensors[f"{name}.{key}"] = value
        tensors[f"{name}.output"] = output
        tensors[f"{name}.output_gradient"] = output_gradient
        for key, leaf in leaves.items():
            tensors[f"{name}.{key}_gradient"] = leaf.grad
    safetensors_io.save(os.path.join(root, "attention.safetensors"), tensors)
    json_io.save(os.path.join(root, "attention.json"), {"cases": CASES})
    print(f"attention: {len(CASES)} cases")
