#include "base/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

namespace pensieve {
namespace {

// The end of the string whose opening quote stands at `quote`, or of the text.
size_t StringEnd(std::string_view text, size_t quote) {
  for (size_t at = quote + 1; at < text.size(); ++at) {
    if (text[at] == '\\') ++at;
    else if (text[at] == '"') return at + 1;
  }
  return text.size();
}

// Checks depth, duplicate keys, number of keys and syntax in one pass that builds nothing, so that a hostile document costs no memory.
class Checker : public nlohmann::json_sax<Json> {
 public:
  explicit Checker(const JsonLimits& limits) : limits_(limits) {}
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    key_counts_.push_back(0);
    return Enter();
  }
  bool end_object() override {
    key_counts_.pop_back();
    return Leave();
  }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& key) override {
    key_comparisons_ += key_counts_.back()++;
    if (key_comparisons_ > limits_.key_comparisons_max) {
      error_ = "too many keys in one object";
      return false;
    }
    if (!limits_.refuse_duplicate_keys || keys_.back().insert(key).second) return true;
    error_ = fmt::format("duplicate key \"{}\"", key);
    return false;
  }
  bool parse_error(std::size_t position, const std::string& last_token, const nlohmann::json::exception&) override {
    error_ = fmt::format("syntax error at byte {} near \"{}\"", position, last_token.substr(0, 40));
    return false;
  }

 private:
  bool Enter() {
    if (++depth_ > limits_.depth_max) {
      error_ = fmt::format("nested deeper than {} levels", limits_.depth_max);
      return false;
    }
    if (limits_.refuse_duplicate_keys) keys_.emplace_back();
    return true;
  }
  bool Leave() {
    --depth_;
    if (limits_.refuse_duplicate_keys) keys_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  int depth_ = 0;
  int64_t key_comparisons_ = 0;
  std::vector<int64_t> key_counts_;          // of each open object
  std::vector<std::set<std::string>> keys_;  // of each open object; arrays hold an empty one
  std::string error_;
};

}  // namespace

int64_t CountJsonValues(std::string_view text, bool inside_strings) {
  int64_t count = 1;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' && !inside_strings) {
      at = StringEnd(text, at);
      continue;
    }
    count += c == ',' || c == ':' || c == '[' || c == '{';
    ++at;
  }
  return count;
}

Result<Json> ParseJson(std::string_view text, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.values_max && CountJsonValues(text) > limits.values_max)
    return InvalidArgument(fmt::format("the JSON has more than {} values and keys", limits.values_max));
  Checker checker(limits);
  if (!Json::sax_parse(text, &checker)) {
    return InvalidArgument(checker.error().empty() ? "not valid JSON" : "not valid JSON: " + checker.error());
  }
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace pensieve
