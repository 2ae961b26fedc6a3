#define PENSIEVE_ISA isa_avx512
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kAvx512Kernels;
const KernelTable kAvx512Kernels = isa_avx512::MakeTable("avx512");
}  // namespace pensieve::backend::cpu
