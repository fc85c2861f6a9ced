#include "comm/parcel.h"

#include <algorithm>
#include <cstring>

namespace slipstream::comm {

namespace {

// A box of these sizes that lies in one piece at `origin`.
Box dense(char* origin, const int64_t* sizes, int rank) {
  Box box;
  box.origin = origin;
  int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; axis--) {
    box.strides[axis] = stride;
    stride *= sizes[axis];
  }
  return box;
}

}  // namespace

int64_t Parcel::Piece::bytes() const {
  int64_t product = element_bytes;
  for (int axis = 0; axis < rank; axis++) product *= sizes[axis];
  return product;
}

bool Parcel::Piece::together() const {
  int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; axis--) {
    if (sizes[axis] != 1 && box.strides[axis] != stride) return false;
    stride *= sizes[axis];
  }
  return true;
}

void Parcel::add(const Box& box, const int64_t* sizes, int rank, int64_t element_bytes) {
  Piece piece{box, {}, rank, element_bytes};
  std::copy(sizes, sizes + rank, piece.sizes);
  if (piece.bytes() == 0) return;
  bytes_ += piece.bytes();
  pieces_.push_back(piece);
}

void Parcel::add(void* data, int64_t bytes) {
  Box box;
  box.origin = static_cast<char*>(data);
  box.strides[0] = 1;
  add(box, &bytes, 1, 1);
}

char* Parcel::whole() const {
  return pieces_.size() == 1 && pieces_[0].together() ? pieces_[0].box.origin : nullptr;
}

char* Parcel::packed() {
  if (memory_ == nullptr) memory_ = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(bytes_));
  return memory_.get();
}

const char* Parcel::pack() {
  if (const char* const data = whole()) return data;
  char* target = packed();
  for (const Piece& piece : pieces_) {
    copy_box(piece.box, dense(target, piece.sizes, piece.rank), piece.sizes, piece.rank, piece.element_bytes);
    target += piece.bytes();
  }
  return packed();
}

char* Parcel::open() {
  char* const data = whole();
  return data != nullptr ? data : packed();
}

void Parcel::unpack() {
  if (whole() != nullptr) return;
  char* source = packed();
  for (const Piece& piece : pieces_) {
    copy_box(dense(source, piece.sizes, piece.rank), piece.box, piece.sizes, piece.rank, piece.element_bytes);
    source += piece.bytes();
  }
}

void Parcel::copy_to(Parcel* other) {
  const char* const source = pack();
  char* const target = other->open();
  if (bytes_ > 0 && target != source) std::memcpy(target, source, static_cast<size_t>(bytes_));
  other->unpack();
}

}  // namespace slipstream::comm
