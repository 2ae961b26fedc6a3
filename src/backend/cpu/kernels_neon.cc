// Arm processors with dot products. What the compiler (g++ 12) makes of the inner loops, counted:
//   A tile of 6 rows by 8 channels (QuantBlock) takes a round of 62 instructions for 16 columns: 48 dot products, 10
//   loads that serve them all, no spills; a group of 64 columns some 290 on the vector pipes, 192 of them those dot
//   products, 24 for the large quads, 12 shifts, 12 copies, 48 to scale the sums. 7 or 8 rows would not fit: 28 or 32
//   sums beside a run of each row and two vectors of codes, in 32 registers.
//   An f32 tile of 8 rows by 2 vectors takes 96 instructions for 4 terms, 64 of them FMAs.
//   Decoding takes 63 on the vector pipes for 4 channels by 64 columns of 4 bits: 32 dot products, 16 to part the
//   nibbles, 7 for the sums, 4 to scale them, 4 for the scales themselves.
#define PENSIEVE_ISA isa_neon
#define PENSIEVE_NEON
#include "backend/cpu/kernels-inl.h"

namespace pensieve::backend::cpu {
extern const KernelTable kNeonKernels;
const KernelTable kNeonKernels = isa_neon::MakeTable("neon");
}  // namespace pensieve::backend::cpu
