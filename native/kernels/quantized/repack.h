// The kernel `repack_blocks` of docs/kernels.md: rows of GGUF blocks (ggml's quantization formats, described
// in the GGUF specification and its reference implementation) as panels (layout.h). Weights move in words of
// four bytes: a word of a block becomes, after masks and shifts, a word of a panel.
#pragma once

#include <cstring>

#include "core/float16.h"
#include "core/kernel.h"
#include "kernels/quantized/layout.h"

namespace slipstream {
namespace {

// Codes are positions in `blockTypes` (src/base/quantized_format.ts).
enum class BlockType : int32_t { q8_0 = 0, q4_0 = 1, q4_k = 2, q5_k = 3, q6_k = 4 };

SLIPSTREAM_INLINE uint32_t word_at(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}
SLIPSTREAM_INLINE f16 half_at(const uint8_t* p) {
  f16 half;
  std::memcpy(&half, p, 2);
  return half;
}

constexpr uint32_t kLowNibbles = 0x0f0f0f0fu;

// A group of one column: where its words, its scale and its minimum go. Words of neighbouring k are a row of
// the panel apart.
struct GroupPlace {
  uint8_t* header;
  uint8_t* weights;

  SLIPSTREAM_INLINE void word(int64_t index, uint32_t value) const {
    std::memcpy(weights + index * 4 * kColumns, &value, 4);
  }
  SLIPSTREAM_INLINE void scale(f16 value) const { std::memcpy(header, &value, 2); }
  SLIPSTREAM_INLINE void minimum(f16 value) const { std::memcpy(header + 2 * kColumns, &value, 2); }
};

// Each block type: its bytes, its elements, its format, and how group `g` of a block is read.
struct BlockQ8_0 {
  static constexpr int64_t kBytes = 34, kElements = 32, kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr bool kMinimum = false;
  SLIPSTREAM_INLINE static void unpack(const uint8_t* block, int, const GroupPlace& place) {
    place.scale(half_at(block));
    for (int i = 0; i < 8; i++) place.word(i, word_at(block + 2 + 4 * i) ^ 0x80808080u);
  }
};

struct BlockQ4_0 {
  static constexpr int64_t kBytes = 18, kElements = 32, kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr bool kMinimum = false;
  SLIPSTREAM_INLINE static void unpack(const uint8_t* block, int, const GroupPlace& place) {
    place.scale(half_at(block));
    // Low nibbles are the first half of the block already.
    for (int i = 0; i < 4; i++) place.word(i, word_at(block + 2 + 4 * i));
  }
};

// Six-bit scales and minimums of the eight groups of a block, packed in twelve bytes.
SLIPSTREAM_INLINE void six_bit_pair(const uint8_t* packed, int g, int* scale, int* minimum) {
  if (g < 4) {
    *scale = packed[g] & 63;
    *minimum = packed[g + 4] & 63;
  } else {
    *scale = (packed[g + 4] & 15) | (packed[g - 4] >> 6 << 4);
    *minimum = (packed[g + 4] >> 4) | (packed[g] >> 6 << 4);
  }
}

SLIPSTREAM_INLINE void put_six_bit_pair(const uint8_t* block, int g, const GroupPlace& place) {
  int scale, minimum;
  six_bit_pair(block + 4, g, &scale, &minimum);
  place.scale(to_f16(to_float(half_at(block)) * static_cast<float>(scale)));
  place.minimum(to_f16(to_float(half_at(block + 2)) * static_cast<float>(minimum)));
}

struct BlockQ4K {
  static constexpr int64_t kBytes = 144, kElements = 256, kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr bool kMinimum = true;
  SLIPSTREAM_INLINE static void unpack(const uint8_t* block, int g, const GroupPlace& place) {
    put_six_bit_pair(block, g, place);
    // 32 bytes hold two groups: low nibbles the even one, high nibbles the odd one.
    const uint8_t* weights = block + 16 + g / 2 * 32;
    const int shift = g % 2 * 4;
    for (int i = 0; i < 4; i++) {
      const uint32_t first = word_at(weights + 4 * i) >> shift & kLowNibbles;
      const uint32_t second = word_at(weights + 16 + 4 * i) >> shift & kLowNibbles;
      place.word(i, first | second << 4);
    }
  }
};

struct BlockQ5K {
  static constexpr int64_t kBytes = 176, kElements = 256, kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr bool kMinimum = true;
  SLIPSTREAM_INLINE static void unpack(const uint8_t* block, int g, const GroupPlace& place) {
    put_six_bit_pair(block, g, place);
    const uint8_t* fifth_bits = block + 16;
    const uint8_t* weights = block + 48 + g / 2 * 32;
    const int shift = g % 2 * 4;
    for (int i = 0; i < 8; i++) {
      const uint32_t low = word_at(weights + 4 * i) >> shift & kLowNibbles;
      const uint32_t high = word_at(fifth_bits + 4 * i) >> g & 0x01010101u;
      place.word(i, low | high << 4);
    }
  }
};

struct BlockQ6K {
  static constexpr int64_t kBytes = 210, kElements = 256, kGroup = 16;
  static constexpr int kBits = 8;
  static constexpr bool kMinimum = false;
  SLIPSTREAM_INLINE static void unpack(const uint8_t* block, int g, const GroupPlace& place) {
    const auto group_scale = static_cast<int8_t>(block[192 + g]);
    place.scale(to_f16(to_float(half_at(block + 208)) * static_cast<float>(group_scale)));
    // Halves of 128 elements are four quarters of 32: nibbles of two rows of bytes, and pairs of bits of one.
    const int half = g / 8, quarter = g % 8 / 2, start = g % 2 * 16;
    const uint8_t* nibbles = block + half * 64 + quarter % 2 * 32 + start;
    const uint8_t* pairs = block + 128 + half * 32 + start;
    for (int i = 0; i < 4; i++) {
      const uint32_t low = word_at(nibbles + 4 * i) >> (quarter / 2 * 4) & kLowNibbles;
      const uint32_t high = word_at(pairs + 4 * i) >> (2 * quarter) & 0x03030303u;
      // Values are 0 to 63 and mean -32 to 31: 96 above that as bytes around 128.
      place.word(i, (low | high << 4) + 0x60606060u);
    }
  }
};

// A panel's columns that the matrix lacks: zeros.
SLIPSTREAM_INLINE void clear_group(const PanelLayout& layout, const GroupPlace& place) {
  const int32_t zero = layout.format.zero() * (layout.format.bits == 4 ? 0x11 : 1);
  const uint32_t word = static_cast<uint32_t>(zero) * 0x01010101u;
  for (int64_t i = 0; i < layout.group * layout.format.bits / 32; i++) place.word(i, word);
  if (layout.format.whole()) {
    std::memset(place.header, 0, 4);
  } else {
    place.scale(f16{0});
    if (layout.format.minimum) place.minimum(f16{0});
  }
}

SLIPSTREAM_INLINE GroupPlace place_of(const PanelLayout& layout, uint8_t* panel, int64_t group, int column) {
  uint8_t* start = panel + group * layout.group_bytes;
  return {start + column * (layout.format.whole() ? 4 : 2), start + layout.header_bytes + 4 * column};
}

template <class Block>
void repack(const KernelCall& call, int64_t rows, int64_t inner) {
  const PanelLayout layout({Block::kBits, Block::kGroup, Block::kMinimum}, inner);
  const int64_t row_bytes = inner / Block::kElements * Block::kBytes;
  constexpr int64_t kGroups = Block::kElements / Block::kGroup;
  const uint8_t* blocks = call.inputs[0].as<uint8_t>();
  uint8_t* packed = call.outputs[0].as<uint8_t>();
  call.threads.parallel_for(panel_count(rows), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; p++) {
      uint8_t* panel = packed + p * layout.panel_bytes;
      const uint8_t* first = blocks + p * kColumns * row_bytes;
      const int columns = static_cast<int>(rows - p * kColumns < kColumns ? rows - p * kColumns : kColumns);
      for (int64_t block = 0; block < inner / Block::kElements; block++) {
        for (int column = 0; column < kColumns; column++) {
          const uint8_t* source = first + column * row_bytes + block * Block::kBytes;
          for (int g = 0; g < kGroups; g++) {
            const GroupPlace place = place_of(layout, panel, block * kGroups + g, column);
            if (column < columns) {
              Block::unpack(source, g, place);
            } else {
              clear_group(layout, place);
            }
          }
        }
      }
    }
  });
}

// Attributes: block type, rows N, columns K. Input: u8 [bytes of the rows]. Output: u8 [packed bytes].
void repack_blocks(const KernelCall& call) {
  const int64_t rows = static_cast<int64_t>(call.attributes[1]),
                inner = static_cast<int64_t>(call.attributes[2]);
  switch (static_cast<BlockType>(static_cast<int32_t>(call.attributes[0]))) {
    case BlockType::q8_0:
      return repack<BlockQ8_0>(call, rows, inner);
    case BlockType::q4_0:
      return repack<BlockQ4_0>(call, rows, inner);
    case BlockType::q4_k:
      return repack<BlockQ4K>(call, rows, inner);
    case BlockType::q5_k:
      return repack<BlockQ5K>(call, rows, inner);
    case BlockType::q6_k:
      return repack<BlockQ6K>(call, rows, inner);
  }
}

}  // namespace
}  // namespace slipstream
