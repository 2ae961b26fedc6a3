#include "api/record_store.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

TEST(RecordStore, OwnersDoNotSeeEachOther) {
  RecordStore store({});
  EXPECT_TRUE(store.Put("a", "1", "of a"));
  EXPECT_TRUE(store.Put("b", "1", "of b"));
  EXPECT_EQ(store.Get("a", "1"), "of a");
  EXPECT_EQ(store.Get("b", "1"), "of b");
  EXPECT_EQ(store.Get("", "1"), std::nullopt);
  EXPECT_FALSE(store.Erase("c", "1"));
  EXPECT_TRUE(store.Erase("a", "1"));
  EXPECT_FALSE(store.Erase("a", "1"));
  EXPECT_EQ(store.Get("a", "1"), std::nullopt);
  EXPECT_EQ(store.Get("b", "1"), "of b");
  EXPECT_TRUE(store.Put("b", "1", "new"));
  EXPECT_EQ(store.Get("b", "1"), "new");
  EXPECT_EQ(store.records(), 1);
  EXPECT_TRUE(store.Erase("b", "1"));
  EXPECT_EQ(store.bytes(), 0);
}

TEST(RecordStore, TheLeastRecentlyUsedGoesFirst) {
  RecordStore store({.records_max = 3});
  for (const char* id : {"1", "2", "3"}) store.Put("a", id, id);
  EXPECT_TRUE(store.Get("a", "1").has_value());
  store.Put("a", "4", "4");
  EXPECT_FALSE(store.Get("a", "2").has_value());
  for (const char* id : {"1", "3", "4"}) EXPECT_TRUE(store.Get("a", id).has_value()) << id;
}

TEST(RecordStore, WhoeverHoldsMostMakesRoom) {
  RecordStore store({.bytes_max = 100'000});
  store.Put("quiet", "1", "small");
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(store.Put("loud", fmt::format("{}", i), std::string(5000, 'x')));
    EXPECT_LE(store.bytes(), 100'000);
  }
  EXPECT_EQ(store.Get("quiet", "1"), "small");
  EXPECT_TRUE(store.Get("loud", "999").has_value());
  EXPECT_FALSE(store.Get("loud", "0").has_value());
}

TEST(RecordStore, WhatIsLargerThanTheStoreIsNotKept) {
  RecordStore store({.bytes_max = 1000});
  store.Put("a", "1", "small");
  EXPECT_FALSE(store.Put("a", "2", std::string(1000, 'x')));
  EXPECT_TRUE(store.Get("a", "1").has_value());
  RecordStore none({.bytes_max = 0});
  EXPECT_FALSE(none.Put("a", "1", ""));
}

}  // namespace
}  // namespace pensieve::api
