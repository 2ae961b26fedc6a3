// The parts of AddJsonSchema. Internal to chat/.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "chat/json_automata.h"
#include "chat/schema_facts.h"
#include "sampling/grammar.h"

namespace pensieve::chat {

// From places in a document to nodes of a grammar. A place is a list of schemas that all hold there; equal places are
// one node, so that references may be recursive. Not thread-safe.
class SchemaCompiler {
 public:
  using NodeId = sampling::NodeId;

  // All must outlive the compiler.
  SchemaCompiler(sampling::GrammarBuilder& builder, const SchemaReader& reader, sampling::Budget& budget)
      : builder_(builder), reader_(reader), budget_(budget), automata_(JsonAutomata::Get()) {}

  Result<NodeId> Compile(SchemaParts parts);

 private:
  friend class ObjectCompiler;

  // The node of a place, which is made later.
  NodeId NodeFor(SchemaParts parts);
  Result<NodeId> Make(const SchemaParts& parts);
  Result<NodeId> MakeAlternatives(const SchemaFacts& facts);
  Result<NodeId> MakeValues(const SchemaFacts& facts);
  Result<NodeId> MakeType(const SchemaFacts& facts, uint32_t type);
  Result<NodeId> MakeString(const SchemaFacts& facts);
  Result<NodeId> MakeNumber(const SchemaFacts& facts);
  Result<NodeId> MakeArray(const SchemaFacts& facts);
  Result<NodeId> MakeUniqueArray(const SchemaFacts& facts, const SchemaParts& item);
  Result<NodeId> MakeObject(const SchemaFacts& facts);

  // Values that are in all lists and satisfy the rest.
  Result<std::vector<const Json*>> AllowedValues(const SchemaFacts& facts);
  Result<NodeId> LiteralValue(const Json& value);
  Result<NodeId> LiteralSet(const std::vector<std::string>& texts);
  // Texts (JSON strings in their one spelling) that the facts allow.
  Result<sampling::Dfa> StringAutomaton(const SchemaFacts& facts);
  Result<sampling::Dfa> PatternAutomaton(const std::string& pattern, bool whole);
  // Whether no value can satisfy both; false when that is not sure.
  Result<bool> AreDisjoint(const SchemaParts& a, const SchemaParts& b, int depth);
  Result<bool> AreDisjointTypes(const SchemaFacts& a, const SchemaFacts& b, uint32_t type, int depth);

  sampling::GrammarBuilder& builder_;
  const SchemaReader& reader_;
  sampling::Budget& budget_;
  const JsonAutomata& automata_;
  std::map<SchemaParts, NodeId> nodes_;
  std::deque<std::pair<SchemaParts, NodeId>> open_;
  std::map<std::pair<std::string, bool>, sampling::Dfa> patterns_;  // as they were compiled
};

// The schemas of a named property, of all others, and of array items, of one part; absent: anything.
const Json* Find(const Json& schema, const char* keyword);
SchemaParts ItemParts(const SchemaFacts& facts, size_t position);
SchemaParts PropertyParts(const SchemaFacts& facts, const std::string& name, const std::vector<std::string>& matching);
bool IsImpossible(const SchemaParts& parts);

// InvalidArgument that begins with the keyword.
Status RefuseKeyword(const std::string& keyword, std::string_view why);
// Errors of the automata, with the keyword in front.
Status AtKeyword(const std::string& keyword, const Status& error);

}  // namespace pensieve::chat
