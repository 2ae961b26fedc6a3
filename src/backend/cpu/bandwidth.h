// What this machine's memory gives: the limit that decode speed is compared with.
#pragma once

namespace pensieve::backend::cpu {

// GB/s (1e9 bytes) that `threads` threads read together from 256 MiB on huge pages where the system grants them, well
// beyond any cache of theirs; the best of several passes. Takes about a tenth of a second. 0 when memory is refused.
double MeasureReadBandwidth(int threads);

}  // namespace pensieve::backend::cpu
