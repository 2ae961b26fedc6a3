#include "backend/cpu/kernels.h"

#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace pensieve::backend::cpu {

extern const KernelTable kScalarKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvxvnniKernels;
extern const KernelTable kAvx512Kernels;
#elif defined(__aarch64__)
extern const KernelTable kNeonKernels;
extern const KernelTable kI8mmKernels;

namespace {

struct ArmFeatures {
  bool dot_product = false;
  bool i8mm = false;
};

#if defined(__APPLE__)
bool HasFeature(const char* name) {
  int value = 0;
  size_t size = sizeof(value);
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

ArmFeatures DetectFeatures() {
  return {HasFeature("hw.optional.arm.FEAT_DotProd"), HasFeature("hw.optional.arm.FEAT_I8MM")};
}
#elif defined(__linux__)
ArmFeatures DetectFeatures() {
  return {(::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, (::getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
}
#else
ArmFeatures DetectFeatures() { return {}; }
#endif

}  // namespace
#endif

KernelTables AvailableKernels() {
  KernelTables result = {};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  // Not among the names that the compiler's check knows: leaf 7, subleaf 1, EAX bit 4.
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(1));
  if (avx2 && avx512) result.tables[result.count++] = &kAvx512Kernels;
  if (avx2 && (eax >> 4 & 1u) != 0) result.tables[result.count++] = &kAvxvnniKernels;
  if (avx2) result.tables[result.count++] = &kAvx2Kernels;
#elif defined(__aarch64__)
  const ArmFeatures features = DetectFeatures();
  if (features.dot_product && features.i8mm) result.tables[result.count++] = &kI8mmKernels;
  if (features.dot_product) result.tables[result.count++] = &kNeonKernels;
#endif
  result.tables[result.count++] = &kScalarKernels;
  return result;
}

}  // namespace pensieve::backend::cpu
