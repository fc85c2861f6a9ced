"""The model families in plain PyTorch, over weights under Hugging Face names.

A model is a function (config, weights, tokens [time]) -> logits
[time, vocabulary]. It computes in the dtype of the weights: the golden files
take float64, so that they hold the true values and not one implementation's
rounding. Config keys are those of Hugging Face's config.json.
"""

import math

import torch
import torch.nn.functional as F


def head_dimension(config):
    """Elements of one attention head."""
    if config.get("head_dim") is not None:
        return config["head_dim"]
    return config["hidden_size"] // config["num_attention_heads"]


def rope_frequencies(config, dtype):
    """Angular frequency of each rotated pair, [head_dim / 2].

    Plain: theta ** (-2 i / head_dim). Llama 3 divides the frequencies whose
    wavelength is beyond original/low by `factor`, keeps those shorter than
    original/high, and goes linearly (in original/wavelength) in between.
    """
    dimension = head_dimension(config)
    exponents = torch.arange(0, dimension, 2, dtype=dtype) / dimension
    plain = config["rope_theta"] ** -exponents
    scaling = config.get("rope_scaling")
    if scaling is None:
        return plain
    assert scaling["rope_type"] == "llama3"
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    periods = scaling["original_max_position_embeddings"] * plain / (
        2 * math.pi
    )  # how often each pair turns within the original context
    keep = ((periods - low) / (high - low)).clamp(0, 1)
    return plain * (keep + (1 - keep) / scaling["factor"])


def rotate(states, frequencies):
    """Rotary position embedding of [time, heads, head_dim].

    Half-split layout: element i pairs with element i + head_dim / 2.
    """
    time = torch.arange(states.shape[0], dtype=states.dtype)
    angles = time[:, None, None] * frequencies
    cosine, sine = angles.cos(), angles.sin()
    first, second = states.chunk(2, dim=-1)
    return torch.cat(
        (first * cosine - second * sine, second * cosine + first * sine),
        dim=-1,
    )


def attention(queries, keys, values, scale, window=None):
    """Causal attention of one sequence; q [time, heads, head_dim].

    k and v may have fewer heads: query head h reads head
    h // (heads / kv_heads). With a window, a token sees the last `window`
    tokens, itself included.
    """
    time, heads, _ = queries.shape
    groups = heads // keys.shape[1]
    keys = keys.repeat_interleave(groups, dim=1)
    values = values.repeat_interleave(groups, dim=1)
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * scale
    query = torch.arange(time)[:, None]
    key = torch.arange(time)[None, :]
    visible = key <= query
    if window is not None:
        visible &= key > query - window
    scores = scores.masked_fill(~visible, -math.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values)


def rms_norm(states, weight, epsilon):
    """x / sqrt(mean(x ** 2) + epsilon) * weight."""
    mean_square = states.pow(2).mean(dim=-1, keepdim=True)
    return states * torch.rsqrt(mean_square + epsilon) * weight


def sliding_window(config):
    """The attention window, or None; Qwen configs switch it separately."""
    if config["model_type"] == "mistral":
        return config["sliding_window"]
    assert not config.get("use_sliding_window", False)
    return None


def llama_logits(config, weights, tokens):
    """Llama, Mistral, Qwen2 and Qwen3: one decoder, a few switches.

    The weights say what a family has: Qwen2 biases on q, k and v; Qwen3 an
    RMSNorm of each query and key head, before the rotation.
    """
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    dimension = head_dimension(config)
    epsilon = config["rms_norm_eps"]
    embedding = weights["model.embed_tokens.weight"]
    frequencies = rope_frequencies(config, embedding.dtype)
    time = tokens.shape[0]

    hidden = F.embedding(tokens, embedding)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."

        def linear(name, inputs):
            return F.linear(
                inputs,
                weights[f"{prefix}{name}.weight"],
                weights.get(f"{prefix}{name}.bias"),
            )

        normed = rms_norm(
            hidden, weights[prefix + "input_layernorm.weight"], epsilon
        )
        queries = linear("self_attn.q_proj", normed)
        keys = linear("self_attn.k_proj", normed)
        values = linear("self_attn.v_proj", normed)
        queries = queries.view(time, heads, dimension)
        keys = keys.view(time, kv_heads, dimension)
        values = values.view(time, kv_heads, dimension)
        if config["model_type"] == "qwen3":
            norms = prefix + "self_attn."
            queries = rms_norm(
                queries, weights[norms + "q_norm.weight"], epsilon
            )
            keys = rms_norm(keys, weights[norms + "k_norm.weight"], epsilon)
        mixed = attention(
            rotate(queries, frequencies),
            rotate(keys, frequencies),
            values,
            dimension**-0.5,
            sliding_window(config),
        )
        hidden = hidden + linear(
            "self_attn.o_proj", mixed.reshape(time, heads * dimension)
        )

        normed = rms_norm(
            hidden,
            weights[prefix + "post_attention_layernorm.weight"],
            epsilon,
        )
        gate = F.silu(linear("mlp.gate_proj", normed))
        up = linear("mlp.up_proj", normed)
        hidden = hidden + linear("mlp.down_proj", gate * up)

    hidden = rms_norm(hidden, weights["model.norm.weight"], epsilon)
    return F.linear(hidden, weights.get("lm_head.weight", embedding))


def gelu_new(states):
    """The tanh approximation of GELU that GPT-2 was trained with."""
    inner = states + 0.044715 * states.pow(3)
    return 0.5 * states * (1 + torch.tanh(math.sqrt(2 / math.pi) * inner))


def gpt2_logits(config, weights, tokens):
    """GPT-2. Its projections are stored [inputs, outputs] ("Conv1D")."""
    width, heads = config["n_embd"], config["n_head"]
    dimension = width // heads
    epsilon = config["layer_norm_epsilon"]
    time = tokens.shape[0]
    embedding = weights["transformer.wte.weight"]

    def project(name, inputs):
        return inputs @ weights[name + ".weight"] + weights[name + ".bias"]

    def layer_norm(name, inputs):
        return F.layer_norm(
            inputs,
            (width,),
            weights[name + ".weight"],
            weights[name + ".bias"],
            epsilon,
        )

    hidden = F.embedding(tokens, embedding)
    hidden = hidden + weights["transformer.wpe.weight"][:time]
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        normed = layer_norm(prefix + "ln_1", hidden)
        joined = project(prefix + "attn.c_attn", normed)
        queries, keys, values = (
            part.view(time, heads, dimension)
            for part in joined.split(width, dim=-1)
        )
        mixed = attention(queries, keys, values, dimension**-0.5)
        hidden = hidden + project(
            prefix + "attn.c_proj", mixed.reshape(time, width)
        )
        normed = layer_norm(prefix + "ln_2", hidden)
        inner = gelu_new(project(prefix + "mlp.c_fc", normed))
        hidden = hidden + project(prefix + "mlp.c_proj", inner)
    return F.linear(layer_norm("transformer.ln_f", hidden), embedding)


def logits(config, weights, tokens):
    """Logits [time, vocabulary] of one sequence, by the config's family."""
    if config["model_type"] == "gpt2":
        return gpt2_logits(config, weights, tokens)
    return llama_logits(config, weights, tokens)


def mean_loss(config, weights, sequences):
    """Mean next-token cross-entropy over all targets of all sequences.

    A sequence of n tokens has n - 1 targets.
    """
    total, targets = 0, 0
    for sequence in sequences:
        tokens = torch.tensor(sequence)
        predicted = logits(config, weights, tokens[:-1])
        total = total + F.cross_entropy(
            predicted, tokens[1:], reduction="sum"
        )
        targets += len(sequence) - 1
    return total / targets


def greedy(config, weights, prompt, count):
    """`count` greedy tokens after `prompt`, and the least margin.

    The margin is the least distance between the best and the second-best
    logit: another implementation must agree while its error is below half.
    """
    tokens = list(prompt)
    margin = math.inf
    with torch.no_grad():
        for _ in range(count):
            last = logits(config, weights, torch.tensor(tokens))[-1]
            best = last.topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
    return tokens[len(prompt):], margin
