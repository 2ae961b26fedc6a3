// Runs a parsed template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "chat/jinja_ast.h"
#include "chat/jinja_runtime.h"

namespace pensieve::chat::jinja {

// A global, and where its strings come from.
struct Variable {
  Variable(std::string name_, Json value_, Origin origin_ = kFromTemplate, bool numbered_ = false)
      : name(std::move(name_)), value(std::move(value_)), origin(origin_), numbered(numbered_) {}

  std::string name;
  Json value;
  Origin origin;
  // The value is an array of messages, and the strings of message i come from `origin` + i. A role that is one plain
  // word counts as the template's own: it can spell nothing, and templates write it into the headers of turns.
  bool numbered;
};

struct RenderContext {
  // Visible as globals, in order; later ones win.
  std::vector<Variable> variables;
  // What strftime_now() shows, in seconds since 1970; rendered in local time.
  int64_t now_s = 0;
  Limits limits;
};

// Thread-safe: the tree is only read. InvalidArgument "line N: ..." for every error of the template, raise_exception's
// message alone for that one.
Result<TracedText> RenderTemplate(const Block& block, const RenderContext& context);

}  // namespace pensieve::chat::jinja
