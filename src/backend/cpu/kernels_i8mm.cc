#define PENSIEVE_ISA isa_i8mm
#define PENSIEVE_NEON
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kI8mmKernels;
const KernelTable kI8mmKernels = isa_i8mm::MakeTable("i8mm");
}  // namespace pensieve::backend::cpu
