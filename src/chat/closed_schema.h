// JSON Schemas as people write them leave objects open: {"properties": {"city": ...}} allows any other property, too. A model
// that may write others writes them, a small one without end.
#pragma once

#include "base/json.h"

namespace pensieve::chat {

// The schema with "additionalProperties": false in each object that lists its properties and says nothing of others. What
// matches the result matches `schema` as well. Unchanged where parts of a schema that lists properties stand apart (allOf,
// if, not, $ref beside properties, ...): there, closing one part would forbid what another one asks for.
Json CloseObjects(Json schema);
// The same for the parameters of each of `tools`, [{type: "function", function: {name, parameters}}] or null.
Json CloseParameters(Json tools);

}  // namespace pensieve::chat
