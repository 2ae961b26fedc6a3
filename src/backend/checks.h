// What every backend checks alike: sizes before memory is asked for, and the shapes that callers hand over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "base/status.h"

namespace pensieve::backend {

// Bytes of an f32 matrix. ResourceExhausted when they do not fit an address space.
Result<size_t> MatrixBytes(int64_t rows, int64_t cols);
// InvalidArgument when a KV shape has a size below one or an unreasonable one (its byte count would overflow).
Status CheckKvShape(const KvShape& shape);

// Our own bugs: abort when operands of an operation do not fit each other.
void CheckProducts(const MatMulInput& input, std::span<const Product> products);
void CheckGated(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up, Matrix out);
void CheckExperts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out);
void CheckSameShape(Matrix a, Matrix b);
// Every sequence lies inside `rows` rows, and with `block_len` > 0 its block table covers its tokens with blocks of
// [0, num_blocks).
void CheckSequences(std::span<const SequenceRows> sequences, int64_t rows, int64_t block_len, int64_t num_blocks);
void CheckPagedAttention(const KvShape& shape, int64_t layer, std::span<const SequenceRows> sequences, Matrix q,
                         Matrix out);
void CheckStoreKv(const KvShape& shape, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v);
void CheckEncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim, Matrix q, Matrix k, Matrix v,
                           Matrix out);

}  // namespace pensieve::backend
