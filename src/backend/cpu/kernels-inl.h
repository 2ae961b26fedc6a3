// The table of the including source file's instruction set.
#pragma once

#include "backend/cpu/kernels.h"

#include "backend/cpu/attention-inl.h"
#include "backend/cpu/decode-inl.h"
#include "backend/cpu/quantize-inl.h"
#include "backend/cpu/rows-inl.h"
#include "backend/cpu/unpack-inl.h"
#if defined(__AVX2__)
#include "backend/cpu/attention_pairs-inl.h"
#endif

namespace pensieve::backend::cpu::PENSIEVE_ISA {

static constexpr KernelTable MakeTable(const char* isa) {
  KernelTable table = {};
  table.isa = isa;
  table.lanes = kLanes;
  table.panel = kPanel;
  table.quantize_row = QuantizeRow;
  table.unpack_groups = UnpackGroups;
  table.unpack_codes = UnpackCodes;
  table.quant_tile = QuantTile;
  table.decode_tile = DecodeTile;
  table.split_quads = SplitQuads;
  table.unpack_dense = UnpackDense;
  table.dequantize_panel = DequantizePanel;
  table.f32_tile = F32Tile;
  table.store_tile = StoreTile;
  table.store_gated = StoreGated;
  table.rms_norm = RmsNorm;
  table.layer_norm = LayerNorm;
  table.rope = Rope;
  table.add = AddRow;
  table.scale = ScaleRow;
  table.softcap = SoftcapRow;
  table.max = MaxRow;
  table.l2_normalize = L2NormalizeRow;
  table.attend = Attend;
#if defined(__AVX2__)
  table.attend_pairs = AttendPairs;
  table.pair_query = PairQuery;
  table.pair_keys = PairKeys;
  table.pair_values = PairValues;
#endif
  table.from_f16 = FromF16;
  table.to_f16 = ToF16;
  table.from_i8 = FromI8;
  table.merge = MergeSegments;
  return table;
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
