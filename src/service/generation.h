// The consumer's end of a chat or completion: reads the engine's events and turns them into text on the caller's
// thread.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "service/answer_store.h"
#include "service/output_reader.h"
#include "service/served_model.h"
#include "service/service.h"

namespace pensieve::service {

struct GenerationSetup {
  std::shared_ptr<ServedModel> model;
  std::vector<int32_t> prompt_ids;
  std::unique_ptr<engine::EventStream> stream;
  std::string first_text = {};  // the first event, when not empty
  OutputOptions output;
  // A chat's: where its answer is stored for later prompts. None for completions, which have no turns.
  std::optional<PromptPrefix> store_behind;
  uint64_t partition = 0;
  size_t answer_begin = 0;       // in prompt_ids: a turn that is continued has begun before the prompt's end
  int64_t room = 0;              // new tokens that the context has space for
  bool limited_by_room = false;  // the request allowed more than that
};

std::unique_ptr<Generation> NewGeneration(GenerationSetup setup);

}  // namespace pensieve::service
