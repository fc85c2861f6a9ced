#!/usr/bin/python3
"""PyTorch as a benchmark peer: one JSON request a line in, one answer out.

A request is {"id": N, "task": NAME, "threads": T, ...}; its answer is
{"id": N, "ok": true, ...} or {"id": N, "ok": false, "error": TEXT}. Times
are in seconds, one for each repetition, so that a benchmark can run its own
code and this peer in turn (A B A B) and compare within one run. Operands and
models are kept between requests, so that a repeated request does not pay for
setting them up; "forget" drops them.

Tasks and what they take:
- info
- matmul: dtype, m, n, k, transpose_b, repetitions
- attention: dtype, batch, heads, kv_heads, tokens, head_dim, backward,
  kind ("unfused" or "fused"), repetitions
- train: config {dim, layers, heads, kv_heads, ffn, vocabulary}, dtype,
  batch, sequence, steps, learning_rate
- forget
dtype is "f32" or "bf16"; "train" in bf16 is autocast over float32 weights.
"""

import ctypes
import json
import math
import os
import re
import statistics
import sys
import time
import traceback

try:
    import torch
    import torch.nn.functional as F
except ImportError as fault:
    print(json.dumps({"id": 0, "ok": False, "error": str(fault)}))
    sys.exit(3)

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
_kept = {}


def keep(key, make):
    """The value kept under `key`, made by `make` the first time."""
    if key not in _kept:
        _kept[key] = make()
    return _kept[key]


def timed(action, repetitions):
    """Seconds of each of `repetitions` calls, after one that warms up."""
    action()
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return seconds


def times(seconds, **more):
    """The part of an answer that every timed task has."""
    return {
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        **more,
    }


def blas_library():
    """The BLAS that float32 matmuls run on, and whether it is a fast one.

    Debian's PyTorch takes whatever libblas.so.3 the system offers; without
    OpenBLAS that is the reference implementation, about a hundred times
    slower than the machine. bf16 runs on oneDNN and does not depend on it.
    """
    torch.ones(2, 2) @ torch.ones(2, 2)
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split()[-1] for line in file if ".so" in line}
    for path in sorted(paths):
        name = os.path.basename(path)
        for known in ("openblas", "mkl_rt", "mkl_core", "blis"):
            if known in path.lower() and "mkldnn" not in path.lower():
                return {"blas": name, "blas_is_reference": False}
    for path in sorted(paths):
        if re.match(r"libblas\.so", os.path.basename(path)):
            return {"blas": path, "blas_is_reference": True}
    return {"blas": "inside PyTorch", "blas_is_reference": False}


def info(_request):
    """Versions, so that a printed ratio says what it is a ratio to."""
    return {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "fused_attention": hasattr(F, "scaled_dot_product_attention"),
        "onednn": torch.backends.mkldnn.is_available(),
        **blas_library(),
    }


def matmul(request):
    """C [m, n] = A [m, k] @ B [k, n] into memory that is there already."""
    dtype = DTYPES[request["dtype"]]
    m, n, k = request["m"], request["n"], request["k"]
    transposed = request.get("transpose_b", False)

    def make():
        generator = torch.Generator().manual_seed(1)
        first = torch.randn((m, k), generator=generator).to(dtype)
        shape = (n, k) if transposed else (k, n)
        second = torch.randn(shape, generator=generator).to(dtype)
        return first, second, torch.empty((m, n), dtype=dtype)

    key = ("matmul", request["dtype"], m, n, k, transposed)
    first, second, out = keep(key, make)
    right = second.t() if transposed else second
    with torch.no_grad():
        seconds = timed(
            lambda: torch.mm(first, right, out=out), request["repetitions"]
        )
    rows = slice(0, 2)
    exact = first[rows].double() @ right.double()
    error = float((out[rows].double() - exact).norm() / exact.norm())
    if not error < (1e-5 if dtype == torch.float32 else 1e-2):
        raise RuntimeError(f"the product is wrong by {error:.1e}")
    flops = 2 * m * n * k
    return times(seconds, gflops=flops / statistics.median(seconds) / 1e9)


def unfused_attention(queries, keys, values, mask):
    """Matmul, softmax, matmul on [batch, heads, tokens, head_dim]."""
    scores = torch.matmul(queries, keys.transpose(-1, -2))
    return torch.matmul(scores.add_(mask).softmax(dim=-1), values)


def causal_mask(tokens, dtype):
    """0 where a query may look, -inf above the diagonal."""
    mask = torch.full((tokens, tokens), -math.inf)
    return torch.triu(mask, diagonal=1).to(dtype)


def attention(request):
    """Causal attention, forward or forward with backward."""
    dtype = DTYPES[request["dtype"]]
    batch, heads = request["batch"], request["heads"]
    kv_heads = request.get("kv_heads", heads)
    tokens, size = request["tokens"], request["head_dim"]
    backward = request.get("backward", False)
    kind = request.get("kind", "unfused")
    if kind == "fused" and not hasattr(F, "scaled_dot_product_attention"):
        raise RuntimeError(
            f"PyTorch {torch.__version__} has no scaled_dot_product_attention"
        )

    def make():
        generator = torch.Generator().manual_seed(2)

        def random(count):
            return torch.randn(
                (batch, count, tokens, size), generator=generator
            ).to(dtype).requires_grad_(backward)

        return (
            random(heads), random(kv_heads), random(kv_heads),
            causal_mask(tokens, dtype),
            torch.randn((batch, heads, tokens, size),
                        generator=generator).to(dtype),
        )

    key = ("attention", request["dtype"], batch, heads, kv_heads, tokens,
           size, backward)
    queries, keys, values, mask, gradient = keep(key, make)

    def forward():
        wide_keys, wide_values = keys, values
        if kv_heads != heads:
            wide_keys = keys.repeat_interleave(heads // kv_heads, dim=1)
            wide_values = values.repeat_interleave(heads // kv_heads, dim=1)
        if kind == "fused":
            return F.scaled_dot_product_attention(
                queries, wide_keys, wide_values, is_causal=True
            )
        return unfused_attention(
            queries * size**-0.5, wide_keys, wide_values, mask
        )

    if not backward:
        with torch.no_grad():
            return times(timed(forward, request["repetitions"]))
    forward().backward(gradient)  # warms up
    forward_seconds, backward_seconds = [], []
    for _ in range(request["repetitions"]):
        for leaf in (queries, keys, values):
            leaf.grad = None
        begin = time.perf_counter()
        output = forward()
        middle = time.perf_counter()
        output.backward(gradient)
        end = time.perf_counter()
        forward_seconds.append(middle - begin)
        backward_seconds.append(end - middle)
    return times(
        backward_seconds,
        forward_seconds=forward_seconds,
        median_forward_seconds=statistics.median(forward_seconds),
    )


class Block(torch.nn.Module):
    """One layer of a Llama: attention and SwiGLU, RMSNorm before each."""

    def __init__(self, config):
        super().__init__()
        self.heads = config["heads"]
        self.kv_heads = config.get("kv_heads", self.heads)
        dim, ffn = config["dim"], config["ffn"]
        self.size = dim // self.heads
        self.widths = [self.heads * self.size] + 2 * [
            self.kv_heads * self.size
        ]

        def matrix(outputs, inputs):
            return torch.nn.Parameter(0.02 * torch.randn(outputs, inputs))

        self.attention_norm = torch.nn.Parameter(torch.ones(dim))
        self.ffn_norm = torch.nn.Parameter(torch.ones(dim))
        self.qkv = matrix(sum(self.widths), dim)
        self.output = matrix(dim, self.widths[0])
        self.gate_up = matrix(2 * ffn, dim)
        self.down = matrix(dim, ffn)

    def forward(self, hidden, cosine, sine, mask):
        """hidden [batch, tokens, dim] -> the same shape."""
        batch, tokens, _ = hidden.shape
        joined = F.linear(rms_norm(hidden, self.attention_norm), self.qkv)
        queries, keys, values = (
            part.view(batch, tokens, -1, self.size).transpose(1, 2)
            for part in joined.split(self.widths, dim=-1)
        )
        queries = rotate(queries, cosine, sine) * self.size**-0.5
        keys = rotate(keys, cosine, sine)
        if self.kv_heads != self.heads:
            groups = self.heads // self.kv_heads
            keys = keys.repeat_interleave(groups, dim=1)
            values = values.repeat_interleave(groups, dim=1)
        if hasattr(F, "scaled_dot_product_attention"):
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=True, scale=1.0
            )
        else:
            mixed = unfused_attention(queries, keys, values, mask)
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, -1)
        hidden = hidden + F.linear(mixed, self.output)
        normed = rms_norm(hidden, self.ffn_norm)
        gate, up = F.linear(normed, self.gate_up).chunk(2, dim=-1)
        return hidden + F.linear(F.silu(gate) * up, self.down)


def rms_norm(states, weight):
    """x / sqrt(mean(x ** 2) + 1e-5) * weight."""
    mean_square = states.square().mean(dim=-1, keepdim=True)
    return states * (torch.rsqrt(mean_square + 1e-5) * weight)


def rotate(states, cosine, sine):
    """Rotary position embedding, half-split, on [..., tokens, head_dim]."""
    cosine, sine = cosine.to(states.dtype), sine.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return torch.cat(
        (first * cosine - second * sine, second * cosine + first * sine),
        dim=-1,
    )


class Llama(torch.nn.Module):
    """A Llama with an output projection of its own."""

    def __init__(self, config):
        super().__init__()
        dim, vocabulary = config["dim"], config["vocabulary"]
        self.size = dim // config["heads"]
        self.embedding = torch.nn.Parameter(
            0.02 * torch.randn(vocabulary, dim)
        )
        self.blocks = torch.nn.ModuleList(
            Block(config) for _ in range(config["layers"])
        )
        self.norm = torch.nn.Parameter(torch.ones(dim))
        self.head = torch.nn.Parameter(0.02 * torch.randn(vocabulary, dim))
        self.tables = {}

    def positions(self, tokens, dtype):
        """Cosines and sines [tokens, head_dim / 2] and the causal mask."""
        if (tokens, dtype) not in self.tables:
            exponents = torch.arange(0, self.size, 2) / self.size
            angles = torch.outer(torch.arange(tokens), 10000.0**-exponents)
            self.tables[tokens, dtype] = (
                angles.cos(), angles.sin(), causal_mask(tokens, dtype)
            )
        return self.tables[tokens, dtype]

    def forward(self, inputs, targets, dtype):
        """Mean cross-entropy of targets [batch, tokens]."""
        cosine, sine, mask = self.positions(inputs.shape[1], dtype)
        hidden = F.embedding(inputs, self.embedding)
        for block in self.blocks:
            hidden = block(hidden, cosine, sine, mask)
        logits = F.linear(rms_norm(hidden, self.norm), self.head)
        return F.cross_entropy(
            logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1)
        )


def train(request):
    """Steps of training: forward, backward, clipping, AdamW."""
    config, dtype = request["config"], DTYPES[request["dtype"]]
    batch, sequence = request["batch"], request["sequence"]

    def make():
        torch.manual_seed(3)
        model = Llama(config)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=request.get("learning_rate", 1e-3),
            betas=(0.9, 0.95),
            weight_decay=0.1,
            foreach=request.get("foreach", False),
        )
        return model, optimizer

    key = ("train", json.dumps(config, sort_keys=True), request["dtype"],
           request.get("foreach", False))
    known = key in _kept
    model, optimizer = keep(key, make)
    tokens = torch.randint(
        0,
        config["vocabulary"],
        (batch, sequence + 1),
        generator=torch.Generator().manual_seed(4),
    )
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    losses = []

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16
        ):
            loss = model(inputs, targets, dtype)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    if known:  # warm already
        seconds = []
        for _ in range(request["steps"]):
            begin = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begin)
    else:
        seconds = timed(step, request["steps"])
    return times(
        seconds,
        tokens_per_second=batch * sequence / statistics.median(seconds),
        losses=losses,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def forget(_request):
    """Frees every kept operand and model."""
    _kept.clear()
    return {}


TASKS = {
    "info": info,
    "matmul": matmul,
    "attention": attention,
    "train": train,
    "forget": forget,
}


def answer(request):
    """One answer; a fault of a task is an answer too."""
    try:
        if request.get("task") not in TASKS:
            raise ValueError(
                f"no task {request.get('task')!r}; tasks: {', '.join(TASKS)}"
            )
        threads = request.get("threads")
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        return {"ok": True, **TASKS[request["task"]](request)}
    except Exception as fault:  # reported to the benchmark, which goes on
        traceback.print_exc()
        return {"ok": False, "error": f"{type(fault).__name__}: {fault}"}


def keep_freed_memory():
    """Lets glibc keep freed memory, as people who tune PyTorch do.

    Otherwise every large tensor is mapped anew and its pages fault again,
    which costs a training step about a tenth of its time.
    """
    trim_threshold, mmap_max = -1, -4  # parameters of mallopt(3)
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, -1)


def main():
    """Answers requests until standard input ends."""
    keep_freed_memory()
    torch.set_flush_denormal(True)
    for line in sys.stdin:
        if line.strip():
            request = json.loads(line)
            result = {"id": request.get("id"), **answer(request)}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
