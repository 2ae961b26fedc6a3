#include "chat/json_schema.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chat/closed_schema.h"
#include "chat/grammar_text.h"
#include "chat/json_automata.h"
#include "chat/pattern.h"
#include "sampling/constraint.h"
#include "sampling/constraint_fixture.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Grammar;
using sampling::GrammarBuilder;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int64_t kBudget = 1'500'000;

Result<std::shared_ptr<const Grammar>> Compile(const std::string& schema, bool object_only = false,
                                               int64_t steps = kBudget) {
  Budget budget(steps);
  GrammarBuilder builder(budget);
  PENSIEVE_TRY(const Json json, ParseJson(schema, {.depth_max = 1000}));
  PENSIEVE_TRY(const auto root, AddJsonSchema(builder, json, object_only, budget));
  return builder.Build(root);
}

std::shared_ptr<sampling::TokenMasks> Merged() {
  static const auto vocabulary = sampling::MakeVocabulary(
      {"{\"",  "\":",       "\": ",       "\",",      "\", \"", "\"}", "}}",   "]}",   "[[",  "[1",    ", ",
       "true", "false",     "null",       "12",       "3.",     ".5",  "ab",   "abc",  "foo", "\"foo", "\"foo\":",
       "bar",  "\"bar\": ", "\xC3\xA9\"", "\xE2\x82", "\xAC",   "\\u", "\\\"", "\n  ", " \"", "-1",    "00",
       "a\"",  "\"a\":1",   "2024",       "-0",       "1}",     "1,",  "\"\"", "{}",   "[]"});
  return vocabulary;
}

struct Case {
  const char* schema;
  std::vector<std::string> good;
  std::vector<std::string> bad;
};

void ExpectCase(const Case& each) {
  const auto grammar = Compile(each.schema);
  ASSERT_TRUE(grammar.has_value()) << each.schema << ": " << grammar.error().ToString();
  for (const std::string& text : each.good) {
    EXPECT_TRUE(sampling::Matches(**grammar, text)) << each.schema << " " << text;
    const auto& trie = Merged()->trie();
    auto constraint = sampling::NewGrammarConstraint(*grammar, Merged());
    EXPECT_TRUE(sampling::Takes(*constraint, trie, text)) << each.schema << " " << text;
    constraint = constraint->Clone();
    for (const int32_t id : sampling::Segment(trie, text)) {
      ASSERT_EQ(sampling::FirstDisagreement(*constraint, trie), -1) << each.schema << " " << text;
      ASSERT_TRUE(constraint->Accept(id)) << each.schema << " " << text;
    }
  }
  for (const std::string& text : each.bad) {
    EXPECT_FALSE(sampling::Matches(**grammar, text)) << each.schema << " " << text;
    EXPECT_FALSE(sampling::Takes(*sampling::NewGrammarConstraint(*grammar, Merged()), Merged()->trie(), text))
        << each.schema << " " << text;
  }
}

// Instances are written as an answer would spell them.
TEST(JsonSchema, AllowsWhatSatisfiesTheSchema) {
  const std::vector<Case> cases = {
      {"{}",
       {"null", "[]", "{\"a\": [1, {}]}", "\"\\u00e9\xC3\xA9\\n\"", "-0.5e+10", "true"},
       {"", "nul", "01", "[1,]"}},
      {"true", {"1"}, {""}},
      {R"({"type": "integer"})", {"0", "-12", "100"}, {"1.5", "01", "-", "\"1\"", "-0"}},
      {R"({"type": "number"})", {"0", "-12.5", "1e5", "0.25E-3"}, {"1.", ".5", "+1", "1e", "NaN"}},
      {R"({"type": ["string", "null"]})", {"null", "\"\""}, {"1", "\"", "[]"}},
      {R"({"type": "boolean"})", {"true", "false"}, {"null", "tru"}},
      {R"({"const": {"foo": [1, "a"], "bar": null}})",
       {R"({"foo": [1, "a"], "bar": null})", R"({"bar":null,"foo":[1,"a"]})"},
       {R"({"foo": [1, "a"]})", R"({"foo": [1, "b"], "bar": null})", "{}"}},
      {R"({"enum": ["foo", 1, null, [2], true]})", {"\"foo\"", "1", "null", "[2]", "true"}, {"2", "\"fo\"", "[]"}},
      {R"({"enum": ["a", 1, 2.5, "b"], "type": "string"})", {"\"a\"", "\"b\""}, {"1", "2.5"}},
      {R"({"enum": ["a", "abc", "abcd"], "maxLength": 3, "minLength": 2})", {"\"abc\""}, {"\"a\"", "\"abcd\""}},
      {R"({"enum": [1, 2, 3, 4], "minimum": 2, "not": {"enum": ["x"]}, "type": "integer"})", {"2", "4"}, {"1", "5"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, Strings) {
  const std::vector<Case> cases = {
      {R"({"minLength": 2, "maxLength": 3})",
       {"\"ab\"", "\"\xE2\x82\xAC\xC3\xA9\"", "\"a\\u00e9b\"", "\"\\ud83d\\ude00a\""},
       {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\"", "\"\\ud83da\"", "1"}},
      {R"({"type": "string", "maxLength": 0})", {"\"\""}, {"\"a\""}},
      {R"({"pattern": "^a*$"})", {"\"\"", "\"aaa\""}, {"\"ab\"", "\"b\""}},
      {R"({"pattern": "a+"})", {"\"xxaayy\"", "\"a\""}, {"\"x\"", "\"\""}},
      {R"({"pattern": "^(foo|bar)\\d{2,3}$"})", {"\"foo12\"", "\"bar123\""}, {"\"foo1\"", "\"foo1234\"", "\"xfoo12\""}},
      {R"({"pattern": "^\\p{Lu}[^\\s\"]$"})", {"\"\xC3\x89x\"", "\"A\\\\\""}, {"\"ab\"", "\"A \"", "\"A\\\"\""}},
      {R"({"pattern": "^[a-c]+$", "minLength": 2, "maxLength": 4})", {"\"ab\"", "\"abca\""}, {"\"a\"", "\"abcab\""}},
      {R"({"pattern": "^[ab]{2,4}$", "maxLength": 200})", {"\"ab\"", "\"abab\""}, {"\"a\"", "\"ababa\""}},
      {R"({"allOf": [{"pattern": "a"}, {"pattern": "b$"}]})", {"\"ab\"", "\"cacb\""}, {"\"a\"", "\"ba\"", "\"b\""}},
      {R"({"type": "string", "not": {"const": "foo"}})", {"\"fo\"", "\"food\""}, {"\"foo\""}},
      {R"({"type": "string", "not": {"enum": ["", "a"]}})", {"\"ab\""}, {"\"\"", "\"a\""}},
      {R"({"format": "date"})", {"\"2024-02-28\""}, {"\"2024-13-01\"", "\"2024-02-30\"", "\"2024-2-1\""}},
      {R"({"format": "date-time"})",
       {"\"2024-02-28T23:59:59Z\"", "\"2024-02-28T23:59:59.25+01:00\""},
       {"\"2024-02-28\"", "\"2024-02-28T24:00:00Z\""}},
      {R"({"format": "time"})", {"\"12:00:00Z\""}, {"\"12:00\""}},
      {R"({"format": "duration"})", {"\"P1Y2M3DT4H5M6S\"", "\"PT1S\"", "\"P4W\""}, {"\"P\"", "\"PT\"", "\"P1Y2D\""}},
      {R"({"format": "uuid"})",
       {"\"2eb8aa08-aa98-11ea-b4aa-73b441d16380\""},
       {"\"2eb8aa08-aa98-11ea-b4aa73b441d16380\""}},
      {R"({"format": "email"})", {"\"joe.bloggs@example.com\""}, {"\"joe\"", "\".joe@example.com\""}},
      {R"({"format": "ipv4"})", {"\"192.168.0.255\""}, {"\"192.168.0.256\"", "\"1.2.3\"", "\"01.2.3.4\""}},
      {R"({"format": "ipv6"})", {"\"::1\"", "\"fe80::12:3\"", "\"1:2:3:4:5:6:7:8\""}, {"\"1:2\"", "\"1::2::3\""}},
      {R"({"format": "hostname"})", {"\"www.example.com\""}, {"\"-a.com\"", "\"a..b\""}},
      {R"({"format": "uri"})", {"\"https://example.com:80/a/b?c=d#e\""}, {"\"//example.com\"", "\"a b\""}},
      {R"({"format": "json-pointer"})", {"\"/a/b~0\"", "\"\""}, {"\"a\"", "\"/~2\""}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, Numbers) {
  const std::vector<Case> cases = {
      {R"({"type": "integer", "minimum": 18, "maximum": 120})", {"18", "99", "120"}, {"17", "121", "180", "1"}},
      {R"({"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 5})", {"-4", "0", "4"}, {"-5", "5", "-10"}},
      {R"({"type": "integer", "minimum": 995})", {"995", "1000", "123456789"}, {"994", "99", "-1000"}},
      {R"({"type": "integer", "maximum": -10})", {"-10", "-99"}, {"-9", "0", "10"}},
      {R"({"minimum": 1.1})", {"1.1", "1.10", "2", "10"}, {"1.0", "0.9", "1", "-2", "1.09"}},
      {R"({"maximum": 3.0})", {"3", "3.0", "2.99", "-100.5"}, {"3.01", "4", "30"}},
      {R"({"exclusiveMaximum": 1, "minimum": 0})", {"0", "0.5", "0.999"}, {"1", "1.0", "-0.1", "-0"}},
      {R"({"exclusiveMinimum": 0})", {"0.1", "1", "0.01"}, {"0", "0.0", "-1"}},
      {R"({"type": "integer", "multipleOf": 7})", {"0", "7", "-14", "700"}, {"1", "15"}},
      {R"({"allOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"})", {"6", "12"}, {"2", "3", "4"}},
      {R"({"multipleOf": 0.01})", {"1", "0.25", "3.1"}, {"0.255"}},
      {R"({"type": "integer", "format": "int32"})", {"2147483647", "-2147483648"}, {"2147483648", "9999999999"}},
      {R"({"type": "integer", "not": {"const": 3}})", {"2", "33"}, {"3"}},
      {R"({"minimum": -1e-3, "maximum": 1e2})", {"-0.001", "100", "99.5"}, {"-0.002", "101"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, Arrays) {
  const std::vector<Case> cases = {
      {R"({"items": {"type": "integer"}})", {"[]", "[1]", "[ 1, 2,\n  3 ]"}, {"[\"a\"]", "[1,]", "[1 2]"}},
      {R"({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3})", {"[1,2]", "[1,2,3]"}, {"[1]", "[1,2,3,4]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}]})",
       {"[]", "[1]", "[1,\"foo\"]", "[1,\"foo\",null]"},
       {"[\"foo\"]", "[1,2]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 1})",
       {"[1]", "[1, \"a\"]"},
       {"[]", "[1,\"a\",2]"}},
      {R"({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 2, "maxItems": 3})",
       {"[1,null]", "[1,null,null]"},
       {"[1]", "[1,1]", "[1,null,null,null]"}},
      {R"({"items": [{"type": "null"}], "additionalItems": {"type": "boolean"}})",
       {"[null,true]"},
       {"[true]", "[null,1]"}},
      {R"({"items": {"enum": ["a", "b", "abc"]}, "uniqueItems": true})", {"[]", "[\"b\",\"a\"]"}, {"[\"a\",\"a\"]"}},
      {R"({"items": {"type": "boolean"}, "uniqueItems": true, "minItems": 2})",
       {"[true,false]"},
       {"[true]", "[true,true]"}},
      {R"({"items": {"type": "array", "items": {"type": "integer"}, "maxItems": 1}})",
       {"[[1],[]]", "[[]]"},
       {"[[1,2]]"}},
      {R"({"items": false})", {"[]"}, {"[1]"}},
      {R"({"type": "array", "maxItems": 18446744073709551615})", {"[1,2]"}, {"1"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, Objects) {
  const std::vector<Case> cases = {
      {R"({"properties": {"foo": {"type": "integer"}, "bar": {"type": "string"}}, "required": ["foo"]})",
       {R"({"foo":1})", R"({"bar": "a", "foo": 1})", R"({"foo": 1, "quux": []})", R"({"fo": 2, "foo": 1})"},
       {"{}", R"({"bar":"a"})", R"({"foo":"a"})", R"({"foo":1,"foo":2})", R"({"foo":1,"bar":1})"}},
      {R"({"properties": {"foo": {}, "bar": {}}, "additionalProperties": false})",
       {"{}", R"({"bar":1,"foo":2})"},
       {R"({"quux":1})", R"({"fo":1})", R"({"foo":1,"foo":1})"}},
      {R"({"properties": {"foo": {"type": "null"}}, "additionalProperties": {"type": "boolean"}})",
       {R"({"foo":null,"ab":true,"abc":false})"},
       {R"({"foo":true})", R"({"ab":null})"}},
      {R"({"patternProperties": {"f.*o": {"type": "integer"}}})",
       {R"({"foo":1,"b":"x"})"},
       {R"({"foo":"a"})", R"({"xfooo":true})"}},
      {R"({"patternProperties": {"a*": {"type": "integer"}, "aaa*": {"maximum": 20}}})",
       {R"({"a":21})", R"({"aaaa":18})"},
       {R"({"aaaa":31})", R"({"a":"x"})"}},
      {R"({"properties": {"foo": {"maximum": 5}}, "patternProperties": {"^f": {"minimum": 3}, "^x$": true},
           "additionalProperties": false})",
       {R"({"foo":4,"fa":9,"x":null})"},
       {R"({"foo":2})", R"({"foo":6})", R"({"y":1})"}},
      {R"({"propertyNames": {"maxLength": 3}})", {R"({"foo":1})"}, {R"({"foobar":1})"}},
      {R"({"propertyNames": {"pattern": "^a+$"}, "additionalProperties": {"type": "integer"}})",
       {R"({"a":1,"aa":2})"},
       {R"({"b":1})"}},
      {R"({"propertyNames": {"enum": ["foo", "bar"]}})", {R"({"foo":1})", "{}"}, {R"({"quux":1})"}},
      {R"({"properties": {"foo": {}, "abcd": {}}, "propertyNames": {"maxLength": 3}})",
       {R"({"foo":1})"},
       {R"({"abcd":1})"}},
      {R"({"type": "object", "minProperties": 1, "maxProperties": 2})",
       {R"({"a":1})", R"({"a":1,"b":2})"},
       {"{}", R"({"a":1,"b":2,"ab":3})"}},
      {R"({"properties": {"a": {}, "b": {}}, "minProperties": 2})",
       {R"({"a":1,"b":2})", R"({"a":1,"x":2})"},
       {R"({"a":1})"}},
      {R"({"dependentRequired": {"bar": ["foo"]}})", {"{}", R"({"foo":1})", R"({"bar":1,"foo":2})"}, {R"({"bar":1})"}},
      {R"({"required": ["foo"], "additionalProperties": {"type": "integer"}})",
       {R"({"foo":1})"},
       {R"({"foo":"a"})", "{}"}},
      {R"({"properties": {"foo\nbar": {"type": "integer"}, "a\"b": {}}, "additionalProperties": false})",
       {R"({"foo\nbar":1,"a\"b":2})"},
       {R"({"foo bar":1})"}},
      {R"({"properties": {"foo": false, "bar": true}})", {R"({"bar":1})"}, {R"({"foo":1})"}},
      {R"({"allOf": [{"properties": {"foo": {}}}], "properties": {"bar": {}}, "unevaluatedProperties": false})",
       {R"({"foo":1,"bar":2})"},
       {R"({"a":1})"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, CombinesSchemas) {
  const std::vector<Case> cases = {
      {R"({"allOf": [{"properties": {"bar": {"type": "integer"}}, "required": ["bar"]},
                     {"properties": {"foo": {"type": "string"}}, "required": ["foo"]}]})",
       {R"({"foo":"a","bar":2})"},
       {R"({"foo":"a"})", R"({"foo":1,"bar":2})"}},
      {R"({"anyOf": [{"type": "integer"}, {"minimum": 2}]})", {"1", "3", "2.5"}, {"1.5", "\"a\""}},
      {R"({"type": "string", "anyOf": [{"maxLength": 2}, {"minLength": 4}]})",
       {"\"ab\"", "\"abca\""},
       {"\"abc\"", "1"}},
      {R"({"anyOf": [{"properties": {"bar": {"type": "integer"}}, "required": ["bar"]},
                     {"properties": {"foo": {"type": "string"}}, "required": ["foo"]}], "type": "object"})",
       {R"({"bar":2})", R"({"foo":"a"})", R"({"foo":"a","bar":2})"},
       {R"({"foo":2})", "{}"}},
      {R"({"anyOf": [{"const": "a"}, {"const": 1}, {"enum": [null, "b"]}]})", {"\"a\"", "1", "null", "\"b\""}, {"2"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", "\"a\""}, {"1.5", "null"}},
      {R"({"oneOf": [{"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
                     {"properties": {"kind": {"const": "b"}}, "required": ["kind"]}], "type": "object"})",
       {R"({"kind":"a","x":1})", R"({"kind":"b"})", R"({"x":1,"kind":"a"})"},
       {R"({"kind":"a"})", R"({"kind":"c"})"}},
      {R"({"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}]})",
       {"\"ab\"", "\"b\""},
       {"\"c\"", "\"\""}},
      {R"({"oneOf": [{"type": "number", "maximum": 2}, {"type": "number", "exclusiveMinimum": 2}]})",
       {"1", "2", "3"},
       {"\"a\""}},
      {R"({"not": {"type": ["integer", "number", "object", "array"]}})", {"\"a\"", "null"}, {"1", "{}"}},
      {R"({"type": "object", "nullable": true})", {"{}", "null"}, {"1"}},
      {R"({"if": {"type": "integer"}})", {"1", "\"a\""}, {"x"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, FollowsReferences) {
  const std::vector<Case> cases = {
      {R"({"properties": {"foo": {"$ref": "#"}}, "additionalProperties": false})",
       {"{}", R"({"foo":{"foo":{}}})"},
       {R"({"bar":1})", R"({"foo":{"bar":false}})", R"({"foo":1})"}},
      {R"({"$defs": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/b"})", {"5"}, {"\"a\""}},
      {R"({"$defs": {"til~de": {"type": "integer"}, "sl/ash": {"type": "null"}, "per%cent": {"type": "string"}},
           "anyOf": [{"$ref": "#/$defs/til~0de"}, {"$ref": "#/$defs/sl~1ash"}, {"$ref": "#/$defs/per%25cent"}]})",
       {"1", "null", "\"a\""},
       {"true"}},
      {R"({"$defs": {"x": {"$anchor": "here", "type": "null"}, "y": {"$id": "other", "type": "boolean"}},
           "anyOf": [{"$ref": "#here"}, {"$ref": "other"}]})",
       {"null", "true"},
       {"1"}},
      {R"({"$defs": {"a": {"maxItems": 2}}, "$ref": "#/$defs/a", "minItems": 1})", {"[1]"}, {"[]", "[1,1,1]"}},
      {R"({"$defs": {"node": {"type": "object", "required": ["value"], "additionalProperties": false, "properties":
           {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}},
           "$ref": "#/$defs/node"})",
       {R"({"value":1,"next":{"next":null,"value":2}})"},
       {R"({"next":null})", R"({"value":1,"next":{}})"}},
      {R"({"definitions": {"list": {"items": {"$ref": "#/definitions/list"}}}, "$ref": "#/definitions/list"})",
       {"[[],[[]]]"},
       {"[1]"}},
  };
  for (const Case& each : cases) ExpectCase(each);
}

TEST(JsonSchema, CanDemandAnObject) {
  const auto grammar = Compile("{}", /*object_only=*/true);
  ASSERT_TRUE(grammar.has_value());
  EXPECT_TRUE(sampling::Matches(**grammar, "{\"a\":1}"));
  EXPECT_FALSE(sampling::Matches(**grammar, "[]"));
}

TEST(JsonSchema, RefusesWhatCannotBeEnforcedByName) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"not": {"required": ["a"]}})", "not:"},
      {R"({"if": {"type": "integer"}, "then": {"minimum": 2}})", "if:"},
      {R"({"dependentSchemas": {"a": {}}})", "dependentSchemas:"},
      {R"({"contains": {"type": "null"}})", "contains:"},
      {R"({"uniqueItems": true, "type": "array"})", "uniqueItems:"},
      {R"({"unevaluatedItems": false})", "unevaluatedItems:"},
      {R"({"$dynamicRef": "#a"})", "$dynamicRef:"},
      {R"({"format": "regex"})", "format:"},
      {R"({"format": "something"})", "format:"},
      {R"({"pattern": "(?=a)b"})", "pattern:"},
      {R"({"pattern": "(a)\\1"})", "pattern:"},
      {R"({"pattern": "\\bword"})", "pattern:"},
      {R"({"pattern": "(a"})", "pattern:"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]})", "oneOf:"},
      {R"({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"})", "oneOf:"},
      {R"({"multipleOf": 0.3})", "multipleOf:"},
      {R"({"minProperties": 3})", "minProperties:"},
      {R"({"$ref": "https://example.com/schema"})", "$ref:"},
      {R"({"$ref": "#/$defs/none"})", "$ref:"},
      {R"({"type": "strin"})", "type:"},
      {R"({"type": 5})", "type:"},
      {R"({"enum": 5})", "enum:"},
      {R"({"minLength": -1})", "minLength:"},
      {R"({"minLength": 1.5})", "minLength:"},
      {R"({"required": "a"})", "required:"},
      {R"({"properties": {"a": 1}})", "a schema must be"},
      {R"({"allOf": {}})", "allOf:"},
      {R"({"anyOf": []})", "anyOf:"},
      {R"({"minimum": "1"})", "minimum:"},
      {R"({"dependencies": {"a": {"type": "object"}}})", "dependencies:"},
      {R"([1])", "a schema must be"},
      {R"({"properties": {"a": {"items": {"contains": {}}}}})", "contains:"},
  };
  for (const auto& [schema, words] : cases) {
    const auto grammar = Compile(schema);
    ASSERT_FALSE(grammar.has_value()) << schema;
    EXPECT_EQ(grammar.error().code(), StatusCode::kInvalidArgument) << schema;
    EXPECT_THAT(grammar.error().message(), StartsWith(words)) << schema;
  }
}

TEST(JsonSchema, RefusesWhatNothingCanSatisfy) {
  for (const char* schema :
       {"false", R"({"type": "integer", "minimum": 3, "maximum": 2})", R"({"enum": []})",
        R"({"type": "string", "enum": [1]})", R"({"minLength": 3, "maxLength": 2})",
        R"({"minItems": 2, "maxItems": 1})", R"({"properties": {"a": false}, "required": ["a"]})",
        R"({"allOf": [{"type": "string"}, {"type": "null"}]})",
        R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", R"({"pattern": "^a$", "minLength": 2})",
        R"({"required": ["a", "b"], "maxProperties": 1})", R"({"propertyNames": false, "required": ["a"]})"}) {
    const auto grammar = Compile(schema);
    ASSERT_FALSE(grammar.has_value()) << schema;
    EXPECT_THAT(grammar.error().message(), HasSubstr("nothing can satisfy")) << schema;
  }
}

std::string Nested(int depth, const std::string& open, const std::string& inner, const std::string& close) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += inner;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

// Each is refused or compiled within the budget: the steps say what it costs, no clock does.
TEST(JsonSchema, HostileSchemasStayWithinTheBudget) {
  std::string many_values = "{\"enum\": [";
  for (int i = 0; i < 10000; ++i) many_values += (i > 0 ? ",\"value " : "\"value ") + std::to_string(i) + "\"";
  std::string many_constants = "{\"anyOf\": [";
  for (int i = 0; i < 10000; ++i)
    many_constants += (i > 0 ? ",{\"const\": " : "{\"const\": ") + std::to_string(i) + "}";
  std::string chain = "{\"$ref\": \"#/$defs/d0\", \"$defs\": {";
  for (int i = 0; i < 5000; ++i)
    chain += "\"d" + std::to_string(i) + "\": {\"$ref\": \"#/$defs/d" + std::to_string(i + 1) + "\"},";
  chain += "\"d5000\": {}}}";
  std::string product = "{\"allOf\": [";
  for (int i = 0; i < 60; ++i)
    product += std::string(i > 0 ? "," : "") + "{\"anyOf\": [{\"required\": [\"a" + std::to_string(i) +
               "\"]}, {\"required\": [\"b" + std::to_string(i) + "\"]}]}";
  product += "], \"type\": \"object\"}";
  const std::vector<std::pair<std::string, bool>> cases = {
      {many_values + "]}", true},
      {many_constants + "]}", true},
      {chain, false},
      {product, false},
      {R"({"$ref": "#"})", false},
      {R"({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})", false},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", false},
      {R"({"allOf": [{"$ref": "#"}]})", false},
      {R"({"minItems": 18446744073709551615})", false},
      {R"({"minLength": 18446744073709551615})", false},
      {R"({"maxLength": 18446744073709551615})", true},
      {R"({"pattern": "a{18446744073709551615}"})", false},
      {R"({"pattern": "((a{1000}){1000}){1000}"})", false},
      {R"({"pattern": "(a|b)*a(a|b){30}"})", false},
      {R"({"pattern": "(.*)*(.*)*(x+x+)+y"})", true},
      {R"({"pattern": "^(\\p{L}{1,200}){1,200}$"})", false},
      {R"({"pattern": "^[a-z]{1,100}$", "maxLength": 4000, "minLength": 3000, "format": "uri"})", false},
      {Nested(400, R"({"items":)", "{}", "}"), true},
      {Nested(400, R"({"allOf":[)", "{}", "]}"), false},
      {Nested(120, R"({"anyOf":[{"type":"null"},)", "{}", "]}"), true},
  };
  for (const auto& [schema, accepted] : cases) {
    Budget budget(kBudget);
    GrammarBuilder builder(budget);
    const auto json = ParseJson(schema, {.depth_max = 1000});
    ASSERT_TRUE(json.has_value());
    auto root = AddJsonSchema(builder, *json, false, budget);
    const Status status = root.has_value() ? builder.Build(*root).status() : root.error();
    EXPECT_EQ(status.ok(), accepted) << schema.substr(0, 100) << " " << status.ToString();
    EXPECT_GT(budget.left(), -100'000) << schema.substr(0, 100);
  }
}

TEST(GrammarText, ReadsRules) {
  const std::string text = R"(
      # a list
      root  ::= "[" (item ("," " "? item)*)? "]"
      item  ::= number | word | root   # recursive
      number ::= "-"? [1-9] [0-9]{0,2}
      word ::= "\"" [^"\n]+ "\"")";
  Budget budget(kBudget);
  GrammarBuilder builder(budget);
  const auto root = AddGrammarText(builder, text, budget);
  ASSERT_TRUE(root.has_value()) << root.error().ToString();
  const auto grammar = builder.Build(*root);
  ASSERT_TRUE(grammar.has_value()) << grammar.error().ToString();
  const auto& trie = Merged()->trie();
  for (const char* good : {"[]", "[12, 3,[\"\xC3\xA9 a\",[]]]", "[-100]"}) {
    EXPECT_TRUE(sampling::Takes(*sampling::NewGrammarConstraint(*grammar, Merged()), trie, good)) << good;
  }
  for (const char* bad : {"[", "[0]", "[1234]", "[\"\"]", "[1,]", "1"})
    EXPECT_FALSE(sampling::Matches(**grammar, bad)) << bad;
}

TEST(GrammarText, SaysWhatIsWrong) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"", "no rule root"},
      {"a ::= \"x\"", "no rule root"},
      {"root ::= other", "no rule other"},
      {"root ::= \"x", "line 1"},
      {"root ::= (\"x\"", "closing bracket"},
      {"root ::= \"x\")", "opening one"},
      {"\nroot ::= [a", "line 2"},
      {"root ::= \"a\"\nroot ::= \"b\"", "there already"},
      {"root = \"a\"", "::="},
      {"root ::= root \"a\" | \"b\"", "left recursion"},
      {"root ::= \"a\" root", "nothing can satisfy"},
      {"root ::= \"\\q\"", "escape"},
      {"root ::= \"a\"{3,2}", "reverse"},
  };
  for (const auto& [text, words] : cases) {
    Budget budget(kBudget);
    GrammarBuilder builder(budget);
    const auto root = AddGrammarText(builder, text, budget);
    const Status status = root.has_value() ? builder.Build(*root).status() : root.error();
    EXPECT_THAT(status.message(), HasSubstr(words)) << text;
  }
}

TEST(GrammarText, HostileGrammarsStayWithinTheBudget) {
  std::string doubling = "root ::= r0\n";
  for (int i = 0; i < 60; ++i) doubling += fmt::format("r{} ::= r{} r{}\n", i, i + 1, i + 1);
  doubling += "r60 ::= \"a\"\n";
  std::string rules = "root ::= \"a\"\n";
  for (int i = 0; i < 5000; ++i) rules += fmt::format("r{} ::= \"a\"\n", i);
  const std::vector<std::string> cases = {doubling, rules, "root ::= " + std::string(5000, '(') + "\"a\"",
                                          "root ::= \"a\"{1,1000000000}", "root ::= (\"a\"{1000}){1000} root?"};
  for (const std::string& text : cases) {
    Budget budget(kBudget);
    GrammarBuilder builder(budget);
    const auto root = AddGrammarText(builder, text, budget);
    const Status status = root.has_value() ? builder.Build(*root).status() : root.error();
    EXPECT_NE(status.code(), StatusCode::kInternal);
    EXPECT_GT(budget.left(), -200'000);
  }
}

TEST(Regex, MatchesFromBeginningToEnd) {
  Budget budget(kBudget);
  const auto dfa = CompilePattern(R"((\d{4})-\d\d|[^a-z\x20]+$|\u{1F600}|[\w.]+@x)", true, Spelling::kPlain, budget);
  ASSERT_TRUE(dfa.has_value()) << dfa.error().ToString();
  for (const char* good : {"2024-01", "AB", "\xF0\x9F\x98\x80", "a.b@x"}) EXPECT_EQ(dfa->Match(good), 0) << good;
  for (const char* bad : {"2024-0x", "x2024-01", "ab", "A b", "", "@x"}) EXPECT_NE(dfa->Match(bad), 0) << bad;
}

TEST(Regex, AnchorsStandWhereTheTextEnds) {
  Budget budget(kBudget);
  const auto matches = [&](const char* pattern, const char* text) {
    const auto dfa = CompilePattern(pattern, false, Spelling::kJsonString, budget);
    EXPECT_TRUE(dfa.has_value()) << pattern;
    return dfa->Match(text) == 0;
  };
  EXPECT_TRUE(matches("^", "\"ab\""));
  EXPECT_TRUE(matches("^$", "\"\""));
  EXPECT_FALSE(matches("^$", "\"a\""));
  EXPECT_TRUE(matches("(^|,)a", "\"b,a\""));
  EXPECT_TRUE(matches("(^|,)a", "\"ab\""));
  EXPECT_FALSE(matches("(^|,)a", "\"ba\""));
  EXPECT_FALSE(matches("a$b", "\"ab\""));
  EXPECT_FALSE(matches("a^b", "\"ab\""));
  EXPECT_TRUE(matches("^^a|b$$", "\"cb\""));
  EXPECT_TRUE(matches("\"", "\"\\\"\""));
  EXPECT_FALSE(matches("\"", "\"a\""));
}

TEST(TextAutomata, EveryCharacterHasItsUtf8) {
  Budget budget(kBudget);
  sampling::Nfa nfa(budget);
  CodePointSet set;
  set.Add(0x7E, 0x801);
  set.Add(0xFFFE, 0x10002);
  set.Add(0xD7FF, 0xE000);
  set.Normalize();
  const auto dfa = *Determinize(nfa, AddCharacter(nfa, set, Spelling::kPlain), budget);
  for (const char* good : {"~", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xE0\xA0\x81", "\xEF\xBF\xBE",
                           "\xF0\x90\x80\x82", "\xED\x9F\xBF", "\xEE\x80\x80"}) {
    EXPECT_EQ(dfa.Match(good), 0) << good;
  }
  for (const char* bad : {"}", "\xE0\xA0\x82", "\xF0\x90\x80\x83", "\xED\xA0\x80", "\xC0\x80", "\x80"})
    EXPECT_NE(dfa.Match(bad), 0) << bad;
}

TEST(ClosedSchema, ObjectsThatListTheirPropertiesTakeNoOthers) {
  const auto closed = [](const std::string& schema) { return CloseObjects(*ParseJson(schema)).dump(); };
  EXPECT_EQ(closed(R"({"properties":{"a":{}},"required":["a"]})"),
            R"({"properties":{"a":{}},"required":["a"],"additionalProperties":false})");
  EXPECT_EQ(
      closed(R"({"items":{"properties":{"a":{"properties":{"b":{}}}}}})"),
      R"({"items":{"properties":{"a":{"properties":{"b":{}},"additionalProperties":false}},"additionalProperties":false}})");
  EXPECT_EQ(
      closed(R"({"$defs":{"A":{"properties":{"b":{}}}},"anyOf":[{"$ref":"#/$defs/A"},{"type":"null"}]})"),
      R"({"$defs":{"A":{"properties":{"b":{}},"additionalProperties":false}},"anyOf":[{"$ref":"#/$defs/A"},{"type":"null"}]})");
}

TEST(ClosedSchema, WhatMayNeedOthersStaysAsItIs) {
  for (const char* schema : {
           R"({"type":"object"})",                                                  // lists none
           R"({"properties":{}})",                                                  // likewise
           R"({"additionalProperties":{"type":"integer"},"properties":{"a":{}}})",  // says what others are
           R"({"patternProperties":{"^x":{}},"properties":{"a":{}}})",              // likewise
           R"({"properties":{"a":{}},"required":["b"]})",                           // needs another
           R"({"minProperties":2,"properties":{"a":{}}})",                          // likewise
           R"({"allOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]})",        // two lists of one object
           R"({"$defs":{"A":{"properties":{"b":{}}}},"$ref":"#/$defs/A","properties":{"a":{}}})",
           R"({"oneOf":[{"properties":{"b":{}}}],"properties":{"a":{}}})",
           R"({"properties":7})",
           R"([{"properties":{"a":{}}}])",
           "true",
       }) {
    EXPECT_EQ(CloseObjects(*ParseJson(schema)).dump(), ParseJson(schema)->dump()) << schema;
  }
  EXPECT_EQ(CloseParameters(Json()), Json());
  const Json odd = {1, {{"function", 2}}, {{"function", {{"name", 3}}}}};
  EXPECT_EQ(CloseParameters(odd), odd);
}

}  // namespace
}  // namespace pensieve::chat
