"""models/<family>/: a tiny random model of each family with golden values."""

import os

import torch

import families
import json_io
import safetensors_io

SEQUENCE_LENGTHS = (7, 12, 21)
GREEDY_TOKENS = 16


def _decoder_config(name, model_type, **values):
    """The keys that every config.json of the Llama line has."""
    return {
        "architectures": [name],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 128,
        "model_type": model_type,
        "torch_dtype": "float32",
        "use_cache": True,
        **values,
    }


# Sizes are chosen to be awkward: no vocabulary, feed-forward width or head
# is a multiple of a vector or tile size of every kernel.
CONFIGS = {
    "llama": _decoder_config(
        "LlamaForCausalLM",
        "llama",
        head_dim=12,
        hidden_size=48,
        intermediate_size=88,
        mlp_bias=False,
        num_attention_heads=4,
        num_hidden_layers=2,
        num_key_value_heads=2,
        pretraining_tp=1,
        rms_norm_eps=1e-5,
        # Wavelengths 6.3, 56, 500, ...: one is kept, one is interpolated
        # (16 < 56 < 64), the others are divided by the factor.
        rope_scaling={
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        rope_theta=500000.0,
        tie_word_embeddings=False,
        vocab_size=101,
    ),
    "llama-tied": _decoder_config(
        "LlamaForCausalLM",
        "llama",
        hidden_size=40,
        intermediate_size=104,
        mlp_bias=False,
        num_attention_heads=5,
        num_hidden_layers=2,
        num_key_value_heads=1,
        pretraining_tp=1,
        rms_norm_eps=1e-6,
        rope_scaling=None,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        vocab_size=97,
    ),
    "mistral": {
        key: value
        for key, value in _decoder_config(
            "MistralForCausalLM",
            "mistral",
            hidden_size=40,
            intermediate_size=76,
            num_attention_heads=4,
            num_hidden_layers=3,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            sliding_window=5,
            tie_word_embeddings=False,
            vocab_size=113,
        ).items()
        if key != "attention_bias"  # Mistral's config has no such key
    },
    "qwen2": {
        key: value
        for key, value in _decoder_config(
            "Qwen2ForCausalLM",
            "qwen2",
            hidden_size=48,
            intermediate_size=90,
            max_window_layers=2,
            num_attention_heads=4,
            num_hidden_layers=2,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            # As published Qwen2 configs have it: a window that is off.
            sliding_window=8,
            tie_word_embeddings=True,
            use_sliding_window=False,
            vocab_size=107,
        ).items()
        if key != "attention_bias"  # always biased, so there is no such key
    },
    "qwen3": _decoder_config(
        "Qwen3ForCausalLM",
        "qwen3",
        head_dim=16,
        hidden_size=40,
        intermediate_size=88,
        max_window_layers=2,
        num_attention_heads=4,
        num_hidden_layers=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        rope_scaling=None,
        rope_theta=1000000.0,
        sliding_window=None,
        tie_word_embeddings=False,
        use_sliding_window=False,
        vocab_size=103,
    ),
    "gpt2": {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 1,
        "embd_pdrop": 0.1,
        "eos_token_id": 2,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_ctx": 64,
        "n_embd": 40,
        "n_head": 5,
        "n_inner": None,
        "n_layer": 2,
        "n_positions": 64,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.1,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": 109,
    },
}

# What the golden values must be sensitive to: each change of the config has
# to move the logits, or a test against them would not notice a mistake.
MUTATIONS = {
    "llama": [
        {"rope_scaling": None},
        {"num_key_value_heads": 1},
        {"rms_norm_eps": 1e-2},
    ],
    "llama-tied": [{"rope_theta": 500000.0}, {"rms_norm_eps": 1e-2}],
    "mistral": [{"sliding_window": None}, {"sliding_window": 4},
                {"sliding_window": 6}],
    "qwen2": [{"rope_theta": 10000.0}],
    "qwen3": [{"model_type": "llama"}, {"rope_theta": 10000.0}],
    "gpt2": [{"layer_norm_epsilon": 1e-1}],
}


def _llama_shapes(config):
    """{name: shape} of the Llama line, in the model's order."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    dimension = families.head_dimension(config)
    queries = config["num_attention_heads"] * dimension
    keys = config["num_key_value_heads"] * dimension
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (width,)
        for name, outputs in (("q", queries), ("k", keys), ("v", keys)):
            projection = f"{prefix}self_attn.{name}_proj."
            shapes[projection + "weight"] = (outputs, width)
            if config["model_type"] == "qwen2":
                shapes[projection + "bias"] = (outputs,)
        shapes[prefix + "self_attn.o_proj.weight"] = (width, queries)
        if config["model_type"] == "qwen3":
            shapes[prefix + "self_attn.q_norm.weight"] = (dimension,)
            shapes[prefix + "self_attn.k_norm.weight"] = (dimension,)
        shapes[prefix + "post_attention_layernorm.weight"] = (width,)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, width)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, width)
        shapes[prefix + "mlp.down_proj.weight"] = (width, inner)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def _gpt2_shapes(config):
    """{name: shape} of GPT-2, in the model's order."""
    width = config["n_embd"]
    inner = config["n_inner"] or 4 * width

    def pair(name, *shape):
        return {name + ".weight": shape, name + ".bias": shape[-1:]}

    shapes = {
        "transformer.wte.weight": (config["vocab_size"], width),
        "transformer.wpe.weight": (config["n_positions"], width),
    }
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        shapes.update(pair(prefix + "ln_1", width))
        shapes.update(pair(prefix + "attn.c_attn", width, 3 * width))
        shapes.update(pair(prefix + "attn.c_proj", width, width))
        shapes.update(pair(prefix + "ln_2", width))
        shapes.update(pair(prefix + "mlp.c_fc", width, inner))
        shapes.update(pair(prefix + "mlp.c_proj", inner, width))
    shapes.update(pair("transformer.ln_f", width))
    return shapes


def random_weights(config, generator, gain=1.0):
    """Float32 weights in which nothing is trivially one or zero."""
    is_gpt2 = config["model_type"] == "gpt2"
    shapes = _gpt2_shapes(config) if is_gpt2 else _llama_shapes(config)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_norm = "norm" in name or ".ln_" in name
        if name.endswith(".bias"):
            weights[name] = 0.3 * noise
        elif is_norm:
            weights[name] = 1 + 0.25 * noise
        elif "embed_tokens" in name or ".wte." in name or ".wpe." in name:
            weights[name] = 0.5 * noise
        else:
            inputs = shape[0] if is_gpt2 else shape[1]
            weights[name] = gain * noise / inputs**0.5
    return weights


def _check_sensitivity(family, config, weights, tokens, golden):
    """Fails when a change that must matter does not move the logits."""
    largest = golden.abs().max()
    for change in MUTATIONS[family]:
        mutated = {**config, **change}
        if "num_key_value_heads" in change:
            size = families.head_dimension(config)
            cut = {
                name: tensor[:size]
                if "k_proj" in name or "v_proj" in name
                else tensor
                for name, tensor in weights.items()
            }
            moved = families.logits(mutated, cut, tokens)
        else:
            moved = families.logits(mutated, weights, tokens)
        distance = float((moved - golden).abs().max() / largest)
        if distance < 5e-3:
            raise SystemExit(f"{family}: {change} moves only {distance:.1e}")


def _make_model(family, config, seed, directory):
    """One model folder with its golden values."""
    generator = torch.Generator().manual_seed(seed)
    stored = random_weights(config, generator, gain=1.3)
    vocabulary = config["vocab_size"]
    sequences = [
        torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        for length in SEQUENCE_LENGTHS
    ]
    sequences[1][0] = 0  # the ends of the vocabulary occur
    sequences[2][-2] = vocabulary - 1

    weights = {
        name: tensor.double().requires_grad_()
        for name, tensor in stored.items()
    }
    tensors = {}
    for index, sequence in enumerate(sequences):
        tensors[f"logits.{index}"] = families.logits(
            config, weights, torch.tensor(sequence)
        )
    loss = families.mean_loss(config, weights, sequences)
    loss.backward()
    for name, weight in weights.items():
        tensors[f"gradient.{name}"] = weight.grad

    with torch.no_grad():
        longest = torch.tensor(sequences[-1])
        golden = tensors[f"logits.{len(sequences) - 1}"]
        _check_sensitivity(family, config, weights, longest, golden)
        single = families.logits(config, stored, longest)
        rounding = (single - golden).abs().max() / golden.abs().max()
    ids, margin = families.greedy(
        config, weights, sequences[0], GREEDY_TOKENS
    )
    largest = max(
        float(tensors[f"logits.{index}"].abs().max())
        for index in range(len(sequences))
    )
    # Twice the permitted logit error (2e-4 of the largest value) must not
    # be able to change a greedy token; and a loop of one token shows little.
    if margin < 8e-4 * largest or len(set(ids)) < 6:
        raise SystemExit(f"{family}: choose another seed ({margin}, {ids})")

    os.makedirs(directory, exist_ok=True)
    json_io.save(os.path.join(directory, "config.json"), config)
    safetensors_io.save(
        os.path.join(directory, "model.safetensors"),
        stored,
        {"format": "pt"},
    )
    safetensors_io.save(
        os.path.join(directory, "golden.safetensors"), tensors
    )
    json_io.save(
        os.path.join(directory, "golden.json"),
        {
            "sequences": sequences,
            "loss": float(loss),
            "greedy": {"prompt": sequences[0], "ids": ids, "margin": margin},
            "float32_logits_error": float(rounding),
        },
    )
    print(
        f"models/{family}: loss {float(loss):.4f}, largest logit "
        f"{largest:.2f}, greedy margin {margin:.3f}, float32 differs by "
        f"{float(rounding):.1e}"
    )


SEEDS = {
    "llama": 1,
    "llama-tied": 3,
    "mistral": 2,
    "qwen2": 13,
    "qwen3": 2,
    "gpt2": 1,
}


def make(root):
    """Writes models/ under `root`."""
    for family, config in CONFIGS.items():
        directory = os.path.join(root, "models", family)
        _make_model(family, config, SEEDS[family], directory)
