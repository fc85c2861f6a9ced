// Tensors as kernels see them: a pointer, a dtype and the sizes of this run, always contiguous row-major
// unless the kernel's own file says otherwise (packed weights).
#pragma once

#include <cstdint>

// Inline code in headers is compiled into files of every instruction set; forced inlining keeps the linker
// from choosing, say, the AVX-512 copy of a function for code that must run on every processor.
#define SLIPSTREAM_INLINE inline __attribute__((always_inline))

namespace slipstream {

// The order is that of `dtypes` in src/base/dtype.ts; a test holds the two together.
enum class DType : int32_t { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, u8 = 4, i8 = 5, f64 = 6 };

SLIPSTREAM_INLINE constexpr int64_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    default:
      return 1;
  }
}

constexpr int kMaximumRank = 8;

struct Tensor {
  void* data = nullptr;  // null where an optional operand is absent
  DType dtype = DType::f32;
  int32_t rank = 0;
  int64_t sizes[kMaximumRank] = {};

  SLIPSTREAM_INLINE bool present() const { return data != nullptr; }
  SLIPSTREAM_INLINE int64_t size(int axis) const { return sizes[axis < 0 ? axis + rank : axis]; }
  SLIPSTREAM_INLINE int64_t elements() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank; axis++) product *= sizes[axis];
    return product;
  }
  SLIPSTREAM_INLINE int64_t bytes() const { return elements() * bytes_per_element(dtype); }
  // Product of all axes but the last: the rows of a tensor seen as a matrix.
  SLIPSTREAM_INLINE int64_t rows() const {
    return rank == 0 ? 1 : (sizes[rank - 1] == 0 ? 0 : elements() / sizes[rank - 1]);
  }

  template <class T>
  SLIPSTREAM_INLINE T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace slipstream
