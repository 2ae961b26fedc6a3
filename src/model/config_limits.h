// Sizes that no real model exceeds: what lies outside is a broken file, told before anything is computed from it.
#pragma once

#include "formats/config_fields.h"

namespace pensieve::model {

inline constexpr formats::IntRange kHiddenRange{1, 1 << 20};
inline constexpr formats::IntRange kLayersRange{1, 4096};
inline constexpr formats::IntRange kHeadsRange{1, 8192};
inline constexpr formats::IntRange kHeadDimRange{1, 8192};
inline constexpr formats::IntRange kVocabRange{1, 1 << 24};
inline constexpr formats::IntRange kContextRange{1, 1 << 28};
inline constexpr formats::IntRange kExpertsRange{1, 4096};
inline constexpr formats::IntRange kTokenIdRange{0, 1 << 24};

}  // namespace pensieve::model
