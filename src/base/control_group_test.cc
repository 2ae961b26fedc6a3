#include "base/control_group.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/processors.h"
#include "base/system_memory.h"

namespace pensieve {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMi = int64_t{1} << 20;

// A tree of files that stands for /proc and /sys.
class ControlGroupTest : public testing::Test {
 protected:
  ControlGroupTest() {
    std::string pattern = testing::TempDir() + "control_group_test_XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~ControlGroupTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void V2(const std::string& group, const std::string& top = "/") {
    Write("/proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n31 23 0:28 " + top +
                                      " /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n");
    Write("/proc/self/cgroup", "0::" + group + "\n");
  }
  void V1(const std::string& group) {
    Write("/proc/self/mountinfo",
          "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
          "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
          "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    Write("/proc/self/cgroup", "4:memory:" + group + "\n2:cpu,cpuacct:" + group + "\n0::/\n");
  }
  void V2Memory(const std::string& group, const std::string& limit, int64_t used, const std::string& stat = "") {
    Write("/sys/fs/cgroup" + group + "/memory.max", limit + "\n");
    Write("/sys/fs/cgroup" + group + "/memory.current", std::to_string(used) + "\n");
    Write("/sys/fs/cgroup" + group + "/memory.stat", stat);
  }
  void V1Memory(const std::string& group, int64_t limit, int64_t used, const std::string& stat = "") {
    Write("/sys/fs/cgroup/memory" + group + "/memory.limit_in_bytes", std::to_string(limit) + "\n");
    Write("/sys/fs/cgroup/memory" + group + "/memory.usage_in_bytes", std::to_string(used) + "\n");
    Write("/sys/fs/cgroup/memory" + group + "/memory.stat", stat);
  }
  ControlGroupLimits Read() const { return ReadControlGroupLimits(root_); }

  std::string root_;
};

TEST_F(ControlGroupTest, NoGroupsGiveNoLimits) {
  EXPECT_FALSE(Read().memory_available_bytes.has_value());
  EXPECT_FALSE(Read().cpus.has_value());
  V2("/user.slice");
  EXPECT_FALSE(Read().memory_available_bytes.has_value());
  V2Memory("/user.slice", "max", 5 * kMi);
  Write("/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
  EXPECT_FALSE(Read().memory_limit_bytes.has_value());
  EXPECT_FALSE(Read().cpus.has_value());
  EXPECT_FALSE(ProcessorQuota(root_).has_value());
}

TEST_F(ControlGroupTest, TheTightestAncestorBinds) {
  V2("/a.slice/b.scope/c");
  V2Memory("/a.slice/b.scope/c", "max", 10 * kMi);
  V2Memory("/a.slice/b.scope", std::to_string(100 * kMi), 30 * kMi);
  V2Memory("/a.slice", std::to_string(200 * kMi), 150 * kMi);
  Write("/sys/fs/cgroup/a.slice/b.scope/c/cpu.max", "400000 100000\n");
  Write("/sys/fs/cgroup/a.slice/cpu.max", "250000 100000\n");
  const auto limits = Read();
  EXPECT_EQ(limits.memory_limit_bytes, 100 * kMi);
  EXPECT_EQ(limits.memory_available_bytes, 50 * kMi);
  EXPECT_EQ(limits.cpus, 2.5);
  EXPECT_EQ(ProcessorQuota(root_), 2);
}

TEST_F(ControlGroupTest, MappedFilesCountAsUsedAndOtherCacheAsFree) {
  V2("/box");
  const std::string stat = fmt::format("anon {}\nfile {}\nfile_mapped {}\nshmem {}\ninactive_file {}\nactive_file {}\n",
                                       10 * kMi, 90 * kMi, 40 * kMi, 20 * kMi, 50 * kMi, 20 * kMi);
  V2Memory("/box", std::to_string(120 * kMi), 100 * kMi, stat);
  // 20 are free; of 70 in lists of files 40 are mapped. Shared memory is in none of these lists.
  EXPECT_EQ(Read().memory_available_bytes, 50 * kMi);
}

TEST_F(ControlGroupTest, MoreThanTheLimitLeavesNothing) {
  V2("/box");
  V2Memory("/box", std::to_string(10 * kMi), 12 * kMi);
  EXPECT_EQ(Read().memory_available_bytes, 0);
}

TEST_F(ControlGroupTest, VersionOneWithNestedGroups) {
  V1("/docker/abc");
  V1Memory("/docker/abc", 9223372036854771712, kMi);
  const std::string stat = fmt::format(
      "mapped_file 1\ninactive_file 2\ntotal_mapped_file {}\ntotal_inactive_file {}\n"
      "total_active_file {}\n",
      10 * kMi, 30 * kMi, 5 * kMi);
  V1Memory("/docker", 100 * kMi, 80 * kMi, stat);
  Write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "50000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
  const auto limits = Read();
  EXPECT_EQ(limits.memory_limit_bytes, 100 * kMi);
  EXPECT_EQ(limits.memory_available_bytes, 45 * kMi);
  EXPECT_EQ(limits.cpus, 0.5);
  EXPECT_EQ(ProcessorQuota(root_), 1);
}

TEST_F(ControlGroupTest, AContainerThatSeesItsOwnGroupAsTheTop) {
  // Without a namespace: the path names the host's view, the mount shows only the container's part.
  V2("/docker/abc/inner", "/docker/abc");
  V2Memory("", std::to_string(64 * kMi), 4 * kMi);
  V2Memory("/inner", std::to_string(32 * kMi), 2 * kMi);
  EXPECT_EQ(Read().memory_available_bytes, 30 * kMi);
  // A path outside of what is mounted.
  V2("/elsewhere", "/docker/abc");
  EXPECT_EQ(Read().memory_available_bytes, 60 * kMi);
  V2("/../sibling");
  EXPECT_EQ(Read().memory_available_bytes, 60 * kMi);
}

TEST_F(ControlGroupTest, SenselessFilesAreIgnored) {
  Write("/proc/self/mountinfo", "31 23\n - \n31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  Write("/proc/self/cgroup", "nonsense\n0:\n0::/box\n");
  V2Memory("/box", "many", 1, "file\nx y z\n");
  Write("/sys/fs/cgroup/box/cpu.max", "100000 0\n");
  EXPECT_FALSE(Read().memory_available_bytes.has_value());
  EXPECT_FALSE(Read().cpus.has_value());
}

TEST_F(ControlGroupTest, AvailableMemoryIsTheSmallerOfMachineAndGroup) {
  Write("/proc/meminfo", fmt::format("MemTotal: 999 kB\nMemAvailable:   {} kB\n", 80 * 1024));
  EXPECT_EQ(AvailableMemoryBytes(root_), 80 * kMi);
  Write("/proc/self/status", fmt::format("Name:\tx\nRssAnon:\t5 kB\nRssFile:\t   {} kB\n", 30 * 1024));
  EXPECT_EQ(AvailableMemoryBytes(root_), 50 * kMi);
  V2("/box");
  V2Memory("/box", std::to_string(60 * kMi), 20 * kMi);
  EXPECT_EQ(AvailableMemoryBytes(root_), 40 * kMi);
}

TEST(Processors, ThereIsAtLeastOne) { EXPECT_GE(UsableProcessors(), 1); }

}  // namespace
}  // namespace pensieve
