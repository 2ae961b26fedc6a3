// JSON Schema (draft 2020-12, and what earlier drafts and OpenAPI write instead) as a grammar.
//
// Whatever the grammar allows satisfies the schema. Not every valid text is allowed: blanks are few, numbers have at
// most 18 digits, texts under a pattern or format and keys have one spelling only, and a schema without a type whose
// keywords belong to some types allows only these. Properties come in any order. Unknown formats and the keywords that
// no grammar of this kind can enforce are refused: not (but for types and values), if, dependentSchemas, contains,
// uniqueItems (but for a list of values), unevaluatedItems, $dynamicRef, and oneOf whose alternatives may overlap.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "sampling/grammar.h"

namespace pensieve::chat {

// The node of a JSON value that satisfies `schema`; with `object_only`, one that is an object, too. InvalidArgument
// that begins with the keyword's name, ResourceExhausted when the budget is used up. `schema` is not needed afterwards.
Result<sampling::NodeId> AddJsonSchema(sampling::GrammarBuilder& builder, const Json& schema, bool object_only,
                                       sampling::Budget& budget);

}  // namespace pensieve::chat
