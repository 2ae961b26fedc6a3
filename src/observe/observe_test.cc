#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>
#include <thread>

#include "observe/log.h"
#include "observe/metrics.h"
#include "observe/request_log.h"

namespace pensieve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::unique_ptr<Logger> MakeLogger(std::ostream& out, const std::string& format, const std::string& level = "info") {
  auto logger = Logger::Create({.level = level, .format = format, .stream = &out});
  EXPECT_TRUE(logger.has_value());
  return *std::move(logger);
}

TEST(Log, JsonIsOneObjectALine) {
  std::ostringstream out;
  MakeLogger(out, "json")->Info("two\nlines \"quoted\" {}", {{"n", 3}, {"text", "a\nb"}, {"bad", "\xff"}});
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const auto line = ParseJson(text.substr(0, text.size() - 1));
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ((*line)["message"], "two\nlines \"quoted\" {}");
  EXPECT_EQ((*line)["level"], "info");
  EXPECT_EQ((*line)["n"], 3);
  EXPECT_EQ((*line)["text"], "a\nb");
  EXPECT_TRUE(
      std::regex_match((*line)["time"].get<std::string>(), std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)")));
}

TEST(Log, PrettyCannotBeForged) {
  std::ostringstream out;
  MakeLogger(out, "pretty")->Warn("line\nfake", {{"name", "x\r\nid=1"}, {"plain", "abc"}, {"empty", ""}});
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_THAT(text, HasSubstr(R"(line\x0afake name="x\r\nid=1" plain=abc empty="")"));
  EXPECT_THAT(text, HasSubstr("warn"));
}

// A model's name in an error is a client's text: it may neither command the terminal nor turn the line around.
TEST(Log, CommandsTheTerminalInNoFormat) {
  const std::string name = "a\x7f\u009b31m\u0085\u2028\u202eb\u2066\u00e9\xff";
  for (const char* format : {"pretty", "json"}) {
    std::ostringstream out;
    MakeLogger(out, format)->Warn("odd " + name, {{"name", name}, {"list", Json::array({name})}});
    const std::string text = out.str();
    for (const char* unsafe : {"\x7f", "\u009b", "\u0085", "\u2028", "\u202e", "\u2066", "\xff"})
      EXPECT_THAT(text, Not(HasSubstr(unsafe))) << format;
    EXPECT_THAT(text, HasSubstr(R"(a\u007f\u009b31m\u0085\u2028\u202eb\u2066)"
                                "\u00e9\ufffd"))
        << format;
    const bool is_json = ParseJson(text.substr(0, text.size() - 1)).has_value();
    EXPECT_EQ(is_json, std::string_view(format) == "json");
  }
}

TEST(Log, LevelsFilter) {
  std::ostringstream out;
  const auto logger = MakeLogger(out, "pretty", "warn");
  EXPECT_FALSE(logger->Enabled(LogLevel::kInfo));
  EXPECT_TRUE(logger->Enabled(LogLevel::kError));
  logger->Info("quiet");
  EXPECT_EQ(out.str(), "");
  EXPECT_FALSE(Logger::Create({.level = "loud"}).has_value());
  EXPECT_FALSE(Logger::Create({.format = "xml"}).has_value());
}

// A stream whose reader can be made to stall: its writer then waits.
class StallingBuffer : public std::stringbuf {
 public:
  void Stall() { stalled_ = true; }
  void WaitForWriter() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_; });
  }
  void GoOn() {
    const std::lock_guard lock(mutex_);
    stalled_ = false;
    changed_.notify_all();
  }

 protected:
  std::streamsize xsputn(const char* text, std::streamsize length) override {
    std::unique_lock lock(mutex_);
    waiting_ = stalled_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !stalled_; });
    waiting_ = false;
    return std::stringbuf::xsputn(text, length);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stalled_ = false;  // guarded by mutex_ once the writer runs
  bool waiting_ = false;  // guarded by mutex_
};

TEST(Log, AStalledReaderHoldsUpNobodyAndLearnsWhatItMissed) {
  StallingBuffer buffer;
  std::ostream out(&buffer);
  const auto logger = *Logger::Create({.format = "json", .stream = &out, .lines_waiting_max = 3});
  buffer.Stall();
  logger->Info("first");
  buffer.WaitForWriter();  // the writer has taken it; three more can wait
  for (int i = 0; i < 10; ++i) logger->Info("more");
  EXPECT_FALSE(logger->Flush(std::chrono::milliseconds(0)));
  buffer.GoOn();
  EXPECT_TRUE(logger->Flush(std::chrono::hours(1)));
  std::istringstream lines(buffer.str());
  std::vector<Json> all;
  for (std::string line; std::getline(lines, line);) all.push_back(*ParseJson(line));
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0]["message"], "first");
  EXPECT_EQ(all[3]["message"], "more");
  EXPECT_THAT(all[4]["message"].get<std::string>(), HasSubstr("dropped"));
  EXPECT_EQ(all[4]["lines"], 7);
  EXPECT_EQ(all[4]["level"], "warn");
}

TEST(Log, LinesThatWaitAreWrittenBeforeTheEnd) {
  std::ostringstream out;
  auto logger = *Logger::Create({.stream = &out, .lines_waiting_max = 1000});
  for (int i = 0; i < 100; ++i) logger->Info("line");
  logger.reset();
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 100);
}

TEST(RequestLog, OneLineWithCountsAndSpeed) {
  std::ostringstream out;
  const auto logger = MakeLogger(out, "json");
  RequestRecord record{.id = "req_1",
                       .method = "POST",
                       .route = "/v1/messages",
                       .model = "m",
                       .status = 200,
                       .outcome = "done",
                       .error = "",
                       .prompt_tokens = 10,
                       .completion_tokens = 11,
                       .first_token_s = 0.5,
                       .total_s = 1.5};
  EXPECT_DOUBLE_EQ(record.TokensPerSecond(), 10.0);
  LogRequest(*logger, record);
  record.completion_tokens = 1;
  EXPECT_EQ(record.TokensPerSecond(), 0);
  record.outcome = "error";
  record.status = 500;
  record.error = "lost";
  LogRequest(*logger, record);
  std::istringstream lines(out.str());
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  const Json a = *ParseJson(first), b = *ParseJson(second);
  EXPECT_EQ(a["id"], "req_1");
  EXPECT_EQ(a["tokens_in"], 10);
  EXPECT_EQ(a["tokens_out"], 11);
  EXPECT_EQ(a["ttft_ms"], 500.0);
  EXPECT_EQ(a["tokens_per_s"], 10.0);
  EXPECT_EQ(a["outcome"], "done");
  EXPECT_EQ(b["level"], "warn");
  EXPECT_EQ(b["error"], "lost");
}

TEST(Metrics, TextHasAkiDbsAndOurNames) {
  const auto metrics = Metrics::Create("1.2.3", [] {
    return std::vector<CollectedMetric>{
        {.name = "pensieve_engine_running", .help = "Running", .labels = {{"model", "a"}}, .value = 2},
        {.name = "pensieve_engine_running", .help = "Running", .labels = {{"model", "b\"\n"}}, .value = 3}};
  });
  metrics->CountHttp("POST", "/v1/messages", 200, 0.02);
  metrics->CountGrpc("akidb.embedding.v1.EmbeddingService", "Embed", "OK", 0.02);
  metrics->CountEmbedding({.ok = true, .texts = 2, .prompt_tokens = 9, .total_s = 0.1});
  metrics->CountEmbedding({.ok = false, .busy = true});
  metrics->CountGeneration({.model = "m",
                            .outcome = "done",
                            .prompt_tokens = 10,
                            .completion_tokens = 5,
                            .first_token_s = 0.1,
                            .total_s = 0.5,
                            .tokens_per_s = 10});
  const std::string text = metrics->PrometheusText();
  for (const char* line :
       {"akidb_build_info{version=\"1.2.3\"} 1", "# TYPE akidb_uptime_seconds counter",
        "akidb_http_requests_total{method=\"POST\",path=\"/v1/messages\",status_code=\"200\"} 1",
        "akidb_http_request_duration_seconds_bucket{method=\"POST\",path=\"/v1/messages\",le=\"0.025\"} 1",
        "akidb_embedding_requests_total{status=\"success\"} 1", "akidb_embedding_requests_total{status=\"error\"} 1",
        "akidb_embedding_busy_rejections_total 1", "akidb_embedding_batch_size_bucket{le=\"2\"} 1",
        "pensieve_engine_running{model=\"a\"} 2", "pensieve_engine_running{model=\"b\\\"\\n\"} 3",
        "pensieve_requests_total{model=\"m\",outcome=\"done\"} 1", "status=\"OK\"} 1"})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(Metrics, JsonCountsOnlyWhatWasServed) {
  const auto metrics = Metrics::Create("1", nullptr);
  metrics->CountGeneration({.model = "m",
                            .outcome = "done",
                            .prompt_tokens = 10,
                            .cached_prompt_tokens = 5,
                            .completion_tokens = 8,
                            .total_s = 2});
  metrics->CountGeneration({.model = "m", .outcome = "refused"});
  metrics->CountGeneration({.model = "m", .outcome = "cancelled", .completion_tokens = 3, .total_s = 1});
  const Json json = metrics->ToJson();
  EXPECT_EQ(json["total_requests"], 1);
  EXPECT_EQ(json["total_tokens"], 8);
  EXPECT_EQ(json["average_tps"], 4.0);
  EXPECT_EQ(json["cache_hit_rate"], 0.5);
  EXPECT_GT(json["peak_memory_mb"].get<double>(), 1);
  EXPECT_EQ(json["metrics"]["pensieve_requests_total"].size(), 3u);
}

TEST(Metrics, CountsFromManyThreads) {
  const auto metrics = Metrics::Create("1", nullptr);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 250; ++i) {
        metrics->CountHttp("GET", "/health", 200, 0.001);
        if (i % 50 != 0) continue;
        EXPECT_THAT(metrics->PrometheusText(), Not(HasSubstr("nan")));
      }
    });
  threads.clear();
  EXPECT_THAT(metrics->PrometheusText(), HasSubstr("path=\"/health\",status_code=\"200\"} 1000"));
}

}  // namespace
}  // namespace pensieve
