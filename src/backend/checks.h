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

// What Experts reads of one expert.
int64_t ExpertBytes(const Expert& expert, bool alternating);

// Our own bugs: abort when operands of an operation do not fit each other.
void CheckStep(const StepInputs& inputs);
void CheckProducts(const MatMulInput& input, std::span<const Product> products);
void CheckGated(const MatMulInput& input, const GatedProduct& product);
void CheckExpertLayer(const ExpertLayer& layer);
void CheckExperts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out);
void CheckRopeTable(const RopeTable& table);
void CheckEmbed(const StepInputs& step, const Weight& table, EmbedBy by, Matrix out);
void CheckRotate(const StepInputs& step, Matrix x, int64_t head_dim);
void CheckGather(const StepInputs& step, Matrix x, Matrix out);
void CheckDraw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params);
void CheckPool(const StepInputs& step, Matrix x, Matrix out);
void CheckSameShape(Matrix a, Matrix b);
// Every sequence's block table covers its tokens with blocks of the cache, and its rows are rows of q (k).
void CheckPagedAttention(const KvShape& shape, int64_t layer, const StepInputs& step, Matrix q, Matrix out);
void CheckStoreKv(const KvShape& shape, int64_t layer, const StepInputs& step, Matrix k, Matrix v);
void CheckEncoderAttention(const StepInputs& step, int64_t head_dim, Matrix q, Matrix k, Matrix v, Matrix out);

}  // namespace pensieve::backend
