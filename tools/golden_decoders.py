#!/usr/bin/env python3
"""Tiny random models of further decoder families, and how far each reference agrees on every tiny decoder.

    golden_decoders.py tests/data/models

Writes the Gemma, EmbeddingGemma and Ministral models with their answers, the answers of Phi-3 on both sides of longrope's switch and
at far positions (decoders_golden.json), and what mlx-lm says of the models of golden_tiny.py, which must have run before. The reference is the
transformers package in float64; mlx-lm runs over the same weights in f32. Where the two differ by more than rounding the entry holds why. Needs
what golden_tiny.py needs, and mlx and mlx-lm.
"""

import importlib
import json
import math
import os
import sys

import gguf
import mlx.core as mx
import numpy as np
import torch
import transformers
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file, save_file

from golden_common import log_softmax, rounded, write_json
from golden_tiny import (HEAD_DIM, HEADS, HIDDEN, INNER, KV_HEADS, LLAMA, ROWS, TOKENS, VARIANTS, Random, add_gguf_text, affine, decoder_weights,
                         mlx_tensors, pack, reference_model, write_directory, write_gguf)

FAR = 131072  # Phi-3's context

WINDOW_IGNORED = "mlx-lm ignores the sliding window of this family"

GEMMA3 = LLAMA | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 100000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "rope_local_base_freq": 1000.0,
    "sliding_window": 7,
    "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 24,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
GEMMA2 = LLAMA | {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "rms_norm_eps": 1e-6,
    "sliding_window": 7,
    "query_pre_attn_scalar": HEAD_DIM,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
EMBEDDING_GEMMA = GEMMA3 | {
    "architectures": ["Gemma3TextModel"],
    "rope_scaling": None,
    "query_pre_attn_scalar": HEAD_DIM,
    "sliding_window": 8,
    "use_bidirectional_attention": True,
}
MINISTRAL3 = LLAMA | {
    "architectures": ["Ministral3ForCausalLM"],
    "model_type": "ministral3",
    "num_hidden_layers": 1,
    "rope_theta": None,
    "rope_parameters": {"type": "yarn", "rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                        "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.5},
}


def gemma_weights(seed, layers, *, qk_norm):
    """Of the Llama shape, with Gemma's norms, which are stored less 1."""
    weights = decoder_weights(seed, qk_norm=qk_norm, tied=True, layers=layers)
    random = Random(seed + 1000)
    for layer in range(layers):
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = random.norm(HIDDEN)
    return {n: Random.half(v - 1) if v.ndim == 1 else v for n, v in weights.items()}


# --- references ---------------------------------------------------------------------------------------------------------


def summary(rows, tokens):
    """Mean negative log-likelihood of the text and the greedy token of every row; -1 where the two best are within 0.02."""
    chances = log_softmax(rows)
    best = np.sort(rows, axis=-1)
    clear = best[:, -1] - best[:, -2] > 0.02
    nll = -chances[np.arange(len(tokens) - 1), tokens[1:]].mean()
    return {"nll": round(float(nll), 7), "greedy": [int(t) if c else -1 for t, c in zip(rows.argmax(axis=-1), clear)]}


def torch_model(config, weights, auto):
    model = reference_model(config, weights, auto)
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):  # a model that is loaded in bf16 rounds it, and so does mlx-lm
            module.embed_scale = torch.tensor(module.scalar_embed_scale).bfloat16().double()
    return model


def torch_rows(config, weights, tokens, first_position=0):
    model = torch_model(config, weights, transformers.AutoModelForCausalLM)
    positions = torch.arange(first_position, first_position + len(tokens))[None]
    with torch.no_grad():
        return model(torch.tensor([tokens]), position_ids=positions).logits[0].numpy()


def mlx_rows(config, weights, tokens):
    config = {k: v for k, v in config.items() if v is not None}
    module = importlib.import_module("mlx_lm.models." + {"mistral": "llama"}.get(config["model_type"], config["model_type"]))
    model = module.Model(module.ModelArgs.from_dict(config))
    tensors = {n: mx.array(v.astype(np.float32)) for n, v in weights.items()}
    model.load_weights(list((model.sanitize(tensors) if hasattr(model, "sanitize") else tensors).items()))
    return np.array(model(mx.array([tokens]))[0]).astype(np.float64)


def compared(name, rows, theirs, tokens, deviates):
    worst = float(np.abs(theirs - rows).max())
    print(f"{name}: nll {summary(rows, tokens)['nll']:.6f}, largest difference of mlx-lm's logits {worst:.2g}" + (f" ({deviates})" if deviates else ""))
    assert (worst < 2e-3) != bool(deviates), "mlx-lm agrees or differs for no known reason"
    entry = summary(theirs, tokens) | {"largest_difference": round(worst, 6)}
    return entry | ({"deviates": deviates} if deviates else {})


def answers(name, config, weights, *, deviates="", tokens=TOKENS):
    rows = torch_rows(config, weights, tokens)
    kept = [r for r in ROWS if r < len(tokens)]
    entry = {"rows": kept, "logits": [rounded(rows[r], 6) for r in kept]} | summary(rows, tokens)
    return entry | {"mlx": compared(name, rows, mlx_rows(config, weights, tokens), tokens, deviates)}


# --- files --------------------------------------------------------------------------------------------------------------

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "dense.0": "dense_2", "dense.1": "dense_3",
}


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    if not module.startswith("model.layers."):
        return f"{GGUF_NAMES[module]}.{kind}"
    layer, rest = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.{kind}"


def write_gemma_gguf(path, architecture, config, weights):
    """As converters write it: the 1 is in the norms; neither the attention's scale nor (here) the local base is."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    else:
        writer.add_uint32(f"{architecture}.attention.sliding_window_pattern", config["sliding_window_pattern"])
        writer.add_float32(f"{architecture}.rope.freq_base_swa", config["rope_local_base_freq"])
    if config.get("rope_scaling"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    if architecture == "gemma-embedding":
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_causal_attention(False)
    add_gguf_text(writer)
    for name, values in weights.items():
        writer.add_tensor(gguf_name(name), values + 1 if values.ndim == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def halves(weights, prefix=""):
    return {prefix + n: v.astype(np.float16) for n, v in weights.items()}


def wrapped(config, model_type):
    """A multimodal model's configuration around a text model's."""
    text = {k: v for k, v in config.items() if v is not None and k != "architectures"}
    return {"model_type": model_type, "text_config": text, "vision_config": {"hidden_size": 8}, "eos_token_id": config["eos_token_id"]}


# --- models -------------------------------------------------------------------------------------------------------------


def gemma3(root, models):
    weights = gemma_weights(31, 3, qk_norm=True)
    write_directory(root, "tiny-gemma3", GEMMA3, halves(weights))
    models["tiny-gemma3"] = answers("tiny-gemma3", GEMMA3, weights)
    # The wrapper of the larger ones, as mlx-lm writes it: 4 bits, a prefix, and parts that text never touches.
    packed, exact = mlx_tensors(weights, lambda module: (4, 32))
    vision = {"vision_tower.patch.weight": np.zeros((8, 8), np.float16), "multi_modal_projector.weight": np.zeros((8, 8), np.float16)}
    config = wrapped(GEMMA3, "gemma3")
    write_directory(root, "tiny-gemma3-mlx", config | {"quantization": {"group_size": 32, "bits": 4}},
                    {"language_model." + n: v for n, v in packed.items()} | vision)
    models["tiny-gemma3-mlx"] = answers("tiny-gemma3-mlx", GEMMA3, exact)
    in_gguf = GEMMA3 | {"query_pre_attn_scalar": HEAD_DIM}
    write_gemma_gguf(os.path.join(root, "tiny-gemma3.gguf"), "gemma3", in_gguf, weights)
    models["tiny-gemma3.gguf"] = answers("tiny-gemma3.gguf", in_gguf, weights)


def gemma2(root, models):
    weights = gemma_weights(32, 2, qk_norm=False)
    write_directory(root, "tiny-gemma2", GEMMA2, halves(weights))
    write_gemma_gguf(os.path.join(root, "tiny-gemma2.gguf"), "gemma2", GEMMA2, weights)
    models["tiny-gemma2"] = models["tiny-gemma2.gguf"] = answers("tiny-gemma2", GEMMA2, weights, deviates=WINDOW_IGNORED)


def embedding_gemma(root, models):
    weights = gemma_weights(33, 3, qk_norm=True)
    random = Random(34)
    dense = {"dense.0.weight": random.half(random.normal(4 * HIDDEN, HIDDEN, std=0.3)),
             "dense.1.weight": random.half(random.normal(HIDDEN, 4 * HIDDEN, std=0.3))}

    def vector(tensors, layers):
        model = torch_model(EMBEDDING_GEMMA, {n.removeprefix("model."): v for n, v in tensors.items()}, transformers.AutoModel)
        with torch.no_grad():
            pooled = model(torch.tensor([TOKENS])).last_hidden_state[0].numpy().mean(axis=0)
        for weight in layers.values():
            pooled = weight.astype(np.float64) @ pooled
        return {"vector": rounded(pooled / np.linalg.norm(pooled), 7)}

    write_directory(root, "tiny-embeddinggemma", EMBEDDING_GEMMA, {n.removeprefix("model."): v for n, v in halves(weights).items()})
    directory = os.path.join(root, "tiny-embeddinggemma")
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    write_json(os.path.join(directory, "modules.json"),
               [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
                for i, kind in enumerate(kinds)])
    os.makedirs(os.path.join(directory, "1_Pooling"))
    write_json(os.path.join(directory, "1_Pooling/config.json"), {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True})
    for i, values in enumerate(dense.values()):
        folder = os.path.join(directory, f"{i + 2}_Dense")
        os.makedirs(folder)
        write_json(os.path.join(folder, "config.json"), {"in_features": values.shape[1], "out_features": values.shape[0], "bias": False,
                                                         "activation_function": "torch.nn.modules.linear.Identity"})
        save_file({"linear.weight": values}, os.path.join(folder, "model.safetensors"))
    write_gemma_gguf(os.path.join(root, "tiny-embeddinggemma.gguf"), "gemma-embedding", EMBEDDING_GEMMA, weights | dense)
    models["tiny-embeddinggemma"] = models["tiny-embeddinggemma.gguf"] = vector(weights, dense)
    # mlx-embeddings keeps the layers behind the pooling in the main file, quantized like all others.
    packed, exact = mlx_tensors(weights | dense, lambda module: (4, 32))
    write_directory(root, "tiny-embeddinggemma-mlx", EMBEDDING_GEMMA | {"sliding_window": 5, "quantization": {"group_size": 32, "bits": 4}}, packed)
    models["tiny-embeddinggemma-mlx"] = vector({n: v for n, v in exact.items() if n not in dense}, {n: exact[n] for n in dense})


def ministral3(root, models):
    weights = decoder_weights(35, layers=1)
    write_directory(root, "tiny-ministral3", wrapped(MINISTRAL3, "mistral3"), halves(weights, "language_model."))
    rope = MINISTRAL3["rope_parameters"]

    def add_rope(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])

    write_gguf(os.path.join(root, "tiny-ministral3.gguf"), "mistral3", weights, gguf.GGMLQuantizationType.F16, permute=True, layers=1,
               rope_base=rope["rope_theta"], add_more=add_rope)
    models["tiny-ministral3"] = models["tiny-ministral3.gguf"] = answers("tiny-ministral3", MINISTRAL3, weights)


def read_tiny(root, name):
    with open(os.path.join(root, name, "config.json")) as file:
        return json.load(file), {n: v.astype(np.float32) for n, v in load_file(os.path.join(root, name, "model.safetensors")).items()}


def exact_longrope(config, device=None, seq_len=None, **_):
    """The frequencies as this program rounds them: once, to f32. transformers rounds three times on the way."""
    rope = config.rope_parameters
    factors = rope["long_factor"] if seq_len and seq_len > config.original_max_position_embeddings else rope["short_factor"]
    dim = config.hidden_size // config.num_attention_heads
    periods = np.array(factors) * rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    stretch = config.max_position_embeddings / config.original_max_position_embeddings
    magnitude = math.sqrt(1 + math.log(stretch) / math.log(config.original_max_position_embeddings))
    return torch.tensor((1 / periods).astype(np.float32)), magnitude


def longrope(root):
    """Both sides of the switch, mlx-lm's one side, and the last positions of a context of 128k."""
    config, weights = read_tiny(root, "tiny-phi3")
    original = config["original_max_position_embeddings"]
    short = TOKENS[:original]
    entry = {"original_context": original, "long": answers("phi3 long", config, weights)}
    entry["short"] = answers("phi3 short", config, weights, tokens=short, deviates="mlx-lm always takes the long list")
    rows = mlx_rows(config, weights, short)
    entry["short_by_long_list"] = {"rows": [0, 8, 15], "logits": [rounded(rows[r], 5) for r in (0, 8, 15)]}
    far = config | {"max_position_embeddings": FAR}
    theirs = torch_rows(far, weights, TOKENS, FAR - len(TOKENS))
    transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"] = exact_longrope
    rows = torch_rows(far, weights, TOKENS, FAR - len(TOKENS))
    print(f"phi3 far: largest difference by transformers' own rounding of frequencies {np.abs(theirs - rows).max():.2g}")
    entry["far"] = {"changes": {"max_position_embeddings": FAR}, "first_position": FAR - len(TOKENS),
                    "rows": ROWS, "logits": [rounded(rows[r], 6) for r in ROWS]}
    return entry


def tiny_agreement(root):
    """mlx-lm and transformers over the models that golden_tiny.py wrote in float."""
    agreement = {}
    llama = load_file(os.path.join(root, "tiny-llama/model-00001-of-00002.safetensors"))
    llama = {n: v.astype(np.float32) for n, v in (llama | load_file(os.path.join(root, "tiny-llama/model-00002-of-00002.safetensors"))).items()}
    agreement["tiny-llama"] = answers("tiny-llama", LLAMA, llama)
    for name in ("tiny-qwen2", "tiny-qwen3"):
        config, weights = read_tiny(root, name)
        weights = {n if n.startswith(("model.", "lm_head.")) else "model." + n: v for n, v in weights.items()}
        agreement[name] = answers(name, config, weights)
    known = {"mistral_window": "mlx-lm heeds a window only where layer_types name it",
             "rope_parameters": "mlx-lm's llama reads no rope_parameters",
             "smollm3_window": "mlx-lm heeds a window only where layer_types name it",
             "smollm3_defaults": "mlx-lm takes Llama's defaults for SmolLM3's"}
    for name, changes in VARIANTS.items():
        agreement["tiny-llama:" + name] = answers("tiny-llama:" + name, LLAMA | changes, llama, deviates=known.get(name, ""))
    for entry in agreement.values():  # golden_tiny.py keeps the logits
        del entry["rows"], entry["logits"]
    return agreement


def main():
    root = sys.argv[1]
    golden = {"source": "tools/golden_decoders.py", "tokens": TOKENS, "models": {}}
    for write in (gemma3, gemma2, embedding_gemma, ministral3):
        write(root, golden["models"])
    golden["agreement"] = tiny_agreement(root)
    golden["longrope"] = longrope(root)
    golden["agreement"]["tiny-phi3"] = {k: v for k, v in golden["longrope"]["long"].items() if k not in ("rows", "logits")}
    write_json(os.path.join(root, "decoders_golden.json"), golden)


if __name__ == "__main__":
    main()
