// Quantizing while loading: a source whose large float matrices become affine ones, as mlx_lm.convert -q makes them.
#pragma once

#include <memory>
#include <string_view>

#include "formats/affine_quantize.h"
#include "model/loader.h"
#include "model/weight_source.h"

namespace pensieve::model {

// Whether a float matrix of that name (without ".weight", as the model or as GGUF spells it) and shape is quantized.
// Routers stay as they are: their few rows decide for whole experts; so do matrices of less than 32 rows, and those whose
// columns are no multiple of the group. Norms and biases are no matrices.
bool IsQuantizedAtLoad(const formats::AffineFormat& format, std::string_view name, int64_t rows, int64_t cols);

// Gives the matrices of `source`, which reads from `store`; the source's pages of a matrix are given back to the system
// once it is quantized. `store` must outlive the result.
std::unique_ptr<WeightSource> NewQuantizingSource(std::unique_ptr<WeightSource> source, WeightStore& store,
                                                  const formats::AffineFormat& format);

// What `census` of the store's files will be once they are quantized so. Whether any matrix is.
bool CountQuantizedAtLoad(const WeightStore& store, const formats::AffineFormat& format, WeightCensus& census);

}  // namespace pensieve::model
