// Ids that are unique over processes and machines. Thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace pensieve {

// `prefix` and 24 letters or digits, more than 128 random bits: "msg_01h4...". Clients merge messages that share an id,
// so these never repeat.
std::string NewId(std::string_view prefix);

}  // namespace pensieve
