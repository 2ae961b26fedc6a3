// Runs a parsed template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "chat/jinja_ast.h"
#include "chat/jinja_runtime.h"

namespace pensieve::chat::jinja {

struct RenderContext {
  // Visible as globals, in order; later ones win.
  std::vector<std::pair<std::string, Json>> variables;
  // What strftime_now() shows, in seconds since 1970; rendered in local time.
  int64_t now_s = 0;
  Limits limits;
};

// Thread-safe: the tree is only read. InvalidArgument "line N: ..." for every error of the template, raise_exception's
// message alone for that one.
Result<std::string> RenderTemplate(const Block& block, const RenderContext& context);

}  // namespace pensieve::chat::jinja
