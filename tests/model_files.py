"""Small model files, good and bad, for tests of loading. Random weights: they answer nonsense, but they load."""
import json
import struct

import numpy as np

# Tokens of a byte-level vocabulary without merges: one for each byte, and the end.
BYTE_CHARACTERS = [chr(byte) if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174 else None for byte in range(256)]
_next = 256
for _i in range(256):
    if BYTE_CHARACTERS[_i] is None:
        BYTE_CHARACTERS[_i] = chr(_next)
        _next += 1

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 257,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "hidden_act": "silu", "eos_token_id": 256, "torch_dtype": "float32",
}


def tokenizer_json():
    return {
        "version": "1.0", "added_tokens": [{
            "id": 256, "content": "<|end|>", "special": True, "normalized": False, "single_word": False,
            "lstrip": False, "rstrip": False
        }], "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {character: i
                                           for i, character in enumerate(BYTE_CHARACTERS)}, "merges": []},
    }


def llama_tensors(config=LLAMA, vocab_size=None):
    width, inner = config["hidden_size"], config["intermediate_size"]
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (vocab_size or config["vocab_size"], width), "model.norm.weight": (width, )}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (width, ), layer + "post_attention_layernorm.weight": (width, ),
            layer + "self_attn.q_proj.weight": (width, width), layer + "self_attn.k_proj.weight": (kv, width),
            layer + "self_attn.v_proj.weight": (kv, width), layer + "self_attn.o_proj.weight": (width, width),
            layer + "mlp.gate_proj.weight": (inner, width), layer + "mlp.up_proj.weight": (inner, width),
            layer + "mlp.down_proj.weight": (width, inner)
        }
    random = np.random.default_rng(1)
    return {name: random.standard_normal(shape, np.float32) * 0.1 for name, shape in shapes.items()}


def safetensors_bytes(tensors, change_header=lambda header: None):
    header, data = {}, b""
    for name, tensor in tensors.items():
        kind = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}[tensor.dtype]
        header[name] = {
            "dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data),
                                                                         len(data) + tensor.nbytes]
        }
        data += tensor.tobytes()
    change_header(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_llama(directory, config=None, tokenizer=None, tensors=None, weights=None):
    """A tiny Llama in Hugging Face's layout. Pass ... to leave a file out."""
    directory.mkdir(parents=True, exist_ok=True)
    shape = LLAMA if config in (None, ...) else config
    if config is not ...:
        (directory / "config.json").write_text(json.dumps(shape))
    if tokenizer is not ...:
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer or tokenizer_json()))
    if weights is not ...:
        weights = weights or safetensors_bytes(tensors or llama_tensors(shape))
        (directory / "model.safetensors").write_bytes(weights)
    return directory
