#include "chat/json_automata.h"

#include <array>

#include "base/check.h"
#include "chat/pattern.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Dfa;
using sampling::DfaPtr;

#define PENSIEVE_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define PENSIEVE_HOST PENSIEVE_LABEL "(?:\\." PENSIEVE_LABEL "){0,3}"
#define PENSIEVE_DATE                                                                                                 \
  "[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|" \
  "1[0-9]|2[0-8]))"
#define PENSIEVE_CLOCK "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
#define PENSIEVE_TIME PENSIEVE_CLOCK ":[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-]" PENSIEVE_CLOCK ")"
#define PENSIEVE_N "[0-9]{1,4}"
#define PENSIEVE_HMS \
  "T(?:" PENSIEVE_N "H(?:" PENSIEVE_N "M(?:" PENSIEVE_N "S)?)?|" PENSIEVE_N "M(?:" PENSIEVE_N "S)?|" PENSIEVE_N "S)"
#define PENSIEVE_OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define PENSIEVE_H "[0-9A-Fa-f]{1,4}"
#define PENSIEVE_PCHAR "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define PENSIEVE_PATH "(?:/" PENSIEVE_PCHAR "*)*(?:\\?(?:" PENSIEVE_PCHAR "|[/?])*)?(?:#(?:" PENSIEVE_PCHAR "|[/?])*)?"
#define PENSIEVE_URI "[A-Za-z][A-Za-z0-9+.-]*://" PENSIEVE_HOST "(?::[0-9]{1,5})?" PENSIEVE_PATH
#define PENSIEVE_EMAIL                                                                                               \
  "[A-Za-z0-9_%+-]{1,32}(?:\\.[A-Za-z0-9_%+-]{1,16}){0,1}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?\\.){1,3}" \
  "[A-Za-z]{2,8}"

// Each gives only texts that every reading of its standard accepts, though not all of them.
constexpr std::pair<const char*, const char*> kFormats[] = {
    {"date", PENSIEVE_DATE},
    {"time", PENSIEVE_TIME},
    {"date-time", PENSIEVE_DATE "T" PENSIEVE_TIME},
    {"duration", "P(?:" PENSIEVE_N "W|" PENSIEVE_HMS "|(?:" PENSIEVE_N "D|" PENSIEVE_N "M(?:" PENSIEVE_N
                 "D)?|" PENSIEVE_N "Y(?:" PENSIEVE_N "M(?:" PENSIEVE_N "D)?)?)(?:" PENSIEVE_HMS ")?)"},
    {"email", PENSIEVE_EMAIL},
    {"idn-email", PENSIEVE_EMAIL},
    {"hostname", PENSIEVE_HOST},
    {"idn-hostname", PENSIEVE_HOST},
    {"ipv4", PENSIEVE_OCTET "(?:\\." PENSIEVE_OCTET "){3}"},
    {"ipv6", "(?:" PENSIEVE_H ":){7}" PENSIEVE_H "|(?:" PENSIEVE_H ":){1,7}:|(?:" PENSIEVE_H ":){1,6}:" PENSIEVE_H
             "|(?:" PENSIEVE_H ":){1,5}(?::" PENSIEVE_H "){1,2}|(?:" PENSIEVE_H ":){1,4}(?::" PENSIEVE_H
             "){1,3}|(?:" PENSIEVE_H ":){1,3}(?::" PENSIEVE_H "){1,4}|(?:" PENSIEVE_H ":){1,2}(?::" PENSIEVE_H
             "){1,5}|" PENSIEVE_H ":(?::" PENSIEVE_H "){1,6}|:(?::" PENSIEVE_H "){1,7}|::"},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    {"uri", PENSIEVE_URI},
    {"iri", PENSIEVE_URI},
    {"uri-template", PENSIEVE_URI},
    {"uri-reference", PENSIEVE_URI "|" PENSIEVE_PATH},
    {"iri-reference", PENSIEVE_URI "|" PENSIEVE_PATH},
    {"json-pointer", "(?:/(?:[^~/]|~[01])*)*"},
    {"relative-json-pointer", "(?:0|[1-9][0-9]{0,8})(?:#|(?:/(?:[^~/]|~[01])*)*)"},
    {"byte", "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"},
    {"base64", "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"},
    {"base64url", "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?"},
};

// What is made here does not depend on any input: a failure is a bug.
DfaPtr Made(Result<Dfa> dfa) {
  PENSIEVE_CHECK(dfa.has_value());
  return std::make_shared<const Dfa>(*std::move(dfa));
}

DfaPtr FromPattern(const std::string& pattern) {
  Budget budget(1 << 20);
  return Made(CompilePattern(pattern, /*whole=*/true, Spelling::kPlain, budget));
}

JsonAutomata Make() {
  constexpr const char* kBlanks = "(?: |\\n[ \\t]{0,32})?";
  Budget budget(1 << 22);
  JsonAutomata made;
  made.string = Made(JsonString(/*any_spelling=*/true, budget));
  made.canonical_string = Made(JsonString(/*any_spelling=*/false, budget));
  made.number = Made(JsonNumber({}, budget));
  made.integer = Made(JsonNumber({.integer = true, .min = {}, .max = {}, .fraction_digits = {}}, budget));
  made.boolean = FromPattern("true|false");
  made.null = FromPattern("null");
  made.open_object = FromPattern(std::string("\\{") + kBlanks);
  made.close_object = FromPattern(std::string(kBlanks) + "\\}");
  made.open_array = FromPattern(std::string("\\[") + kBlanks);
  made.close_array = FromPattern(std::string(kBlanks) + "\\]");
  made.comma = FromPattern(std::string(kBlanks) + "," + kBlanks);
  made.colon = FromPattern(std::string(kBlanks) + ":" + kBlanks);
  auto key = JsonString(/*any_spelling=*/false, budget);
  PENSIEVE_CHECK(key.has_value());
  key->set_counting_state(Dfa::kDead);
  PENSIEVE_CHECK(key->FindReach(0).ok());
  made.any_key = Made(std::move(key));
  return made;
}

}  // namespace

const JsonAutomata& JsonAutomata::Get() {
  static const JsonAutomata automata = Make();
  return automata;
}

const char* FormatPattern(const std::string& format) {
  for (const auto& [name, pattern] : kFormats) {
    if (format == name) return pattern;
  }
  return nullptr;
}

}  // namespace pensieve::chat
