#!/usr/bin/env python3
"""What mlx and gguf make of quantized weights, for tests that compare bit for bit.

    golden_weights.py tests/data/weights

Writes mlx.safetensors: for every bits, group and dtype of MLX's affine form "KEY.codes", ".scales", ".biases" (by mlx.core.quantize
from the tensor "w.DTYPE"), ".f32" (mlx.core.dequantize with the scales as f32) and ".values" (with the scales as they are), and the
same without biases for mxfp4. Writes gguf.safetensors: for every block type random blocks "TYPE.blocks" and their ".f32" by
gguf.quants.dequantize. Needs numpy, mlx, gguf, safetensors.
"""

import os
import sys

import gguf
import mlx.core as mx
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

COLS = 256
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
BITS = [2, 3, 4, 5, 6, 8]
GROUPS = [32, 64, 128]
MLX = mx.cpu


def weights():
    """A row of everything that is usual, and one of groups that are awkward: constant, zero, of one sign, one outlier, tiny."""
    random = np.random.default_rng(20240229)
    usual = random.normal(0, 0.02, COLS)
    awkward = np.concatenate([
        np.full(32, 1.0), np.zeros(32), np.abs(random.normal(0, 1, 32)), -np.abs(random.normal(0, 1, 32)),
        (np.arange(32) - 10) / 16, random.normal(0, 1e-9, 32), random.normal(0, 0.01, 32) + 3, random.normal(0, 0.01, 32)
    ])
    awkward[-3] = -7.5
    return mx.array(np.stack([usual, awkward]).astype(np.float32))


def bits_of(array):
    """An array as numpy; bf16, which numpy lacks, as u16."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def write_mlx(path):
    tensors = {}
    for name, dtype in DTYPES.items():
        w = weights().astype(dtype)
        tensors[f"w.{name}"] = bits_of(w)
        for bits in BITS:
            for group in GROUPS:
                codes, scales, biases = mx.quantize(w, group_size=group, bits=bits)
                wide = mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits)
                key = f"affine{bits}.g{group}.{name}"
                tensors |= {f"{key}.codes": np.array(codes), f"{key}.scales": bits_of(scales), f"{key}.biases": bits_of(biases),
                            f"{key}.f32": np.array(wide)}
                if name != "f32":
                    values = mx.dequantize(codes, scales, biases, group_size=group, bits=bits)
                    tensors[f"{key}.values"] = bits_of(values)
    codes, scales = mx.quantize(weights(), group_size=32, bits=4, mode="mxfp4")
    tensors |= {"mxfp4.codes": np.array(codes), "mxfp4.scales": np.array(scales),
                "mxfp4.f32": np.array(mx.dequantize(codes, scales, group_size=32, bits=4, mode="mxfp4").astype(mx.float32))}
    save_file(tensors, path)


def random_blocks(kind, count, random):
    """Random bytes whose f16 scales are numbers of usual size."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    halves = {"Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
              "MXFP4": []}.get(kind.name, [0])
    for at in halves:
        blocks[:, at:at + 2] = random.normal(0, 0.5, (count, 1)).astype(np.float16).view(np.uint8)
    if kind.name == "MXFP4":
        blocks[:, 0] = random.integers(100, 140, count)
        blocks[:2, 0] = [0, 1]  # these scales are no normal numbers of f16
    return blocks


def write_gguf(path):
    tensors = {}
    random = np.random.default_rng(20240301)
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"):
        kind = gguf.GGMLQuantizationType[name]
        count = 512 // gguf.GGML_QUANT_SIZES[kind][0]
        blocks = random_blocks(kind, count, random)
        tensors |= {f"{name}.blocks": blocks, f"{name}.f32": dequantize(blocks, kind).reshape(-1)}
    for name, kind in (("F16", gguf.GGMLQuantizationType.F16), ("BF16", gguf.GGMLQuantizationType.BF16)):
        blocks = random.integers(0, 256, (1, 512), dtype=np.uint8)
        blocks[:, 1::2] &= 0xBB  # neither infinity nor NaN
        tensors |= {f"{name}.blocks": blocks, f"{name}.f32": dequantize(blocks, kind).reshape(-1)}
    save_file(tensors, path)


def main():
    directory = sys.argv[1]
    os.makedirs(directory, exist_ok=True)
    mx.set_default_device(MLX)
    write_mlx(os.path.join(directory, "mlx.safetensors"))
    write_gguf(os.path.join(directory, "gguf.safetensors"))


if __name__ == "__main__":
    main()
