#!/usr/bin/env python3
"""What the transformers package makes of config.json files that leave things out, or say them in unusual ways.

    golden_configs.py tests/data/models

Every case is read by transformers, and facts are taken from the network that it builds rather than from the configuration: which
positions a layer sees, how it rotates, which biases it has. Needs torch and transformers.
"""

import copy
import os
import sys

import torch
import transformers

from golden_common import write_json

TOKENS = 4200  # more than the largest window that a model has by default
SIZES = {"hidden_size": 256, "intermediate_size": 16, "num_hidden_layers": 8, "num_attention_heads": 32, "vocab_size": 8, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 1}
EXPERTS = {"mixtral": {"num_local_experts": 4}, "gpt_oss": {"num_local_experts": 4}, "qwen3_moe": {"num_experts": 8, "moe_intermediate_size": 16},
           "qwen2_moe": {"num_experts": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}

# model_type -> what a case adds to the sizes. The first of each adds nothing: defaults alone.
CASES = {
    "llama": [{},
              {"sliding_window": 7, "partial_rotary_factor": 0.5},
              {"head_dim": 16, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
              {"rope_scaling": LINEAR},
              {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
              {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 64}},
              {"rope_scaling": YARN},
              {"rope_scaling": YARN | {"attention_factor": 1.25}},
              {"rope_scaling": YARN | {"truncate": False, "beta_fast": 16.0, "beta_slow": 2.0}},
              {"rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.5}},
              {"rope_scaling": YARN | {"mscale": 0.707}},
              {"rope_scaling": YARN | {"mscale": 0, "mscale_all_dim": 0.5}},
              {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0}}],
    "mistral": [{}, {"sliding_window": 7}, {"sliding_window": None}, {"partial_rotary_factor": 0.5}],
    "ministral3": [{}, {"rope_theta": 1e4}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}],
    "smollm3": [{}, {"use_sliding_window": True, "sliding_window": 7}, {"sliding_window": 7}, {"no_rope_layer_interval": 3},
                {"no_rope_layers": [1, 0, 1, 1, 1, 1, 0, 1], "use_sliding_window": True, "sliding_window": 7}],
    "qwen2": [{}, {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}, {"sliding_window": 7},
              {"use_sliding_window": True, "max_window_layers": 0},
              {"use_sliding_window": True, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"] * 4}],
    "qwen3": [{}, {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}, {"attention_bias": True}],
    "qwen3_moe": [{}, {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}, {"norm_topk_prob": True}],
    "qwen2_moe": [{}, {"qkv_bias": False}, {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3},
                  {"use_sliding_window": True, "sliding_window": 7, "layer_types": ["sliding_attention"] * 3 + ["full_attention"] * 5}],
    "mixtral": [{}, {"sliding_window": 7}],
    "gpt_oss": [{}, {"rope_theta": 1e4}, {"rope_scaling": None}, {"rope_scaling": {}}, {"rope_scaling": LINEAR},
                {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, {"sliding_window": 7}],
    "phi3": [{}, {"partial_rotary_factor": 0.5}, {"sliding_window": 7}, {"rope_theta": 1e6}],
    "gemma2": [{}, {"sliding_window": 7}, {"attn_logit_softcapping": 5.0, "final_logit_softcapping": None}],
    "gemma3_text": [{}, {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}, {"sliding_window": 7, "sliding_window_pattern": 3}, {"sliding_window": 7, "_sliding_window_pattern": 2},
                    {"rope_theta": 1e5, "rope_local_base_freq": 1e3, "rope_scaling": LINEAR}],
    # Images go with these: what is said of text stands in an object of its own.
    "gemma3": [{}, {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}],
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def rotation(rope, kind):
    name = f"{kind}_inv_freq" if hasattr(rope, f"{kind}_inv_freq") else "inv_freq"
    magnitude = getattr(rope, f"{kind}_attention_scaling", getattr(rope, "attention_scaling", 1.0))
    return {"frequencies": [float(f"{f:.7g}") for f in getattr(rope, name).tolist()], "magnitude": round(float(magnitude), 7)}


def caps(model, network):
    """What bounds the scores of attention and the logits; 0 where nothing does."""
    module = sys.modules[type(network.layers[0].self_attn).__module__]
    attend = module.eager_attention_forward
    bounds = []

    def observe(*positional, **others):
        bounds.append(others.get("softcap") or 0.0)
        return attend(*positional, **others)

    module.eager_attention_forward = observe
    with torch.no_grad():
        model.lm_head.weight *= 1e6
        largest = float(model(torch.tensor([[2, 3]])).logits.abs().max())
    module.eager_attention_forward = attend
    return {"attention": bounds[0], "logits": round(largest, 4) if largest < 1e3 else 0.0}


def visible_positions(network):
    """How many positions the last of TOKENS sees in each layer, by the mask that the layer is given."""
    seen = []

    def observe(hidden_states, *positional, attention_mask=None, **others):
        seen.append(int((attention_mask[0, 0, -1] == 0).sum()))
        return hidden_states

    for layer in network.layers:
        layer.forward = observe
    with torch.no_grad():
        network(torch.zeros(1, TOKENS, dtype=torch.long))
    return seen


def facts(model_type, config):
    settings = transformers.AutoConfig.for_model(model_type, **config, attn_implementation="eager")
    auto = transformers.AutoModelForImageTextToText if "text_config" in config else transformers.AutoModelForCausalLM
    model = auto.from_config(settings, attn_implementation="eager").eval()
    network = getattr(model.model, "language_model", model.model)
    settings, tied = settings.get_text_config(), settings.tie_word_embeddings
    layers = network.layers
    attention = layers[0].self_attn
    projection = getattr(attention, "q_proj", None) or attention.qkv_proj
    experts = getattr(settings, "num_experts_per_tok", 0)
    result = {
        "context_max": settings.max_position_embeddings,
        "norm_eps": layers[0].input_layernorm.variance_epsilon if hasattr(layers[0].input_layernorm, "variance_epsilon")
        else layers[0].input_layernorm.eps,
        "head_dim": attention.head_dim,
        "kv_heads": settings.num_key_value_heads,
        "attention_scale": round(float(attention.scaling), 7),
        "attention_bias": projection.bias is not None,
        "tied": tied,
        "rotation": rotation(network.rotary_emb, "full_attention"),
        "query_growth": settings.rope_parameters.get("llama_4_scaling_beta", 0.0),
        "rotates": [bool(getattr(layer.self_attn, "use_rope", True)) for layer in layers],
        "experts_active": experts,
    }
    if not experts:
        gate = getattr(layers[0].mlp, "gate_proj", None) or layers[0].mlp.gate_up_proj
        result["mlp_bias"] = gate.bias is not None
    if hasattr(settings, "norm_topk_prob"):
        result["norm_topk_prob"] = settings.norm_topk_prob
    if hasattr(network.rotary_emb, "sliding_attention_inv_freq"):
        result["sliding_rotation"] = rotation(network.rotary_emb, "sliding_attention")
    if "gemma" in model_type:
        result["caps"] = caps(model, network)
    return result | {"visible": visible_positions(network)}


def main():
    golden = {"source": "tools/golden_configs.py", "tokens": TOKENS, "cases": []}
    for model_type, cases in CASES.items():
        for case in cases:
            config = SIZES | EXPERTS.get(model_type, {}) | case
            if model_type == "gemma3":
                config = {"text_config": {"model_type": "gemma3_text"} | config, "vision_config": VISION, "mm_tokens_per_image": 4}
            found = facts(model_type, copy.deepcopy(config))  # transformers writes into what it is given
            golden["cases"].append({"config": {"model_type": model_type} | config, "facts": found})
            print(model_type, case, found["visible"])
    write_json(os.path.join(sys.argv[1], "configs.json"), golden)


if __name__ == "__main__":
    main()
