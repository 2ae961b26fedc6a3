#include "observe/metrics.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cmath>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "base/mutex.h"

namespace pensieve {
namespace {

using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Buckets = Histogram::BucketBoundaries;

const Buckets kHttpBuckets = {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300};
const Buckets kGrpcBuckets = {.001, .005, .01, .025, .05, .1, .25, .5, 1};
const Buckets kEmbeddingBuckets = {.01, .05, .1, .2, .5, 1, 2, 5};
const Buckets kBatchBuckets = {1, 2, 4, 8, 16, 32};
const Buckets kFirstTokenBuckets = {.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300};
const Buckets kRateBuckets = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double PeakMemoryMb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
#else
  return static_cast<double>(usage.ru_maxrss) / (1 << 10);
#endif
}

void Append(const CollectedMetric& metric, std::vector<MetricFamily>& families) {
  if (families.empty() || families.back().name != metric.name)
    families.push_back({metric.name, metric.help, metric.counter ? MetricType::Counter : MetricType::Gauge, {}});
  ClientMetric value;
  for (const auto& [name, text] : metric.labels) value.label.push_back({name, text});
  (metric.counter ? value.counter.value : value.gauge.value) = metric.value;
  families.back().metric.push_back(std::move(value));
}

// JSON has no infinities.
Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json ToJson(const ClientMetric& metric, MetricType type) {
  Json sample = Json::object();
  if (!metric.label.empty()) {
    Json labels = Json::object();
    for (const auto& label : metric.label) labels[label.name] = label.value;
    sample["labels"] = std::move(labels);
  }
  if (type == MetricType::Histogram) {
    sample["count"] = metric.histogram.sample_count;
    sample["sum"] = Number(metric.histogram.sample_sum);
  } else {
    sample["value"] = Number(type == MetricType::Counter ? metric.counter.value : metric.gauge.value);
  }
  return sample;
}

class PrometheusMetrics final : public Metrics {
 public:
  PrometheusMetrics(const std::string& version, Collector collector)
      : version_(version), collector_(std::move(collector)) {}

  void CountHttp(const std::string& method, const std::string& route, int status, double seconds) override {
    http_requests_.Add({{"method", method}, {"path", route}, {"status_code", fmt::format("{}", status)}}).Increment();
    http_seconds_.Add({{"method", method}, {"path", route}}, kHttpBuckets).Observe(seconds);
  }

  void CountGrpc(const std::string& service, const std::string& method, const std::string& status,
                 double seconds) override {
    grpc_requests_.Add({{"service", service}, {"method", method}, {"status", status}}).Increment();
    grpc_seconds_.Add({{"service", service}, {"method", method}}, kGrpcBuckets).Observe(seconds);
  }

  void CountGeneration(const GenerationMetrics& g) override {
    requests_.Add({{"model", g.model}, {"outcome", g.outcome}}).Increment();
    prompt_tokens_.Add({{"model", g.model}}).Increment(static_cast<double>(g.prompt_tokens));
    cached_tokens_.Add({{"model", g.model}}).Increment(static_cast<double>(g.cached_prompt_tokens));
    completion_tokens_.Add({{"model", g.model}}).Increment(static_cast<double>(g.completion_tokens));
    if (g.first_token_s > 0) first_token_s_.Add({{"model", g.model}}, kFirstTokenBuckets).Observe(g.first_token_s);
    if (g.tokens_per_s > 0) tokens_per_s_.Add({{"model", g.model}}, kRateBuckets).Observe(g.tokens_per_s);
    const MutexLock lock(totals_mutex_);
    // Only what was answered counts as served.
    if (g.outcome != "done") return;
    ++totals_.requests;
    totals_.completion_tokens += g.completion_tokens;
    totals_.prompt_tokens += g.prompt_tokens;
    totals_.cached_tokens += g.cached_prompt_tokens;
    totals_.seconds += g.total_s;
  }

  void CountEmbedding(const EmbeddingMetrics& e) override {
    embedding_requests_.Add({{"status", e.ok ? "success" : "error"}}).Increment();
    if (e.busy) embedding_busy_.Increment();
    if (!e.ok) {
      embedding_errors_.Increment();
      return;
    }
    embedding_seconds_.Observe(e.total_s);
    embedding_batch_.Observe(static_cast<double>(e.texts));
    embedding_tokens_.Increment(static_cast<double>(e.prompt_tokens));
  }

  std::string PrometheusText() override { return prometheus::TextSerializer().Serialize(Collect()); }

  Json ToJson() override {
    const double seconds = SecondsSince(start_);
    Json json;
    {
      const MutexLock lock(totals_mutex_);
      const auto prompt = static_cast<double>(totals_.prompt_tokens);
      json["total_requests"] = totals_.requests;
      json["total_tokens"] = totals_.completion_tokens;
      json["total_time_seconds"] = totals_.seconds;
      json["average_tps"] =
          totals_.seconds > 0 ? static_cast<double>(totals_.completion_tokens) / totals_.seconds : 0.0;
      json["cache_hit_rate"] = prompt > 0 ? static_cast<double>(totals_.cached_tokens) / prompt : 0.0;
      json["peak_memory_mb"] = PeakMemoryMb();
      json["session_time_minutes"] = seconds / 60;
      json["requests_per_minute"] = seconds > 0 ? static_cast<double>(totals_.requests) * 60 / seconds : 0.0;
    }
    Json metrics = Json::object();
    for (const MetricFamily& family : Collect()) {
      Json samples = Json::array();
      for (const ClientMetric& metric : family.metric) samples.push_back(pensieve::ToJson(metric, family.type));
      metrics[family.name] = std::move(samples);
    }
    json["metrics"] = std::move(metrics);
    return json;
  }

 private:
  struct Totals {
    int64_t requests = 0;
    int64_t prompt_tokens = 0;
    int64_t cached_tokens = 0;
    int64_t completion_tokens = 0;
    double seconds = 0;
  };

  std::vector<MetricFamily> Collect() {
    std::vector<MetricFamily> families;
    Append({.name = "akidb_uptime_seconds",
            .help = "Time since start",
            .counter = true,
            .labels = {},
            .value = SecondsSince(start_)},
           families);
    Append({.name = "akidb_build_info", .help = "The running version", .labels = {{"version", version_}}, .value = 1},
           families);
    Append({.name = "pensieve_peak_memory_bytes",
            .help = "Largest resident size",
            .labels = {},
            .value = PeakMemoryMb() * (1 << 20)},
           families);
    if (collector_)
      for (const CollectedMetric& metric : collector_()) Append(metric, families);
    for (MetricFamily& family : registry_.Collect()) families.push_back(std::move(family));
    return families;
  }

  Family<Counter>& CounterFamily(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
  }
  Family<Histogram>& HistogramFamily(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
  }

  const std::string version_;
  const Collector collector_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  prometheus::Registry registry_;

  Family<Counter>& http_requests_ = CounterFamily("akidb_http_requests_total", "HTTP requests answered");
  Family<Histogram>& http_seconds_ =
      HistogramFamily("akidb_http_request_duration_seconds", "Time from request to last byte");
  Family<Counter>& grpc_requests_ = CounterFamily("akidb_grpc_requests_total", "gRPC calls answered");
  Family<Histogram>& grpc_seconds_ = HistogramFamily("akidb_grpc_request_duration_seconds", "Time of a gRPC call");

  Family<Counter>& embedding_requests_ = CounterFamily("akidb_embedding_requests_total", "Embedding requests");
  Counter& embedding_errors_ = CounterFamily("akidb_embedding_errors_total", "Embedding requests that failed").Add({});
  Counter& embedding_busy_ =
      CounterFamily("akidb_embedding_busy_rejections_total", "Embedding requests refused because of load").Add({});
  Histogram& embedding_seconds_ =
      HistogramFamily("akidb_embedding_latency_seconds", "Time of an embedding request").Add({}, kEmbeddingBuckets);
  Histogram& embedding_batch_ =
      HistogramFamily("akidb_embedding_batch_size", "Texts of an embedding request").Add({}, kBatchBuckets);
  Counter& embedding_tokens_ =
      CounterFamily("pensieve_embedding_tokens_total", "Tokens of answered embedding requests").Add({});

  Family<Counter>& requests_ = CounterFamily("pensieve_requests_total", "Generations by outcome");
  Family<Counter>& prompt_tokens_ = CounterFamily("pensieve_prompt_tokens_total", "Prompt tokens of generations");
  Family<Counter>& cached_tokens_ =
      CounterFamily("pensieve_cached_prompt_tokens_total", "Prompt tokens taken from the KV cache");
  Family<Counter>& completion_tokens_ = CounterFamily("pensieve_completion_tokens_total", "Tokens generated");
  Family<Histogram>& first_token_s_ =
      HistogramFamily("pensieve_time_to_first_token_seconds", "Time from submission to the first token");
  Family<Histogram>& tokens_per_s_ =
      HistogramFamily("pensieve_tokens_per_second", "Generation speed of a request after its first token");

  Mutex totals_mutex_;
  Totals totals_ PENSIEVE_GUARDED_BY(totals_mutex_);
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create(const std::string& version, Collector collector) {
  return std::make_unique<PrometheusMetrics>(version, std::move(collector));
}

}  // namespace pensieve
