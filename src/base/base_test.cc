#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "base/base64.h"
#include "base/bounded_queue.h"
#include "base/half.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/mapped_range.h"
#include "base/status.h"
#include "base/utf8.h"

namespace pensieve {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgument("odd");
  return n / 2;
}

Result<int> Quarter(int n) {
  PENSIEVE_TRY(const int half, Half(n));
  return Half(half);
}

TEST(Result, TryPassesValuesOnAndReturnsErrorsEarly) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().message(), "odd");
  EXPECT_EQ(Quarter(7).error().WithContext("n").message(), "n: odd");
}

TEST(Half, EveryF16ValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F16ToF32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(F32ToF16(value), bits);
  }
}

TEST(Half, F16RoundsToNearestEven) {
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f), 0x3c00);      // tie: down to even
  EXPECT_EQ(F32ToF16(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie: up to even
  EXPECT_EQ(F32ToF16(0x1p-25f), 0x0000);             // tie at half the smallest subnormal
  EXPECT_EQ(F32ToF16(0x1.8p-25f), 0x0001);
}

TEST(Half, Bf16RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(F32ToBf16(1.0f), 0x3f80);
  EXPECT_EQ(F32ToBf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(F32ToBf16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Json, KeepsKeyOrder) {
  const auto json = ParseJson(R"({"z":1,"a":[2,{"y":3,"b":4}]})");
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(DumpJson(*json), R"({"z":1,"a":[2,{"y":3,"b":4}]})");
}

TEST(Json, RefusesWhatIsMalformedDeepOrDuplicate) {
  EXPECT_FALSE(ParseJson("").has_value());
  EXPECT_FALSE(ParseJson("{\"a\":}").has_value());
  EXPECT_FALSE(ParseJson("[1] x").has_value());
  EXPECT_FALSE(ParseJson(std::string(100000, '[')).has_value());
  EXPECT_NE(ParseJson(std::string(200, '[') + std::string(200, ']')).error().message().find("deeper"),
            std::string::npos);
  EXPECT_TRUE(ParseJson(R"({"a":1,"a":2})").has_value());
  EXPECT_FALSE(ParseJson(R"({"a":1,"a":2})", {.refuse_duplicate_keys = true}).has_value());
}

TEST(Json, ManySmallValuesAreRefusedBeforeTheyAreBuilt) {
  std::string empty_lists = "[";
  for (int i = 0; i < 600'000; ++i) empty_lists += "[],";
  const auto refused = ParseJson(empty_lists + "0]");
  EXPECT_EQ(refused.error().message(), "the JSON has more than 1048576 values and keys");
  EXPECT_TRUE(ParseJson(empty_lists + "0]", kFileJson).has_value());
  EXPECT_EQ(ParseJson("[0,1,2,3]", {.values_max = 5}).status(), OkStatus());
  EXPECT_FALSE(ParseJson("[0,1,2,3]", {.values_max = 4}).has_value());
  // Only what stands outside of strings is a value.
  EXPECT_TRUE(ParseJson(R"(["[[[,,,\"[[["])", {.values_max = 2}).has_value());
}

TEST(Json, CountsAtLeastAllValues) {
  EXPECT_EQ(CountJsonValues("7"), 1);
  EXPECT_EQ(CountJsonValues("[1,2]"), 3);
  EXPECT_EQ(CountJsonValues(R"({"a":{"b":[0]}})"), 6);
  EXPECT_EQ(CountJsonValues(R"(["[1,2]"])"), 2);
  EXPECT_EQ(CountJsonValues(R"(["[1,2]"])", /*inside_strings=*/true), 4);
  EXPECT_EQ(CountJsonValues(R"(["a\\",1,"\"])"), 4);
  EXPECT_EQ(CountJsonValues("\"open [,"), 1);
}

TEST(Json, DumpsInvalidUtf8AsReplacementCharacter) { EXPECT_EQ(DumpJson(Json("a\xff")), "\"a\xEF\xBF\xBD\""); }

TEST(Base64, RoundTripsEveryLengthAndRefusesGarbage) {
  EXPECT_EQ(EncodeBase64("Man"), "TWFu");
  EXPECT_EQ(EncodeBase64("Ma"), "TWE=");
  EXPECT_EQ(EncodeBase64("M"), "TQ==");
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(*DecodeBase64(EncodeBase64(bytes)), bytes);
    bytes += static_cast<char>(i * 7);
  }
  EXPECT_FALSE(DecodeBase64("TWF*").has_value());
  EXPECT_FALSE(DecodeBase64("TWFuT").has_value());
}

TEST(BoundedQueue, RefusesWhenFullAndDrainsAfterClose) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  queue.Close();
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, CloseWakesAWaitingConsumer) {
  BoundedQueue<int> queue(1);
  std::thread consumer([&] { EXPECT_EQ(queue.Pop(), std::nullopt); });
  queue.Close();
  consumer.join();
}

TEST(MappedFile, MapsReadsAndRefuses) {
  const auto path = std::filesystem::temp_directory_path() / "pensieve_mapped_file_test";
  std::ofstream(path) << "hello";
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->bytes().size(), 5u);
  EXPECT_EQ(*ReadFile(path, 5), "hello");
  EXPECT_EQ(ReadFile(path, 4).error().code(), StatusCode::kInvalidArgument);
  std::filesystem::remove(path);
  EXPECT_EQ(MappedFile::Open(path).error().code(), StatusCode::kNotFound);
  EXPECT_EQ(MappedFile::Open("/tmp").error().code(), StatusCode::kInvalidArgument);
}

// A file of `size` bytes 'x' that is removed with the test.
class LostPagesTest : public ::testing::Test {
 protected:
  ~LostPagesTest() override { std::filesystem::remove(path_); }
  MappedFile Open(size_t size) {
    std::ofstream(path_, std::ios::binary) << std::string(size, 'x');
    return *MappedFile::Open(path_);
  }

  // Tests run beside each other, each in its own process.
  const std::string path_ = ::testing::TempDir() + "lost_pages_test." + std::to_string(::getpid());
};

TEST_F(LostPagesTest, ATruncatedFileReadsAsZerosAndSaysSo) {
  constexpr size_t kSize = 10 * 65536 + 5;
  const MappedFile file = Open(kSize);
  const MappedFile other = *MappedFile::Open("/proc/self/exe");
  EXPECT_TRUE(file.Check().ok());
  std::filesystem::resize_file(path_, 65536);
  EXPECT_TRUE(file.Check(/*quick=*/true).ok());  // no read has met it yet
  EXPECT_EQ(file.Check().code(), StatusCode::kDataLoss);
  EXPECT_EQ(file.bytes()[65535], std::byte{'x'});
  EXPECT_TRUE(file.Check(true).ok());
  std::vector<std::thread> readers;
  std::atomic<int> zeros{0};
  for (size_t i = 0; i < 8; ++i)
    readers.emplace_back([&, i] { zeros += file.bytes()[65536 * (9 - i)] == std::byte{0} ? 1 : 0; });
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(zeros, 8);
  EXPECT_EQ(file.bytes()[kSize - 1], std::byte{0});
  EXPECT_EQ(file.Check(true).code(), StatusCode::kDataLoss);
  EXPECT_NE(file.Check(true).message().find(path_), std::string::npos);
  EXPECT_TRUE(other.Check(true).ok());
  EXPECT_EQ(file.bytes()[0], std::byte{'x'});
}

TEST_F(LostPagesTest, AFileThatIsReplacedByRenameKeepsItsBytes) {
  const MappedFile file = Open(65536);
  std::ofstream(path_ + ".new") << "short";
  std::filesystem::rename(path_ + ".new", path_);
  EXPECT_TRUE(file.Check().ok());
  EXPECT_EQ(file.bytes()[65535], std::byte{'x'});
}

TEST_F(LostPagesTest, PlacesAreUsedAgain) {
  Open(16);
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(MappedFile::Open(path_)->Check(/*quick=*/true).ok());
  const MappedFile file = Open(65536);
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(file.bytes()[0], std::byte{0});
  EXPECT_FALSE(file.Check(true).ok());
}

TEST_F(LostPagesTest, OtherBusErrorsStillEndTheProcess) {
  const MappedFile file = Open(16);
  EXPECT_EXIT(::raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(ToValidUtf8("a\xff"
                        "b"),
            "a" + r + "b");
  EXPECT_EQ(ToValidUtf8("\xf0\x9f\x98"), r);
  EXPECT_EQ(ToValidUtf8("\xf0\x9f\x98x"), r + "x");
  EXPECT_EQ(ToValidUtf8("\xed\xa0\x80"), r + r + r);
  EXPECT_EQ(ToValidUtf8("\xc0\x80"), r + r);
  EXPECT_EQ(ToValidUtf8("\xf4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(ToValidUtf8("\xf0\x9f\x98\x80"), "\xf0\x9f\x98\x80");
}

TEST(Utf8, AnyBytesAreCodePoints) {
  const std::string text = "a\xc3\xa9\xff\xe2\x82\xac\xe2\x82";  // a, e acute, a wrong byte, euro, half a euro
  EXPECT_EQ(CodePointCount(text), 6u);
  EXPECT_EQ(DecodeAt(text, 1), 0xe9u);
  EXPECT_EQ(DecodeAt(text, 3), 0xdcffu);
  EXPECT_EQ(DecodeAt(text, 4), 0x20acu);
  EXPECT_EQ(ByteOffset(text, 4), 7u);
  EXPECT_EQ(ByteOffset(text, 99), text.size());
  EXPECT_EQ(PreviousCodePoint(text, 7), 4u);
  EXPECT_EQ(PreviousCodePoint(text, 4), 3u);
  EXPECT_EQ(PreviousCodePoint(text, text.size()), text.size() - 1);
}

// What lies in a mapped file can be given back and read again; other memory keeps what it holds.
TEST(MappedRange, OnlyPagesOfFilesAreGivenBack) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const std::string path = ::testing::TempDir() + "mapped_range_" + std::to_string(::getpid());
  const std::string text(3 * page + 100, 'x');
  std::ofstream(path) << text;
  auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.has_value());
  AdviseMappedDone(file->bytes());
  AdviseMappedDone(file->bytes().subspan(1, 5));
  EXPECT_EQ(std::memcmp(file->bytes().data(), text.data(), text.size()), 0);
  const std::vector<std::byte> own(8 * page, std::byte{7});
  AdviseMappedDone(own);
  EXPECT_EQ(std::count(own.begin(), own.end(), std::byte{7}), static_cast<int64_t>(own.size()));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace pensieve
