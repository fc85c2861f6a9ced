// Weights [N, K] in integers, as the kernels of this folder hold them (docs/kernels.md, "Quantized weights").
//
// A panel is 32 output columns (rows of the matrix) over all of K; the last panel is padded with zeros. It is
// one stream of groups, and a group is
//
//   scales    f16 [32]   (f32 [32] where one scale serves the whole column: there is one group then)
//   minimums  f16 [32]   (with `minimum` only)
//   weights   8 bits: u8 [group / 4][32][4], four consecutive k of a column together, as byte dot products
//             take them; 4 bits: u8 [group / 8][32][4], whose low nibbles are the first half of the group's k
//             and whose high nibbles are the second half.
//
// Weights are unsigned: w = scale * (q - zero), zero 128 or 8; with `minimum`, w = scale * q - minimum. With
// x held as s * a in the same groups, a signed,
//
//   sum over k of w x = sum over groups of s * (scale * (dot(q, a) - zero * sum(a)) - minimum * sum(a)).
//
// The bracket without minimum is an exact integer. K is padded with zeros to whole groups, in weights and in
// activations.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace slipstream {

constexpr int kColumns = 32;  // of a panel

struct Format {
  int bits = 8;
  int64_t group = 0;
  bool minimum = false;

  SLIPSTREAM_INLINE bool whole() const { return group == 0; }
  SLIPSTREAM_INLINE int32_t zero() const { return minimum ? 0 : (bits == 8 ? 128 : 8); }
};

SLIPSTREAM_INLINE int64_t padded_inner(int64_t group, int64_t inner) {
  const int64_t step = group == 0 ? 64 : group;
  return (inner + step - 1) / step * step;
}
SLIPSTREAM_INLINE int64_t group_count(int64_t group, int64_t inner) {
  return group == 0 ? 1 : (inner + group - 1) / group;
}

// Where things are in a panel.
struct PanelLayout {
  Format format;
  int64_t inner;         // K
  int64_t groups;        // of a panel
  int64_t group;         // k of a group, the padding of the last one included
  int64_t header_bytes;  // scales and minimums
  int64_t group_bytes;
  int64_t panel_bytes;

  SLIPSTREAM_INLINE PanelLayout(const Format& chosen, int64_t k)
      : format(chosen),
        inner(k),
        groups(group_count(chosen.group, k)),
        group(chosen.whole() ? padded_inner(0, k) : chosen.group),
        header_bytes(chosen.whole() ? 4 * kColumns : 2 * kColumns * (chosen.minimum ? 2 : 1)),
        group_bytes(header_bytes + group * kColumns * chosen.bits / 8),
        panel_bytes(groups * group_bytes) {}
};

SLIPSTREAM_INLINE int64_t panel_count(int64_t columns) { return (columns + kColumns - 1) / kColumns; }

}  // namespace slipstream
