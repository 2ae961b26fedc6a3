// The engine against real jinja2: tests/data/chat/*.json are written by tools/chat_golden.py.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <thread>

#include "base/json.h"
#include "base/mapped_file.h"
#include "chat/jinja_evaluator.h"
#include "chat/jinja_parser.h"
#include "chat/jinja_print.h"

namespace pensieve::chat::jinja {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

Json ReadGolden(const std::string& name) {
  const auto text = ReadFile(std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/chat/" + name, 16 << 20);
  EXPECT_TRUE(text.has_value()) << text.error().ToString();
  auto json = ParseJson(*text);
  EXPECT_TRUE(json.has_value()) << json.error().ToString();
  return *std::move(json);
}

Result<std::string> Render(const std::string& source, const Json& context = Json::object(), int64_t now_s = 0,
                           const Limits& limits = {}) {
  PENSIEVE_TRY(const Block block, ParseTemplate(source));
  RenderContext render;
  for (const auto& [name, value] : context.items()) render.variables.emplace_back(name, value);
  render.now_s = now_s;
  render.limits = limits;
  PENSIEVE_TRY(const TracedText text, RenderTemplate(block, render));
  return text.bytes();
}

std::string ErrorOf(const std::string& source, const Limits& limits = {}) {
  const auto text = Render(source, Json::object(), 0, limits);
  if (text.has_value()) return "no error, but: " + text->substr(0, 200);
  EXPECT_EQ(text.error().code(), StatusCode::kInvalidArgument);
  return text.error().message();
}

std::string Fnv1a(const std::string& text) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return fmt::format("{}:{:016x}", text.size(), hash);
}

class Jinja : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

TEST_F(Jinja, RendersOwnTemplatesAsJinja2) {
  const Json golden = ReadGolden("jinja_golden.json");
  ASSERT_GT(golden["cases"].size(), 100u);
  for (const Json& item : golden["cases"]) {
    const std::string source = item["template"];
    const auto text = Render(source, golden["context"], golden["now_s"]);
    if (item.contains("error")) {
      EXPECT_FALSE(text.has_value()) << source << "\njinja2 refuses: " << item["error"] << "\nwe give: " << *text;
      continue;
    }
    ASSERT_TRUE(text.has_value()) << source << "\n" << text.error().ToString();
    EXPECT_EQ(*text, item["output"].get<std::string>()) << source;
  }
}

TEST_F(Jinja, RendersModelTemplatesAsJinja2) {
  const std::filesystem::path folder = std::filesystem::path(PENSIEVE_SOURCE_DIR) / ".." / "shared" / "chat_templates";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no templates of models beside the repository";
  const Json golden = ReadGolden("model_templates_golden.json");
  size_t compared = 0;
  for (const auto& [file, outputs] : golden["outputs"].items()) {
    const auto source = ReadFile((folder / file).string(), kSourceBytesMax);
    if (!source.has_value()) continue;
    for (const auto& [name, wanted] : outputs.items()) {
      const auto text = Render(*source, golden["contexts"][name], golden["now_s"]);
      const std::string got = text.has_value() ? Fnv1a(*text) : "error";
      EXPECT_EQ(got, wanted.get<std::string>()) << file << " " << name << "\n"
                                                << (text.has_value() ? *text : text.error().ToString());
      ++compared;
    }
  }
  EXPECT_GT(compared, 1000u);
}

// The request's bytes in brackets. `r` is "Req <x>", `d` {"k": "v"}, `m` two messages.
std::string Traced(const std::string& source) {
  const auto block = ParseTemplate(source);
  if (!block.has_value()) return block.error().ToString();
  RenderContext context;
  context.variables.emplace_back("r", "Req <x>", 1);
  context.variables.emplace_back("d", Json{{"k", "v"}, {"n", 5}}, 1);
  context.variables.emplace_back("m", Json::array({{{"role", "user"}, {"content", "A"}}, {{"role", "<u>"}}}), 2, true);
  const auto text = RenderTemplate(*block, context);
  if (!text.has_value()) return text.error().ToString();
  std::string out;
  size_t begin = 0;
  for (const OriginRun& run : text->Runs()) {
    const std::string bytes = text->bytes().substr(begin, run.end - begin);
    out += run.origin == kFromTemplate ? bytes : "[" + bytes + "]";
    begin = run.end;
  }
  return out;
}

TEST_F(Jinja, TextKnowsWhoWroteIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"a{{ r }}b", "a[Req <x>]b"},
      {"{{ 'a' + r ~ 'b' ~ 1 }}", "a[Req <x>]b1"},
      {"{{ ('  ' + r + '  ') | trim }}.{{ (' ' + r) | upper }}", "[Req <x>]. [REQ <X>]"},
      {"{{ r | replace('<', '(') }}{{ 'a-b' | replace('-', r) }}", "[Req ]([x>]a[Req <x>]b"},
      {"{{ r[1:3] }}{{ r[-1] }}{{ ('ab' + r)[::-1] }}", "[eq>>x< qeR]ba"},
      {"{% set p = ('a ' + r).split(' ') %}{{ p[0] }}|{{ p[1] }}|{{ p | join('+') }}", "a|[Req]|a+[Req]+[<x>]"},
      {"{{ [r, 'c'] | join(', ') }};{{ ', '.join([r, 'c']) }}", "[Req <x>], c;[Req <x>], c"},
      {"{{ d | tojson }}", "{\"[k\": \"v\", \"n\": 5}]"},
      {"{{ {'a': r} | tojson }}", "{\"a\": \"[Req <x>\"}]"},
      {"{{ d }}{{ [r] }}", "{'[k': 'v', 'n': ]5}['[Req <x>']]"},
      {"{{ '%s-%d' | format(r, 3) }}{{ '{} {x}'.format(r, x='y') }}", "[Req <x>]-3[Req <x>] y"},
      {"{{ ('a\n' + r) | indent(2) }}", "a\n  [Req <x>]"},
      {"{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(r) }}{{ f('t') }}", "<[Req <x>]><t>"},
      {"{% set ns = namespace(s='') %}{% for i in range(2) %}{% set ns.s = ns.s + r[0] + '-' %}{% endfor %}{{ ns.s }}",
       "[R]-[R]-"},
      {"{% set b %}x{{ r }}y{% endset %}{{ b }}{% filter lower %}A{{ r }}{% endfilter %}", "x[Req <x>]ya[req <x>]"},
      {"{{ r | title }}{{ r | capitalize }}{{ ('a' + r) | capitalize }}", "[Req <X>Req <x>]A[req <x>]"},
      {"{{ r | e }}{{ 'a' | safe + r }}", "[Req &lt;x&gt;]a[Req &lt;x&gt;]"},
      {"{{ r.center(9, '*') }}{{ 'a'.ljust(3, r[0]) }}{{ r.zfill(8) }}", "*[Req <x>]*a[RR]0[Req <x>]"},
      {"{{ r | list | first }}{{ r | reverse }}{% for c in r %}{{ c }}{% endfor %}", "[R>x< qeRReq <x>]"},
      {"{{ r.partition(' ')[0] }}{{ r.removeprefix('Req') }}{{ r.strip('R>') }}", "[Req <x>eq <x]"},
      {"{{ r if r else 'x' }}{{ nope | default(r) }}{{ r or 'x' }}", "[Req <x>Req <x>Req <x>]"},
      {"{{ (r * 2)[:9] }}{{ d.items() | list | length }}{% for k, v in d | items %}{{ k }}={{ v }} {% endfor %}",
       "[Req <x>Re]2[k]=[v] [n]=5 "},
      {"{{ '{\"a\": \"t\"}' | from_json }}{{ ('{\"a\": \"' + r + '\"}') | from_json }}",
       "{'a': 't'}{'[a': 'Req <x>'}]"},
      // A role of one word is as good as the template's own, any other is the request's.
      {"{% for x in m %}{{ x.role }}:{{ x.content }};{% endfor %}", "user:[A];[<u>]:;"}};
  for (const auto& [source, traced] : cases) EXPECT_EQ(Traced(source), traced) << source;
}

// Every string of the context is given a mark, and no operation of any template may launder it.
TEST_F(Jinja, NoOperationTakesTheRequestsTextForTheTemplates) {
  const std::string mark = "\u2603";
  const std::function<Json(const Json&)> marked = [&](const Json& json) -> Json {
    if (json.is_string()) return mark + json.get<std::string>() + mark;
    Json out = json;
    if (json.is_structured()) {
      for (auto& [key, value] : out.items()) value = marked(value);
    }
    return out;
  };
  const Json golden = ReadGolden("jinja_golden.json");
  size_t marks = 0;
  for (const Json& item : golden["cases"]) {
    const auto block = ParseTemplate(item["template"].get<std::string>());
    if (!block.has_value()) continue;
    RenderContext context;
    for (const auto& [name, value] : golden["context"].items()) context.variables.emplace_back(name, marked(value), 1);
    const auto text = RenderTemplate(*block, context);
    if (!text.has_value()) continue;
    size_t begin = 0;
    for (const OriginRun& run : text->Runs()) {
      const std::string bytes = text->bytes().substr(begin, run.end - begin);
      begin = run.end;
      if (bytes.find(mark) == std::string::npos) continue;
      ++marks;
      EXPECT_NE(run.origin, kFromTemplate) << item["template"] << "\n" << bytes;
    }
    EXPECT_EQ(begin, text->size());
  }
  EXPECT_GT(marks, 50u);
}

TEST_F(Jinja, ErrorsNameLineAndConstruct) {
  EXPECT_EQ(ErrorOf("a\nb\n{% bogus %}"), "line 3: unknown or misplaced tag 'bogus'");
  EXPECT_THAT(ErrorOf("{% if true %}\n"), HasSubstr("missing its 'endif'"));
  EXPECT_EQ(ErrorOf("\n{{ 1 + }}"), "line 2: unexpected '}}', expected an expression");
  EXPECT_EQ(ErrorOf("{{ 'open }}"), "line 1: a string is not closed");
  EXPECT_EQ(ErrorOf("{{ x\n"), "line 1: unexpected end of template inside a tag");
  EXPECT_EQ(ErrorOf("\n\n{{ nope.x }}"), "line 3: 'nope' is undefined");
  EXPECT_EQ(ErrorOf("{{ {}.a.b }}"), "line 1: 'dict object' has no attribute 'a'");
  EXPECT_EQ(ErrorOf("{{ x|nofilter }}"), "line 1: No filter named 'nofilter'.");
  EXPECT_EQ(ErrorOf("{{ x is notest }}"), "line 1: No test named 'notest'.");
  EXPECT_EQ(ErrorOf("{% if true %}{{ raise_exception('Only users!') }}{% endif %}"), "Only users!");
  EXPECT_EQ(ErrorOf("{% break %}"), "line 1: 'break' outside of a loop");
  EXPECT_EQ(ErrorOf("{% set x is not defined %}{% endset %}"), "line 1: unexpected 'is', expected '%}'");
  EXPECT_EQ(ErrorOf("{% filter upper is defined %}{% endfilter %}"), "line 1: unexpected 'is', expected '%}'");
}

TEST_F(Jinja, ListsCanBeChanged) {
  EXPECT_EQ(*Render("{% set l = [1] %}{% set _ = l.append(2) %}{{ l.pop(0) }}{{ l }}"), "1[2]");
  EXPECT_EQ(*Render("{% set d = {'a': 1} %}{{ d.update(b=2) }}{{ d.pop('a') }}{{ d }}"), "None1{'b': 2}");
  EXPECT_EQ(*Render("{{ '{\"a\": [1, 2.0]}'|from_json }}"), "{'a': [1, 2.0]}");
}

TEST_F(Jinja, CyclesAreRefusedWhenPrinted) {
  EXPECT_THAT(ErrorOf("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}"), HasSubstr("nested deeper"));
  EXPECT_THAT(ErrorOf("{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}"), HasSubstr("nested deeper"));
  EXPECT_THAT(ErrorOf("{% set a = [] %}{% set b = [] %}{% set _ = a.append(b) %}{% set _ = b.append(a) %}{{ a == b }}"),
              HasSubstr("nested deeper"));
}

TEST_F(Jinja, BoundsEverything) {
  const Limits small{.output_bytes_max = 1 << 20, .allocated_bytes_max = 1 << 23, .steps_max = 100'000};
  EXPECT_THAT(ErrorOf("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nests deeper"));
  EXPECT_THAT(ErrorOf("{% for i in range(100001) %}{% endfor %}"), HasSubstr("Range too big"));
  EXPECT_THAT(ErrorOf("{{ 'x' * 100000000 }}"), HasSubstr("too long"));
  EXPECT_THAT(ErrorOf("{{ [1] * 1000000000 }}"), HasSubstr("too long"));
  EXPECT_THAT(ErrorOf("{% set x = 'aaaaaaaaaa' * 1000000 %}{{ x.replace('a', 'bbbbbbbbbb') }}"), HasSubstr("too long"));
  EXPECT_THAT(ErrorOf("{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(40) %}"
                      "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
                      small),
              HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", small),
              HasSubstr("the template"));
  EXPECT_THAT(ErrorOf("{{ 2 ** 1000 }}"), HasSubstr("out of range"));
  EXPECT_THAT(ErrorOf("{% for i in range(1000) %}0123456789{% endfor %}", Limits{.output_bytes_max = 5000}),
              HasSubstr("passes 5000 bytes"));
  // Shared values that would take forever to compare or to print.
  const std::string doubling =
      "{% set ns = namespace(a=[], b=[]) %}{% for i in range(150) %}"
      "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
  EXPECT_THAT(ErrorOf(doubling + "{{ ns.a == ns.b }}"), HasSubstr("comparison"));
  EXPECT_THAT(ErrorOf(doubling + "{{ ns.a }}", small), HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf(doubling + "{{ ns.a|tojson }}", small), HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf("{{ 'a'.ljust(1000000000) }}"), HasSubstr("too large"));
}

TEST_F(Jinja, BoundsTheSource) {
  EXPECT_THAT(ErrorOf(std::string(kSourceBytesMax + 1, 'x')), HasSubstr("bytes"));
  EXPECT_TRUE(Render(std::string(kSourceBytesMax, 'x')).has_value());
  const auto repeated = [](const char* text, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += text;
    return all;
  };
  for (const auto& source :
       {"{{ " + repeated("(", 1000) + "1" + repeated(")", 1000) + " }}",
        "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}", "{{ " + repeated("not ", 100000) + "1 }}",
        "{{ " + repeated("-", 100000) + "1 }}", "{{ 1" + repeated("+1", 100000) + " }}",
        "{{ a" + repeated(".b", 100000) + " }}", "{{ a" + repeated("|trim", 100000) + " }}",
        "{{ a" + repeated("()", 100000) + " }}", "{{ 1" + repeated(" if 1 else 1", 50000) + " }}",
        "{{ 1" + repeated(" ** 1", 100000) + " }}", repeated("{% if 1 %}", 50000), repeated("{% for i in x %}", 50000),
        "{% for " + repeated("(", 1000) + "x" + repeated(")", 1000) + " in y %}{% endfor %}"}) {
    EXPECT_THAT(ErrorOf(source), HasSubstr("nested deeper")) << source.substr(0, 40);
  }
  // Flat chains are no nesting.
  EXPECT_TRUE(Render("{{ 1" + repeated(" and 1", 50000) + " }}").has_value());
  EXPECT_TRUE(Render("{{ 1" + repeated(" ~ 1", 50000) + " }}").has_value());
}

TEST_F(Jinja, DamagedTemplatesNeverCrash) {
  const Json golden = ReadGolden("jinja_golden.json");
  std::mt19937 random(7);
  const Limits small{.output_bytes_max = 1 << 20, .allocated_bytes_max = 1 << 22, .steps_max = 20000};
  for (const Json& item : golden["cases"]) {
    const std::string source = item["template"];
    for (size_t cut = 0; cut < source.size(); cut += 3) {
      (void)Render(source.substr(0, cut), golden["context"], 0, small);
      (void)Render(source.substr(cut), golden["context"], 0, small);
    }
    for (int i = 0; i < 30; ++i) {
      std::string damaged = source;
      for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random() % 256);
      (void)Render(damaged, golden["context"], 0, small);
    }
  }
}

TEST_F(Jinja, OneTreeServesManyThreads) {
  const auto block = ParseTemplate("{% for x in list %}{{ x }}{{ 'const' ~ loop.index }}{% endfor %}");
  ASSERT_TRUE(block.has_value());
  std::vector<std::thread> threads;
  std::array<std::string, 4> outputs;
  for (std::string& output : outputs) {
    threads.emplace_back([&] {
      RenderContext context;
      context.variables.emplace_back("list", Json::array({"a", "b"}));
      for (int i = 0; i < 200; ++i) output = RenderTemplate(*block, context)->bytes();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(outputs, testing::Each("aconst1bconst2"));
}

TEST(JinjaPrint, FloatsAsPython) {
  const std::pair<double, const char*> cases[] = {{0, "0.0"},
                                                  {-0.0, "-0.0"},
                                                  {1, "1.0"},
                                                  {0.1, "0.1"},
                                                  {1e15, "1000000000000000.0"},
                                                  {1e16, "1e+16"},
                                                  {1.5e16, "1.5e+16"},
                                                  {1e-4, "0.0001"},
                                                  {1e-5, "1e-05"},
                                                  {123.456, "123.456"},
                                                  {5e-324, "5e-324"},
                                                  {1.7976931348623157e308, "1.7976931348623157e+308"},
                                                  {1e100, "1e+100"}};
  for (const auto& [number, text] : cases) EXPECT_EQ(FloatRepr(number), text);
}

}  // namespace
}  // namespace pensieve::chat::jinja
