// The generations of one request, whose choices run beside each other, as one stream of events. Private to http/.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "api/dialect.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::http {

struct ChoiceEvent {
  size_t choice = 0;
  service::GenerationEvent event;
};

// One consumer; Cancel may come from any thread. Destroying it cancels what runs. It must not outlive its Service.
class GenerationGroup {
 public:
  // Renders, tokenizes and submits every choice: milliseconds of work, for a worker thread. When one is refused the
  // others are cancelled and the refusal is the result. `cache_partition`: whose prompts they share cached blocks with.
  static Result<GenerationGroup> Submit(api::GenerationCall& call, uint64_t cache_partition, service::Service& service);

  std::vector<api::Accepted> accepted() const;
  const std::string& model_name() const { return generations_.front()->model_name(); }
  int64_t prompt_tokens() const;
  int64_t generated_tokens() const;
  // The next event of any choice if one is ready; nothing after the last.
  std::optional<ChoiceEvent> TryNext();
  // Whether every choice is over, or one has failed or was cancelled: nothing more will be said.
  bool over() const { return failed_ || open_ == 0; }
  // Sums over the choices that are done; times are the longest.
  const service::Usage& usage() const { return usage_; }
  void SetWaker(const std::function<void()>& wake);
  void Cancel();

 private:
  std::vector<std::unique_ptr<service::Generation>> generations_;
  std::vector<bool> done_;
  size_t open_ = 0;
  size_t next_ = 0;  // whose turn it is to be asked
  bool failed_ = false;
  service::Usage usage_;
};

}  // namespace pensieve::http
