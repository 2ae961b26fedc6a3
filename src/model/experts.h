// The experts of one layer: asked for under the names of an architecture, run by the backend.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"
#include "model/config.h"
#include "model/network_builder.h"

namespace pensieve::model {

// Where an architecture keeps its experts; names of modules below "model.layers.i.".
struct ExpertNames {
  std::string_view router = "mlp.gate";
  // All experts in tensors [experts, out, in]: ".gate_proj", ".up_proj", ".down_proj" of this module. With
  // ".gate_up_proj" instead, its rows are gate 0, up 0, gate 1, up 1, ... (gpt-oss as Hugging Face has it).
  std::string_view stacked = "mlp.switch_mlp";
  // One module an expert, "<separate>.<number>.<part>"; parts: gate, up, down.
  std::string_view separate = "mlp.experts";
  std::array<std::string_view, 3> parts = {"gate_proj", "up_proj", "down_proj"};
};

// gate, up and down of one network, as the files have them.
struct HostExpert {
  HostLinear gate, up, down;
};

// Borrows weights that belong to the backend and to the model's weight store.
class ExpertFfn {
 public:
  // `prefix`: "model.layers.3.".
  static Result<ExpertFfn> Build(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                                 const std::string& prefix);

  // One ordinary network, of which every row makes full use: for layers with biases on gate and up.
  static Result<ExpertFfn> OfOne(NetworkBuilder& builder, const std::string& module, const HostExpert& network,
                                 backend::Activation activation);

  // out += what the experts of each row make of it. `routing`: scratch, [M, RoutingCols(config)].
  void Run(backend::Backend& backend, const backend::MatMulInput& input, backend::Matrix routing,
           backend::Matrix out) const;

  // Bytes of weights that one token leaves unread.
  int64_t idle_bytes() const { return idle_bytes_; }

 private:
  Status BuildRouted(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                     const std::string& prefix);
  Status BuildShared(NetworkBuilder& builder, const ModelConfig& config, const std::string& prefix);

  Linear router_;  // [experts, hidden]; no rows when there is nothing to choose from
  backend::ExpertSet experts_;
  Linear shared_gate_;         // [1, hidden]
  backend::ExpertSet shared_;  // of one, or null
  int64_t idle_bytes_ = 0;
};

// A logit an expert, and one for the shared expert or for an ordinary network.
inline int64_t RoutingCols(const ModelConfig& config) { return config.experts.count + 1; }

}  // namespace pensieve::model
