// The linear layers that some embedding models put between pooling and normalization.
#pragma once

#include <vector>

#include "model/network_builder.h"

namespace pensieve::model {

// Engine-thread-only, like the model that owns it.
class DenseStack {
 public:
  // The modules "dense.0", "dense.1", ... of config.dense.
  Status Build(NetworkBuilder& builder, const ModelConfig& config);
  // [n <= rows_max, hidden_size] to [n, embedding_size], valid until the next call; `pooled` itself without layers.
  backend::Matrix Run(backend::Backend& backend, backend::Matrix pooled) const;

 private:
  struct Layer {
    Linear linear;
    backend::Matrix out;  // [rows_max, outputs]
    bool tanh = false;
  };
  std::vector<Layer> layers_;
};

}  // namespace pensieve::model
