#!/usr/bin/env python3
"""Tiny random models with experts in every file format, and their answers.

    golden_experts.py tests/data/models

The transformers package in float64 is the reference. mlx-lm over the same weights in f32 is asked too: where it differs by more
than rounding, "mlx" says by how much and NOTES why. Needs what golden_tiny.py needs, and mlx and mlx-lm.
"""

import importlib
import os
import sys

import gguf
import mlx.core as mx
import numpy as np
import torch
import transformers
from gguf.quants import dequantize, quantize

from golden_common import log_softmax, rounded, write_json
from golden_tiny import (HEAD_DIM, HEADS, HIDDEN, INNER, KV_HEADS, LLAMA, ROWS, TOKENS, Random, add_gguf_text, affine, decoder_weights,
                         mxfp4, pack, permuted, reference_model, write_directory)

EXPERT_INNER = 32
NOTES = {
    "truncate": "mlx-lm rounds the limits of yarn's ramp whatever rope_scaling.truncate says; transformers and this program honour it",
    "limit": "mlx-lm clamps gates at 7 whatever swiglu_limit says",
    "window": "mlx-lm ignores the sliding window of this family",
}

QWEN3_MOE = LLAMA | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": EXPERT_INNER,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
QWEN2_MOE = QWEN3_MOE | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "head_dim": None,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "norm_topk_prob": False,
    "shared_expert_intermediate_size": INNER,
}
MIXTRAL = LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "head_dim": None,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": EXPERT_INNER,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
GPT_OSS = LLAMA | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "intermediate_size": EXPERT_INNER,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "attention_bias": True,
    "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention"],
    "swiglu_limit": 7.0,
    "rope_theta": 150000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                     "original_max_position_embeddings": 64},
}


# --- weights ------------------------------------------------------------------------------------------------------------
# Experts are kept as three-dimensional arrays "<block>.experts.gate_proj.weight" until a format is chosen.


def add_experts(weights, seed, layer, count, *, block="mlp", router="gate", inner=EXPERT_INNER, biases=False):
    random = Random(seed + 100 * layer)
    prefix = f"model.layers.{layer}."
    for part in ("gate", "up", "down"):
        weights.pop(f"{prefix}mlp.{part}_proj.weight", None)
    weights[f"{prefix}{block}.{router}.weight"] = random.half(random.normal(count, HIDDEN, std=0.4))
    shapes = {"gate": (inner, HIDDEN, 0.5), "up": (inner, HIDDEN, 0.5), "down": (HIDDEN, inner, 0.4)}
    for part, (rows, cols, std) in shapes.items():
        weights[f"{prefix}{block}.experts.{part}_proj.weight"] = random.half(random.normal(count, rows, cols, std=std))
    if biases:
        weights[f"{prefix}{block}.{router}.bias"] = random.half(random.normal(count, std=0.3))
        for part, (rows, _, _) in shapes.items():  # large enough that gates reach their limit
            weights[f"{prefix}{block}.experts.{part}_proj.bias"] = random.half(random.normal(count, rows, std=0.5 if part == "down" else 4))


def is_experts(name):
    return ".experts." in name


def cut_heads(weights):
    """Two heads of 16 make up the hidden size where configurations have no head_dim of their own."""
    for name in list(weights):
        for part, rows in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16)):
            if part in name:
                weights[name] = weights[name][:rows]
        if "o_proj" in name:
            weights[name] = weights[name][:, :32]


def separate(weights, parts=("gate_proj", "up_proj", "down_proj")):
    """One tensor an expert, as Hugging Face's files have them."""
    names = dict(zip(("gate_proj", "up_proj", "down_proj"), parts))
    result = {}
    for name, values in weights.items():
        if not is_experts(name):
            result[name] = values
            continue
        module, part, kind = name.rsplit(".", 2)
        result |= {f"{module}.{e}.{names[part]}.{kind}": v for e, v in enumerate(values)}
    return result


def for_transformers(weights, *, interleaved):
    """Stacked as transformers keeps them in memory: gate above up, or (gpt-oss) in turns and transposed."""
    result = {}
    for original, values in weights.items():
        name = original.replace("block_sparse_moe", "mlp")
        if not is_experts(name):
            result[name] = values
        elif ".gate_proj." in name:
            up = weights[original.replace(".gate_proj.", ".up_proj.")]
            target, kind = name.rsplit(".gate_proj.", 1)
            target += ".gate_up_proj" + ("" if kind == "weight" else "_bias")
            if not interleaved:
                result[target] = np.concatenate([values, up], axis=1)
            else:
                turns = np.stack([values, up], axis=2).reshape(values.shape[0], 2 * values.shape[1], *values.shape[2:])
                result[target] = turns.swapaxes(1, 2) if kind == "weight" else turns
        elif ".down_proj." in name:
            target, kind = name.rsplit(".", 1)
            down = values.swapaxes(1, 2) if interleaved and kind == "weight" else values
            result[target + ("" if kind == "weight" else "_bias")] = down
    return result


def mlx_names(weights):
    """gpt-oss keeps its experts under "experts", all others under "switch_mlp"."""
    gpt_oss = any("sinks" in n for n in weights)
    return {n if gpt_oss else n.replace(".experts.", ".switch_mlp."): v for n, v in weights.items()}


def mlx_stacked(weights, choose):
    """Tensors of an MLX file, and the weights that they stand for. choose(module) -> None, "mxfp4" or (bits, group)."""
    tensors, exact = {}, {}
    for (name, values), mlx_name in zip(weights.items(), mlx_names(weights)):
        module = mlx_name.removesuffix(".weight")
        form = choose(module) if values.ndim >= 2 and name.endswith(".weight") else None
        if form is None:
            tensors[mlx_name] = values.astype(np.float16)
            exact[name] = tensors[mlx_name].astype(np.float32)
            continue
        rows = values.reshape(-1, values.shape[-1])

        def shaped(array):
            return array.reshape(*values.shape[:-1], -1)

        if form == "mxfp4":
            codes, scales, stands_for = mxfp4(rows)
            bits = 4
        else:
            codes, scales, biases, stands_for = affine(rows, *form)
            bits = form[0]
            tensors[module + ".biases"] = shaped(biases)
        tensors[module + ".weight"] = shaped(pack(codes, bits))
        tensors[module + ".scales"] = shaped(scales)
        exact[name] = shaped(stands_for)
    return tensors, exact


def hf_gpt_oss(weights):
    """Experts as mxfp4 blocks, rows of gate and up in turns; and the weights that the file stands for."""
    tensors, exact = {}, {}
    for name, values in weights.items():
        if not is_experts(name):
            tensors[name] = values.astype(np.float16)
            exact[name] = values
        elif name.endswith(".weight"):
            exact[name] = mxfp4(values.reshape(-1, values.shape[-1]))[2].reshape(values.shape)
        else:
            exact[name] = values
    for name, values in for_transformers(weights, interleaved=True).items():  # rows are quantized alone: their order is free
        if not is_experts(name):
            continue
        if name.endswith("_bias"):
            tensors[name] = values.astype(np.float16)
            continue
        matrix = values.swapaxes(1, 2)
        codes, scales, _ = mxfp4(matrix.reshape(-1, matrix.shape[-1]))
        tensors[name + "_blocks"] = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8).reshape(*matrix.shape[:2], -1, 16)
        tensors[name + "_scales"] = scales.reshape(*matrix.shape[:2], -1)
    return tensors, exact


# --- GGUF ---------------------------------------------------------------------------------------------------------------

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "gate": "ffn_gate_inp",
    "router": "ffn_gate_inp", "experts.gate_proj": "ffn_gate_exps", "experts.up_proj": "ffn_up_exps", "experts.down_proj": "ffn_down_exps",
    "shared_expert_gate": "ffn_gate_inp_shexp", "shared_expert.gate_proj": "ffn_gate_shexp", "shared_expert.up_proj": "ffn_up_shexp",
    "shared_expert.down_proj": "ffn_down_shexp",
}


def gguf_name(name, architecture):
    if name.endswith("self_attn.sinks"):
        return f"blk.{name.split('.')[2]}.attn_sinks.weight"
    module, kind = name.rsplit(".", 1)
    if not module.startswith("model.layers."):
        return f"{GGUF_NAMES[module]}.{kind}"
    layer, rest = module.removeprefix("model.layers.").split(".", 1)
    rest = rest.removeprefix("mlp.").removeprefix("block_sparse_moe.")
    short = GGUF_NAMES[rest]
    if architecture == "gpt-oss" and rest == "post_attention_layernorm":
        short = "post_attention_norm"
    return f"blk.{layer}.{short}.{kind}"


def gguf_type(name, values, architecture):
    if values.ndim == 1 or name.endswith("bias") or "gate_inp" in name:
        return gguf.GGMLQuantizationType.F32
    if "_exps" in name:
        return gguf.GGMLQuantizationType.MXFP4 if architecture == "gpt-oss" else gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def write_gguf(path, architecture, config, weights, *, parts=1, one_by_one=False):
    """Returns the weights that the file stands for. `one_by_one`: a tensor an expert, as the first converters wrote them."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config["head_dim"] or HIDDEN // heads
    split = {"split_max_tensors": len(weights) // parts + 1} if parts > 1 else {}
    writer = gguf.GGUFWriter(path, architecture, **split)
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_expert_count(config.get("num_experts", config.get("num_local_experts")))
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if architecture != "llama":
        writer.add_expert_feed_forward_length(EXPERT_INNER)
    if architecture == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(INNER)
    if architecture == "gpt-oss":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
        writer.add_rope_scaling_orig_ctx_len(config["rope_scaling"]["original_max_position_embeddings"])
    add_gguf_text(writer)
    exact = {}
    for name, values in weights.items():
        target = gguf_name(name, architecture)
        stored = values
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            stored = permuted(values, heads if ".q_proj." in name else kv_heads)
        if target.endswith("ffn_gate_inp_shexp.weight"):
            stored = values.reshape(-1)  # as converters squeeze it
        kind = gguf_type(target, values, architecture)
        blocks = quantize(stored, kind)
        raw = blocks.view(np.uint8) if kind in (gguf.GGMLQuantizationType.MXFP4, gguf.GGMLQuantizationType.Q8_0) else None
        if one_by_one and "_exps" in target:
            for e in range(len(raw)):
                writer.add_tensor(target.replace("_exps", f".{e}"), raw[e], raw_dtype=kind)
        elif raw is not None:
            writer.add_tensor(target, raw, raw_dtype=kind)
        else:
            writer.add_tensor(target, blocks)
        exact[name] = dequantize(quantize(values, kind), kind).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


# --- references ---------------------------------------------------------------------------------------------------------


def summary(rows):
    """Mean negative log-likelihood of the text and the greedy token of every row; -1 where the two best are within 0.02."""
    chances = log_softmax(rows)
    top = np.sort(rows, axis=-1)
    clear = top[:, -1] - top[:, -2] > 0.02
    return {"nll": round(float(-chances[np.arange(len(TOKENS) - 1), TOKENS[1:]].mean()), 7),
            "greedy": [int(t) if c else -1 for t, c in zip(rows.argmax(axis=-1), clear)]}


def mlx_rows(config, weights):
    config = {k: v for k, v in config.items() if v is not None}
    module = importlib.import_module("mlx_lm.models." + config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    tensors = mlx_names(weights)
    model.load_weights([(n, mx.array(v.astype(np.float32))) for n, v in tensors.items()])
    return np.array(model(mx.array([TOKENS]))[0]).astype(np.float64)


def answers(config, weights, *, deviates=None):
    """The golden entry of one model. `deviates`: why mlx-lm is known to differ, a key of NOTES."""
    in_memory = for_transformers(weights, interleaved=config["model_type"] == "gpt_oss")
    # transformers' grouped products know no float64.
    model = reference_model(config | {"experts_implementation": "eager"}, in_memory, transformers.AutoModelForCausalLM)
    with torch.no_grad():
        rows = model(torch.tensor([TOKENS])).logits[0].numpy()
    entry = {"rows": ROWS, "logits": [rounded(rows[r], 6) for r in ROWS]} | summary(rows)
    theirs = mlx_rows(config, weights)
    worst = float(np.abs(theirs - rows).max())
    entry["mlx"] = summary(theirs) | {"largest_difference": round(worst, 6)}
    print(f"{config['model_type']}: nll {entry['nll']:.6f}, mlx-lm {entry['mlx']['nll']:.6f}, largest difference of a logit {worst:.2g}"
          + (f" ({NOTES[deviates]})" if deviates else ""))
    assert deviates or worst < 2e-3, "mlx-lm differs for no known reason"
    if deviates:
        entry["mlx"]["deviates"] = NOTES[deviates]
    return entry


def half(tensors):
    return {n: v.astype(np.float16) for n, v in tensors.items()}


def with_quantization(config, entries):
    return config | {"quantization": entries, "quantization_config": entries}


def qwen3_moe(root, models, variants):
    hf = QWEN3_MOE | {"mlp_only_layers": [1], "intermediate_size": INNER}
    weights = decoder_weights(11, qk_norm=True)
    add_experts(weights, 12, 0, 8)
    write_directory(root, "tiny-qwen3-moe", hf, half(separate(weights)), shards=2)
    models["tiny-qwen3-moe"] = answers(hf, weights)
    changes = {"norm_topk_prob": False, "num_experts_per_tok": 5}
    variants["qwen3_moe_not_normalized"] = {"of": "tiny-qwen3-moe", "changes": changes} | answers(hf | changes, weights)
    changes = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    variants["qwen3_moe_window"] = {"of": "tiny-qwen3-moe", "changes": changes} | answers(hf | changes, weights, deviates="window")

    mlx = QWEN3_MOE | {"decoder_sparse_step": 2}
    weights = decoder_weights(13, qk_norm=True)
    add_experts(weights, 14, 1, 8)
    tensors, exact = mlx_stacked(weights, lambda module: (8, 32) if module.endswith("mlp.gate") else (4, 32))
    entries = {"group_size": 32, "bits": 4, "model.layers.1.mlp.gate": {"group_size": 32, "bits": 8}}
    write_directory(root, "tiny-qwen3-moe-mlx", with_quantization(mlx, entries), tensors, shards=2)
    models["tiny-qwen3-moe-mlx"] = answers(mlx, exact)

    weights = decoder_weights(15, qk_norm=True)
    for layer in range(2):
        add_experts(weights, 16, layer, 8)
    exact = write_gguf(os.path.join(root, "tiny-qwen3-moe.gguf"), "qwen3moe", QWEN3_MOE, weights, parts=2)
    models["tiny-qwen3-moe-00001-of-00002.gguf"] = answers(QWEN3_MOE, exact)


def qwen2_moe(root, models, variants):
    weights = decoder_weights(21, biases="qkv")
    cut_heads(weights)
    random = Random(22)
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp."
        shared = {prefix + f"shared_expert.{part}_proj.weight": weights[prefix + f"{part}_proj.weight"] for part in ("gate", "up", "down")}
        add_experts(weights, 23, layer, 8)
        weights |= shared | {prefix + "shared_expert_gate.weight": random.half(random.normal(1, HIDDEN, std=0.4))}
    one_layer = QWEN2_MOE | {"num_hidden_layers": 1}
    first = {n: v for n, v in weights.items() if ".layers.1." not in n}
    write_directory(root, "tiny-qwen2-moe", one_layer, half(separate(first)))
    models["tiny-qwen2-moe"] = answers(one_layer, first)
    changes = {"use_sliding_window": True, "sliding_window": 7}
    variants["qwen2_moe_window"] = {"of": "tiny-qwen2-moe", "changes": changes} | answers(one_layer | changes, first, deviates="window")
    exact = write_gguf(os.path.join(root, "tiny-qwen2-moe.gguf"), "qwen2moe", QWEN2_MOE, weights)
    models["tiny-qwen2-moe.gguf"] = answers(QWEN2_MOE, exact)


def llama_biases(root, models):
    """Not experts, but the same operation: gate and up with biases."""
    weights = decoder_weights(51, biases="qkvo", layers=1)
    random = Random(52)
    for part, rows in (("gate", INNER), ("up", INNER), ("down", HIDDEN)):
        weights[f"model.layers.0.mlp.{part}_proj.bias"] = random.half(random.normal(rows, std=0.5))
    config = LLAMA | {"num_hidden_layers": 1, "attention_bias": True, "mlp_bias": True}
    write_directory(root, "tiny-llama-mlp-biases", config, half(weights))
    models["tiny-llama-mlp-biases"] = answers(config, weights)


def mixtral(root, models):
    weights = decoder_weights(31, layers=1)
    cut_heads(weights)
    add_experts(weights, 32, 0, 4, block="block_sparse_moe")
    config = MIXTRAL | {"num_hidden_layers": 1}
    write_directory(root, "tiny-mixtral", config, half(separate(weights, ("w1", "w3", "w2"))))
    models["tiny-mixtral"] = answers(config, weights)
    tensors, exact = mlx_stacked(weights, lambda module: (3, 32))
    write_directory(root, "tiny-mixtral-mlx", with_quantization(config, {"group_size": 32, "bits": 3}), tensors)
    models["tiny-mixtral-mlx"] = answers(config, exact)
    exact = write_gguf(os.path.join(root, "tiny-mixtral.gguf"), "llama", config, weights)
    models["tiny-mixtral.gguf"] = models["tiny-mixtral-experts.gguf"] = answers(config, exact)
    write_gguf(os.path.join(root, "tiny-mixtral-experts.gguf"), "llama", config, weights, one_by_one=True)


def gpt_oss(root, models, variants):
    weights = decoder_weights(41, biases="qkvo")
    random = Random(42)
    for layer in range(2):
        weights[f"model.layers.{layer}.self_attn.sinks"] = random.half(random.normal(HEADS, std=1.5))
        add_experts(weights, 43, layer, 4, router="router", biases=True)
    tensors, exact = hf_gpt_oss(weights)
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]}
    write_directory(root, "tiny-gpt-oss", GPT_OSS | {"quantization_config": quantization}, tensors)
    models["tiny-gpt-oss"] = answers(GPT_OSS, exact, deviates="truncate")
    truncated = {"rope_scaling": GPT_OSS["rope_scaling"] | {"truncate": True}}
    variants["gpt_oss_truncated"] = {"of": "tiny-gpt-oss", "changes": truncated} | answers(GPT_OSS | truncated, exact)
    limited = truncated | {"swiglu_limit": 1.5, "layer_types": ["full_attention", "sliding_attention"]}
    variants["gpt_oss_limited"] = {"of": "tiny-gpt-oss", "changes": limited} | answers(GPT_OSS | limited, exact, deviates="limit")

    write_directory(root, "tiny-gpt-oss-floats", GPT_OSS | truncated, half(for_transformers(weights, interleaved=True)))
    models["tiny-gpt-oss-floats"] = answers(GPT_OSS | truncated, weights)

    def form(module):
        return "mxfp4" if ".experts." in module else (8, 32) if module.endswith("router") else (6, 32)

    tensors, exact = mlx_stacked(weights, form)
    entries = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    for name in tensors:
        module = name.removesuffix(".scales")
        if name.endswith(".scales") and ".experts." not in module:
            entries[module] = {"group_size": 32, "bits": form(module)[0], "mode": "affine"}
    write_directory(root, "tiny-gpt-oss-mlx", with_quantization(GPT_OSS, entries), tensors, shards=2)
    models["tiny-gpt-oss-mlx"] = answers(GPT_OSS, exact, deviates="truncate")
    exact = write_gguf(os.path.join(root, "tiny-gpt-oss.gguf"), "gpt-oss", GPT_OSS, weights)
    models["tiny-gpt-oss.gguf"] = answers(GPT_OSS, exact, deviates="truncate")


def main():
    mx.set_default_device(mx.cpu)
    root = sys.argv[1]
    golden = {"source": "tools/golden_experts.py", "tokens": TOKENS, "models": {}, "variants": {}}
    qwen3_moe(root, golden["models"], golden["variants"])
    qwen2_moe(root, golden["models"], golden["variants"])
    llama_biases(root, golden["models"])
    mixtral(root, golden["models"])
    gpt_oss(root, golden["models"], golden["variants"])
    write_json(os.path.join(root, "experts_golden.json"), golden)


if __name__ == "__main__":
    main()
