#include "backend/cpu/weight.h"

namespace pensieve::backend::cpu {
namespace {

QuantWeight FromAffine(const tensor::AffineWeight& w) {
  QuantWeight q;
  q.rows = w.rows;
  q.cols = w.cols;
  q.bits = w.bits;
  q.group = w.group;
  q.codes = w.codes;
  q.row_bytes = w.row_bytes();
  q.scale_dtype = w.scale_dtype;
  q.scales = static_cast<const uint8_t*>(w.scales);
  q.biases = static_cast<const uint8_t*>(w.biases);
  q.zero = static_cast<float>(1 << (w.bits - 1));
  return q;
}

QuantWeight FromMxfp4(const tensor::Mxfp4Weight& w) {
  QuantWeight q;
  q.rows = w.rows;
  q.cols = w.cols;
  q.group = 32;
  q.fp4 = true;
  q.codes = w.codes;
  q.row_bytes = w.cols / 2;
  q.scale_dtype = tensor::DType::kU8;
  q.scales = w.scales;
  q.zero = 12.0f;
  q.scale_factor = 0.5f;
  return q;
}

std::optional<QuantWeight> QuantOf(const tensor::Weight& weight) {
  if (const auto* affine = std::get_if<tensor::AffineWeight>(&weight)) return FromAffine(*affine);
  if (const auto* fp4 = std::get_if<tensor::Mxfp4Weight>(&weight)) return FromMxfp4(*fp4);
  return std::nullopt;
}

}  // namespace

CpuWeight::CpuWeight(const tensor::Weight& source) : weight(source), quant(QuantOf(source)) {}

}  // namespace pensieve::backend::cpu
