#!/usr/bin/env python3
"""Tiny random models in every file format, and their answers by the transformers package in float64.

    golden_tiny.py tests/data/models

One set of weights, chosen so that 4-bit affine codes hold them exactly, is written as float safetensors (sharded), MLX 4-bit and
GGUF Q4_1: all three must give the same answers. Other files cover the remaining formats and architectures. Needs numpy,
torch, transformers, tokenizers, safetensors, gguf.
"""

import json
import os
import shutil
import sys

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

from golden_common import rounded, write_json

VOCAB, HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 32, 64, 4, 2, 16, 2
TOKENS = [(7 * i * i + 11 * i + 5) % 61 + 3 for i in range(40)]
ROWS = [0, 1, 8, 17, 30, 39]  # whose answers are kept
ALPHABET = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'-:;"[: VOCAB - 3]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

# Other readings of the same weights: what is changed in config.json.
VARIANTS = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 32}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "rope_parameters": {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    "mistral_window": {"model_type": "mistral", "sliding_window": 7},
    "smollm3_nope": {"model_type": "smollm3", "no_rope_layers": [1, 0], "sliding_window": None, "use_sliding_window": False,
                     "layer_types": ["full_attention", "full_attention"], "pad_token_id": 2},
    # Layers without rotation are those that slide, when nothing lists them.
    "smollm3_window": {"model_type": "smollm3", "no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 7, "pad_token_id": 2},
    "smollm3_defaults": {"model_type": "smollm3", "sliding_window": 7, "rope_theta": None, "pad_token_id": 2},
    # Neither is read by Llama's own network.
    "llama_ignores": {"sliding_window": 7, "partial_rotary_factor": 0.5},
}


class Random:
    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def normal(self, *shape, std):
        return (self.generator.standard_normal(shape) * std).astype(np.float32)

    def norm(self, size):
        return self.half(1 + self.normal(size, std=0.1))

    @staticmethod
    def half(values):
        return values.astype(np.float16).astype(np.float32)


def pack(codes, bits):
    """Rows of codes as MLX packs them: one little-endian bit stream a row, in 32-bit words."""
    rows = codes.shape[0]
    stream = ((codes[..., None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(rows, -1)
    return np.packbits(stream, axis=-1, bitorder="little").view("<u4").reshape(rows, -1)


def affine(weight, bits, group):
    """Codes, scales and biases (f16), and the weight that they stand for."""
    groups = weight.reshape(weight.shape[0], -1, group)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    scale = ((high - low) / (2**bits - 1)).astype(np.float16)
    scale[:, ::2] *= -1  # writers choose the sign: both must work
    bias = np.where(scale > 0, low, high).astype(np.float16)
    codes = np.clip(np.rint((groups - bias.astype(np.float32)) / scale.astype(np.float32)), 0, 2**bits - 1).astype(np.int64)
    exact = scale.astype(np.float32) * codes.astype(np.float32) + bias.astype(np.float32)
    return codes.reshape(weight.shape), scale[..., 0], bias[..., 0], exact.reshape(weight.shape)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def mxfp4(weight):
    groups = weight.reshape(weight.shape[0], -1, 32)
    exponent = np.clip(np.round(np.log2(np.abs(groups).max(-1) / 6)), -127, 127)
    scale = np.exp2(exponent).astype(np.float32)[..., None]
    codes = np.abs(groups[..., None] / scale[..., None] - E2M1).argmin(-1)
    return codes.reshape(weight.shape), (exponent + 127).astype(np.uint8), (E2M1[codes] * scale).reshape(weight.shape)


# --- weights ------------------------------------------------------------------------------------------------------------


def decoder_weights(seed, *, exact_4_bit=False, biases="", qk_norm=False, tied=False, layers=LAYERS):
    random = Random(seed)

    def matrix(rows, cols, std):
        values = random.normal(rows, cols, std=std)
        return affine(values, 4, 32)[3] if exact_4_bit else random.half(values)

    weights = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN, 1.0), "model.norm.weight": random.norm(HIDDEN)}
    if not tied:
        weights["lm_head.weight"] = matrix(VOCAB, HIDDEN, 0.5)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        weights[prefix + "input_layernorm.weight"] = random.norm(HIDDEN)
        weights[prefix + "post_attention_layernorm.weight"] = random.norm(HIDDEN)
        for name, rows, cols in (("q", HEADS * HEAD_DIM, HIDDEN), ("k", KV_HEADS * HEAD_DIM, HIDDEN),
                                 ("v", KV_HEADS * HEAD_DIM, HIDDEN), ("o", HIDDEN, HEADS * HEAD_DIM)):
            weights[f"{prefix}self_attn.{name}_proj.weight"] = matrix(rows, cols, 0.4)
            if name in biases:
                weights[f"{prefix}self_attn.{name}_proj.bias"] = random.half(random.normal(rows, std=0.5))
        if qk_norm:
            weights[prefix + "self_attn.q_norm.weight"] = random.norm(HEAD_DIM)
            weights[prefix + "self_attn.k_norm.weight"] = random.norm(HEAD_DIM)
        weights[prefix + "mlp.gate_proj.weight"] = matrix(INNER, HIDDEN, 0.4)
        weights[prefix + "mlp.up_proj.weight"] = matrix(INNER, HIDDEN, 0.4)
        weights[prefix + "mlp.down_proj.weight"] = matrix(HIDDEN, INNER, 0.3)
    return weights


def fuse(weights):
    """Phi-3's matrices."""
    fused = {}
    for name, values in weights.items():
        if ".q_proj." in name:
            parts = [weights[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
            fused[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts)
        elif ".gate_proj." in name:
            fused[name.replace("gate_proj", "gate_up_proj")] = np.concatenate([values, weights[name.replace("gate_proj", "up_proj")]])
        elif not any(part in name for part in (".k_proj.", ".v_proj.", ".up_proj.")):
            fused[name] = values
    return fused


def bert_weights(seed):
    random = Random(seed)

    def linear(prefix, rows, cols):
        return {prefix + ".weight": random.half(random.normal(rows, cols, std=0.3)), prefix + ".bias": random.half(random.normal(rows, std=0.2))}

    def norm(prefix):
        return {prefix + ".weight": random.norm(HIDDEN), prefix + ".bias": random.half(random.normal(HIDDEN, std=0.2))}

    weights = {f"embeddings.{kind}_embeddings.weight": random.half(random.normal(rows, HIDDEN, std=0.7))
               for kind, rows in (("word", VOCAB), ("position", 48), ("token_type", 2))}
    weights |= norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            weights |= linear(f"{prefix}attention.self.{name}", HIDDEN, HIDDEN)
        weights |= linear(prefix + "attention.output.dense", HIDDEN, HIDDEN) | norm(prefix + "attention.output.LayerNorm")
        weights |= linear(prefix + "intermediate.dense", INNER, HIDDEN)
        weights |= linear(prefix + "output.dense", HIDDEN, INNER) | norm(prefix + "output.LayerNorm")
    return weights


# --- references ---------------------------------------------------------------------------------------------------------


def reference_model(config, weights, auto):
    config = {k: v for k, v in config.items() if v is not None}
    model_type = config.pop("model_type")
    settings = transformers.AutoConfig.for_model(model_type, **config, attn_implementation="eager")
    model = auto.from_config(settings, attn_implementation="eager").double().eval()
    missing, unexpected = model.load_state_dict({k: torch.tensor(v).double() for k, v in weights.items()}, strict=False)
    assert not unexpected, unexpected
    assert all("lm_head" in m or "position_ids" in m or "pooler" in m for m in missing), missing
    return model


def logits(config, weights):
    model = reference_model(config, weights, transformers.AutoModelForCausalLM)
    with torch.no_grad():
        rows = model(torch.tensor([TOKENS])).logits[0].numpy()
    return {"rows": ROWS, "logits": [rounded(rows[r], 6) for r in ROWS]}


def last_hidden(config, weights):
    """The last row after the final norm: what a decoder that embeds pools."""
    model = reference_model(config, weights, transformers.AutoModelForCausalLM)
    with torch.no_grad():
        return rounded(model.model(torch.tensor([TOKENS])).last_hidden_state[0, -1].numpy(), 6)


def hidden(config, weights):
    model = reference_model(config, weights, transformers.AutoModel)
    with torch.no_grad():
        rows = model(torch.tensor([TOKENS])).last_hidden_state[0].numpy()
    mean = rows.mean(axis=0)
    return {"mean": rounded(mean / np.linalg.norm(mean), 7), "cls": rounded(rows[0] / np.linalg.norm(rows[0]), 7)}


# --- files --------------------------------------------------------------------------------------------------------------


def write_decoder_text(directory):
    vocab = {"<s>": 0, "</s>": 1, "<unk>": 2} | {c: i + 3 for i, c in enumerate(ALPHABET)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.save(os.path.join(directory, "tokenizer.json"), pretty=False)
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}</s>{% endfor %}"
    write_json(os.path.join(directory, "tokenizer_config.json"), {"eos_token": "</s>", "bos_token": "<s>", "chat_template": template})


def write_encoder_text(directory):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [c.lower() for c in ALPHABET[1:27]] + ["##" + c for c in ALPHABET[1:27]]
    vocab = {w: i for i, w in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(os.path.join(directory, "tokenizer.json"), pretty=False)


def write_directory(root, name, config, tensors, shards=1, encoder=False):
    directory = os.path.join(root, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({k: v for k, v in config.items() if v is not None}, file, indent=1)
        file.write("\n")
    (write_encoder_text if encoder else write_decoder_text)(directory)
    names = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard::shards]
        save_file({n: np.ascontiguousarray(tensors[n]) for n in part}, os.path.join(directory, file))
        weight_map |= {n: file for n in part}
    if shards > 1:
        write_json(os.path.join(directory, "model.safetensors.index.json"), {"metadata": {}, "weight_map": weight_map})


def mlx_tensors(weights, choose):
    """Tensors of an MLX file, and the weights that they stand for. choose(module) -> None, "mxfp4" or (bits, group)."""
    tensors, exact = {}, {}
    for name, values in weights.items():
        module = name.removesuffix(".weight")
        form = choose(module) if values.ndim == 2 else None
        if form is None:
            tensors[name] = values.astype(np.float16)
            exact[name] = tensors[name].astype(np.float32)
        elif form == "mxfp4":
            codes, tensors[module + ".scales"], exact[name] = mxfp4(values)
            tensors[name] = pack(codes, 4)
        else:
            codes, tensors[module + ".scales"], tensors[module + ".biases"], exact[name] = affine(values, *form)
            tensors[name] = pack(codes, form[0])
    return tensors, exact


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm", "attention.self.query": "attn_q",
    "attention.self.key": "attn_k", "attention.self.value": "attn_v", "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up", "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    for prefix in ("model.layers.", "encoder.layer."):
        if module.startswith(prefix):
            layer, rest = module[len(prefix):].split(".", 1)
            return f"blk.{layer}.{GGUF_NAMES[rest]}.{kind}"
    return f"{GGUF_NAMES[module]}.{kind}"


def permuted(values, heads):
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def q4_1_bytes(values):
    """The blocks whose codes, scale and minimum are those of the 4-bit affine form."""
    codes, scale, bias, _ = affine(values, 4, 32)
    blocks = codes.reshape(-1, 32).astype(np.uint8)
    nibbles = blocks[:, :16] | blocks[:, 16:] << 4
    heads = np.stack([scale.reshape(-1), bias.reshape(-1)], axis=1).view(np.uint8).reshape(len(blocks), 4)
    return np.concatenate([heads, nibbles], axis=1).reshape(values.shape[0], -1)


def add_gguf_text(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<s>", "</s>", "<unk>"] + ["\u0120" if c == " " else c for c in ALPHABET[:-1]] + ["ab"])
    writer.add_token_types([3] * 3 + [1] * len(ALPHABET))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages[0].content }}")


def write_gguf(path, architecture, weights, kind, *, permute=False, layers=LAYERS, rope_base=10000.0, add_more=None):
    """`kind`: the type of matrices. `add_more` is called with the writer of a decoder for keys of its own."""
    writer = gguf.GGUFWriter(path, architecture)
    encoder = architecture == "bert"
    writer.add_name("tiny")
    writer.add_context_length(48 if encoder else 128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    if encoder:
        writer.add_layer_norm_eps(1e-12)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_causal_attention(False)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["\u2581" + c for c in ALPHABET[1:27]] + list(ALPHABET[1:27])
        writer.add_tokenizer_model("bert")
        writer.add_token_list(words)
        writer.add_token_types([3] * 4 + [1] * (len(words) - 4))
        for name, value in (("unknown", 1), ("cls", 2), ("seperator", 3), ("padding", 0)):
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", value)
    else:
        writer.add_head_count_kv(KV_HEADS)
        writer.add_key_length(HEAD_DIM)
        writer.add_value_length(HEAD_DIM)
        writer.add_rope_dimension_count(HEAD_DIM)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(rope_base)
        if add_more:
            add_more(writer)
        add_gguf_text(writer)
    exact = {}
    for name, values in weights.items():
        stored = values
        if permute and ".q_proj." in name:
            stored = permuted(values, HEADS)
        if permute and ".k_proj." in name:
            stored = permuted(values, KV_HEADS)
        if values.ndim == 1 or "position" in name or "token_type" in name:
            writer.add_tensor(gguf_name(name), stored)
            exact[name] = values
        elif kind == gguf.GGMLQuantizationType.Q4_1:
            writer.add_tensor(gguf_name(name), q4_1_bytes(stored), raw_dtype=kind)
            exact[name] = values
        else:
            blocks = quantize(stored, kind)
            writer.add_tensor(gguf_name(name), blocks, raw_dtype=kind)
            exact[name] = dequantize(quantize(values, kind), kind)  # rows are quantized alone: their order is free
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


def mixed_form(module):
    if module == "lm_head":
        return None
    for part, form in (("embed_tokens", (3, 32)), ("v_proj", (6, 32)), ("down_proj", (8, 64)), ("gate_proj", "mxfp4"),
                       ("q_proj", (2, 32)), ("o_proj", (5, 64))):
        if part in module:
            return form
    return (4, 32)


def mixed_config(modules):
    entries = {"group_size": 32, "bits": 4}
    for module in modules:
        form = mixed_form(module)
        if form is None:
            entries[module] = False
        elif form == "mxfp4":
            entries[module] = {"mode": "mxfp4"}
        elif form != (4, 32):
            entries[module] = {"bits": form[0], "group_size": form[1]}
    return LLAMA | {"quantization": entries, "quantization_config": entries}


def main():
    root = sys.argv[1]
    golden = {"source": "tools/golden_tiny.py", "tokens": TOKENS, "models": {}, "variants": {}}
    models = golden["models"]

    llama = decoder_weights(1, exact_4_bit=True)
    write_directory(root, "tiny-llama", LLAMA, llama, shards=2)
    mlx, exact = mlx_tensors(llama, lambda module: (4, 32))
    assert all(np.array_equal(exact[n], llama[n]) for n in llama), "the codes do not hold the weights exactly"
    write_directory(root, "tiny-llama-mlx", LLAMA | {"quantization": {"group_size": 32, "bits": 4}}, mlx)
    write_gguf(os.path.join(root, "tiny-llama-q4_1.gguf"), "llama", llama, gguf.GGMLQuantizationType.Q4_1, permute=True)
    models["tiny-llama"] = models["tiny-llama-mlx"] = models["tiny-llama-q4_1.gguf"] = logits(LLAMA, llama)
    for name, changes in VARIANTS.items():
        golden["variants"][name] = {"changes": changes} | logits(LLAMA | changes, llama)

    exact = write_gguf(os.path.join(root, "tiny-llama-q8_0.gguf"), "llama", llama, gguf.GGMLQuantizationType.Q8_0, permute=True)
    models["tiny-llama-q8_0.gguf"] = logits(LLAMA, exact)
    mixed, exact = mlx_tensors(llama, mixed_form)
    modules = [n.removesuffix(".weight") for n in llama if llama[n].ndim == 2]
    write_directory(root, "tiny-llama-mixed", mixed_config(modules), mixed)
    models["tiny-llama-mixed"] = logits(LLAMA, exact)

    one_layer = LLAMA | {"num_hidden_layers": 1}
    biased = decoder_weights(2, biases="qkvo", layers=1)
    write_gguf(os.path.join(root, "tiny-llama-biases.gguf"), "llama", biased, gguf.GGMLQuantizationType.F16, permute=True, layers=1)
    models["tiny-llama-biases.gguf"] = logits(one_layer | {"attention_bias": True}, biased)

    qwen2 = one_layer | {"model_type": "qwen2", "tie_word_embeddings": True, "head_dim": None, "num_attention_heads": 2, "num_key_value_heads": 1}
    # Qwen 2 has no head_dim of its own: two heads of 16 make up its hidden size.
    weights = decoder_weights(3, biases="qkv", tied=True, layers=1)
    cut = {"q_proj": 32, "k_proj": 16, "v_proj": 16}
    for name in list(weights):
        for part, rows in cut.items():
            if part in name:
                weights[name] = weights[name][:rows]
        if "o_proj" in name:
            weights[name] = weights[name][:, :32]
    write_directory(root, "tiny-qwen2", qwen2, {n: v.astype(np.float16) for n, v in weights.items()})
    models["tiny-qwen2"] = logits(qwen2, weights)

    qwen3 = one_layer | {"model_type": "qwen3", "tie_word_embeddings": True}
    weights = decoder_weights(4, qk_norm=True, tied=True, layers=1)
    write_directory(root, "tiny-qwen3", qwen3, {n.removeprefix("model."): v.astype(np.float16) for n, v in weights.items()})
    write_gguf(os.path.join(root, "tiny-qwen3.gguf"), "qwen3", weights, gguf.GGMLQuantizationType.F16, layers=1)
    models["tiny-qwen3"] = models["tiny-qwen3.gguf"] = logits(qwen3, weights) | {"last_hidden": last_hidden(qwen3, weights)}

    phi3 = one_layer | {"model_type": "phi3", "head_dim": None, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 2,
                        "original_max_position_embeddings": 16, "max_position_embeddings": 64,
                        "rope_scaling": {"type": "longrope", "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0, 12.0],
                                         "short_factor": [1.0] * 4 + [1.5] * 4}}
    weights = decoder_weights(5, layers=1)
    for name in list(weights):
        for part, rows in cut.items():
            if part in name:
                weights[name] = weights[name][:rows]
        if "o_proj" in name:
            weights[name] = weights[name][:, :32]
    weights = fuse(weights)
    write_directory(root, "tiny-phi3", phi3, {n: v.astype(np.float16) for n, v in weights.items()})
    models["tiny-phi3"] = logits(phi3, weights)

    bert = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "vocab_size": VOCAB, "max_position_embeddings": 48, "type_vocab_size": 2, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12, "pad_token_id": 0}
    weights = bert_weights(6)
    write_directory(root, "tiny-bert", bert, {"bert." + n: v.astype(np.float16) for n, v in weights.items()}, encoder=True)
    write_gguf(os.path.join(root, "tiny-bert.gguf"), "bert", weights, gguf.GGMLQuantizationType.F16)
    models["tiny-bert"] = models["tiny-bert.gguf"] = hidden(bert, weights)
    golden["variants"]["roberta"] = {"changes": {"model_type": "roberta", "pad_token_id": 1}} | hidden(bert | {"model_type": "roberta", "pad_token_id": 1}, weights)
    write_json(os.path.join(root, "tiny_golden.json"), golden)


if __name__ == "__main__":
    main()
