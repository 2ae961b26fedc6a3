#include "observe/request_log.h"

#include <cmath>

namespace pensieve {
namespace {

double Rounded(double value, double steps) { return std::round(value * steps) / steps; }

}  // namespace

double RequestRecord::TokensPerSecond() const {
  if (completion_tokens < 2 || total_s <= first_token_s) return 0;
  return static_cast<double>(completion_tokens - 1) / (total_s - first_token_s);
}

void LogRequest(Logger& logger, const RequestRecord& record) {
  const bool ours =
      record.outcome == "error" && (record.transport == "http" ? record.status >= 500 : record.status == 13);
  const LogLevel level = ours ? LogLevel::kWarn : LogLevel::kInfo;
  if (!logger.Enabled(level)) return;
  LogFields fields = {{"id", record.id},
                      {"transport", record.transport},
                      {"method", record.method},
                      {"route", record.route},
                      {"status", record.status},
                      {"outcome", record.outcome},
                      {"total_ms", Rounded(record.total_s * 1e3, 10)}};
  if (!record.model.empty()) {
    fields.emplace_back("model", record.model);
    fields.emplace_back("tokens_in", record.prompt_tokens);
    fields.emplace_back("tokens_cached", record.cached_prompt_tokens);
    fields.emplace_back("tokens_out", record.completion_tokens);
  }
  if (record.truncated_texts > 0) {
    fields.emplace_back("tokens_seen", record.prompt_tokens_seen);
    fields.emplace_back("texts_truncated", record.truncated_texts);
  }
  if (record.first_token_s > 0) fields.emplace_back("ttft_ms", Rounded(record.first_token_s * 1e3, 10));
  if (const double rate = record.TokensPerSecond(); rate > 0) fields.emplace_back("tokens_per_s", Rounded(rate, 100));
  if (!record.error.empty()) fields.emplace_back("error", record.error);
  logger.Log(level, "request", fields);
}

}  // namespace pensieve
