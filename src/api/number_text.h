// Vectors as text: the shortest decimal spelling that reads back to the same f32, and base64 of little-endian f32.
#pragma once

#include <span>
#include <string>

namespace pensieve::api {

// Appends "[0.1,-2e-05,...]". Infinities and NaN, which JSON cannot hold, become null.
void AppendJsonFloats(std::span<const float> values, std::string& out);

// base64 of the values as little-endian f32.
std::string Base64Floats(std::span<const float> values);

}  // namespace pensieve::api
