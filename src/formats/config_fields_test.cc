#include "formats/config_fields.h"

#include <gtest/gtest.h>

#include "formats/test_files.h"

namespace pensieve::formats {
namespace {

Json Parse(const char* text) { return *ParseJson(text); }

TEST(ConfigFields, ReadsTypedValuesAndDefaults) {
  const Json json =
      Parse(R"({"i":5,"f":1.5,"whole":3.0,"b":true,"s":"x","n":null,"list":[1,2.5],"ids":[1,2],"names":["a"],)"
            R"("in":{"i":9}})");
  ConfigFields fields("config.json", json);
  EXPECT_EQ(fields.RequiredInt("i", {0, 10}), 5);
  EXPECT_EQ(fields.Int("whole", 0, {}), 3);
  EXPECT_EQ(fields.Int("n", 7, {}), 7);
  EXPECT_EQ(fields.Float("f", 0), 1.5);
  EXPECT_EQ(fields.Float("i", 0), 5.0);
  EXPECT_TRUE(fields.Bool("b", false));
  EXPECT_EQ(fields.String("s", ""), "x");
  EXPECT_EQ(fields.Floats("list", 4), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(fields.IntOrInts("ids", {}, 4), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(fields.IntOrInts("i", {}, 4), std::vector<int64_t>{5});
  EXPECT_EQ(fields.Strings("names", 4), std::vector<std::string>{"a"});
  EXPECT_EQ(fields.Object("in").RequiredInt("i", {}), 9);
  EXPECT_FALSE(fields.Object("absent").Has("i"));
  EXPECT_TRUE(fields.status().ok());
}

TEST(ConfigFields, KeepsTheFirstErrorWithFileAndField) {
  const Json json =
      Parse(R"({"i":"five","huge":18446744073709551615,"f":"x","b":1,"s":2,"list":[1,"x"],"o":3,"in":{"i":-1}})");
  const auto message = [&](auto read) {
    ConfigFields fields("config.json", json);
    read(fields);
    EXPECT_FALSE(fields.status().ok());
    EXPECT_EQ(fields.status().code(), StatusCode::kDataLoss);
    return fields.status().message();
  };
  using F = ConfigFields;
  ExpectMessage(message([](F& f) {
                  f.Int("i", 0, {0, 9});
                  f.Bool("b", true);
                }),
                {"config.json: field \"i\"", "between 0 and 9", "five"});
  ExpectMessage(message([](F& f) { f.Int("huge", 0, {}); }), {"\"huge\""});
  ExpectMessage(message([](F& f) { f.RequiredInt("none", {1, 2}); }), {"\"none\" is missing"});
  ExpectMessage(message([](F& f) { f.Float("f", 0); }), {"\"f\"", "finite number"});
  ExpectMessage(message([](F& f) { f.Bool("b", true); }), {"\"b\"", "true or false"});
  ExpectMessage(message([](F& f) { f.String("s", ""); }), {"\"s\"", "string"});
  ExpectMessage(message([](F& f) { f.Floats("list", 9); }), {"\"list\"", "list"});
  ExpectMessage(message([](F& f) { f.Strings("list", 9); }), {"\"list\"", "strings"});
  ExpectMessage(message([](F& f) { f.IntOrInts("list", {}, 9); }), {"\"list\""});
  ExpectMessage(message([](F& f) { f.Object("o"); }), {"\"o\"", "object"});
  ExpectMessage(message([](F& f) {
                  F in = f.Object("in");
                  in.Int("i", 0, {0, 5});
                  f.Absorb(in);
                }),
                {"\"in.i\"", "-1"});
}

TEST(ConfigFields, ReadsOnlyObjects) {
  const TempDirectory dir;
  EXPECT_TRUE(ReadJsonObject(dir.Write("a.json", "{}"), 100).has_value());
  ExpectMessage(ReadJsonObject(dir.Write("a.json", "[]"), 100).error().message(), {"a.json", "object"});
  ExpectMessage(ReadJsonObject(dir.Write("a.json", "{"), 100).error().message(), {"a.json", "JSON"});
  ExpectMessage(ReadJsonObject(dir.Write("a.json", "{      }"), 4).error().message(), {"a.json", "4"});
}

}  // namespace
}  // namespace pensieve::formats
