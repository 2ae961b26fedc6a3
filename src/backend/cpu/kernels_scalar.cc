#define PENSIEVE_ISA isa_scalar
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kScalarKernels;
const KernelTable kScalarKernels = isa_scalar::MakeTable("scalar");
}  // namespace pensieve::backend::cpu
