#include "model/experts_config.h"

#include <fmt/format.h>

namespace pensieve::model {

void ReadExpertsHf(formats::ConfigFields& fields, ModelConfig& config) {
  const char* count_key = fields.Has("num_experts") ? "num_experts" : "num_local_experts";
  ExpertsConfig& experts = config.experts;
  experts.count = fields.RequiredInt(count_key, kExpertsRange);
  experts.active = fields.RequiredInt("num_experts_per_tok", kExpertsRange);
  if (experts.active > experts.count) {
    fields.Fail(fields.Error("num_experts_per_tok",
                             fmt::format("is {}, more than the {} experts of a layer", experts.active, experts.count)));
  }
}

void ReadExpertsGguf(const std::string& prefix, formats::GgufFields& fields, ModelConfig& config) {
  ExpertsConfig& experts = config.experts;
  experts.count = fields.RequiredInt(prefix + "expert_count", kExpertsRange);
  experts.active = fields.RequiredInt(prefix + "expert_used_count", kExpertsRange);
  if (experts.active > experts.count) {
    fields.Fail(fields.Error(prefix + "expert_used_count",
                             fmt::format("is {}, more than the {} experts of a layer", experts.active, experts.count)));
  }
}

}  // namespace pensieve::model
