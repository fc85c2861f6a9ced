// What one rank sends to another in one message: boxes of tensors, one after another. A parcel that lies in
// one piece travels from where it lies; others are packed into memory of their own.
#pragma once

#include <memory>
#include <vector>

#include "comm/strided.h"

namespace slipstream::comm {

class Parcel {
 public:
  // Adds a box of these sizes.
  void add(const Box& box, const int64_t* sizes, int rank, int64_t element_bytes);
  // Adds memory in one piece.
  void add(void* data, int64_t bytes);

  int64_t bytes() const { return bytes_; }

  // Memory of `bytes()` bytes with the contents, to send from.
  const char* pack();
  // Memory of `bytes()` bytes, to receive into; what came is where it belongs after `unpack`.
  char* open();
  void unpack();

  // Copies to a parcel of the same boxes, within a rank.
  void copy_to(Parcel* other);

 private:
  struct Piece {
    Box box;
    int64_t sizes[kMaximumRank];
    int rank;
    int64_t element_bytes;
    int64_t bytes() const;
    bool together() const;
  };
  char* whole() const;
  char* packed();

  std::vector<Piece> pieces_;
  int64_t bytes_ = 0;
  std::unique_ptr<char[]> memory_;
};

}  // namespace slipstream::comm
