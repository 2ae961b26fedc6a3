// The consumer's end of a chat or completion: reads the engine's events and turns them into text on the caller's
// thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "service/output_reader.h"
#include "service/served_model.h"
#include "service/service.h"

namespace pensieve::service {

struct GenerationSetup {
  std::shared_ptr<ServedModel> model;
  std::vector<int32_t> prompt_ids;
  std::unique_ptr<engine::EventStream> stream;
  OutputOptions output;
  int64_t room = 0;              // new tokens that the context has space for
  bool limited_by_room = false;  // the request allowed more than that
};

std::unique_ptr<Generation> NewGeneration(GenerationSetup setup);

}  // namespace pensieve::service
