// What the server counts, as Prometheus text or JSON. Names that begin with akidb_ are AkiDB's, so that its dashboards
// and alert rules work; everything else begins with pensieve_. All label values come from bounded sets (route patterns,
// served models' own names, outcomes), never from what a client wrote.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace pensieve {

// One finished generation, by chat or completion.
struct GenerationMetrics {
  std::string model;
  std::string outcome;  // "done", "error", "cancelled", "refused"
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double first_token_s = 0;
  double total_s = 0;
  double tokens_per_s = 0;
};

// One embedding request of any dialect.
struct EmbeddingMetrics {
  bool ok = false;
  bool busy = false;  // refused because of load
  int64_t texts = 0;
  int64_t prompt_tokens = 0;
  double total_s = 0;
};

// A value that is read when somebody asks, not counted here.
struct CollectedMetric {
  std::string name;
  std::string help;
  bool counter = false;  // else a gauge
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};

// Thread-safe.
class Metrics {
 public:
  // Called at each scrape, on the scraping thread. Metrics of one name must stand together.
  using Collector = std::function<std::vector<CollectedMetric>()>;

  static std::unique_ptr<Metrics> Create(const std::string& version, Collector collector);
  virtual ~Metrics() = default;

  virtual void CountHttp(const std::string& method, const std::string& route, int status, double seconds) = 0;
  // `method` "Embed", `status` gRPC's spelling of the code.
  virtual void CountGrpc(const std::string& service, const std::string& method, const std::string& status,
                         double seconds) = 0;
  virtual void CountGeneration(const GenerationMetrics& generation) = 0;
  virtual void CountEmbedding(const EmbeddingMetrics& embedding) = 0;

  // The text exposition format, version 0.0.4.
  virtual std::string PrometheusText() = 0;
  // The keys of the first Pensieve (total_requests, total_tokens, total_time_seconds, average_tps, cache_hit_rate,
  // peak_memory_mb, session_time_minutes, requests_per_minute), and under "metrics" every sample of the text.
  virtual Json ToJson() = 0;
};

}  // namespace pensieve
