// The functions that every template sees.
#pragma once

#include <span>
#include <string_view>
#include <utility>

#include "chat/jinja_runtime.h"

namespace pensieve::chat::jinja {

// First byte of an error whose words come from the template and are shown as they are, without a line number.
constexpr char kVerbatimMark = '\x01';

using GlobalFunction = std::pair<std::string_view, NativeFunction>;

// raise_exception, namespace, dict, range.
std::span<const GlobalFunction> GlobalFunctions();

// datetime.now().strftime(format); `self` holds the time in seconds.
Result<Value> StrftimeNow(Runtime& runtime, const Value& self, const CallArgs& args);

}  // namespace pensieve::chat::jinja
