// Moves whole blocks between a file and memory the way disks like it: cut into requests, of which several are
// under way at a time, on one thread or more. Past the page cache Linux's asynchronous requests are used
// (io_submit); elsewhere each thread has one request under way.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "comm/lane.h"

namespace slipstream::io {

// Offsets, lengths and addresses that are multiples of this move without a copy.
constexpr size_t kBlock = 4096;

enum class Direction : int { read = 0, write = 1 };

// How files are read and written.
struct IoSettings {
  size_t request_bytes = size_t{1} << 20;  // of one request; rounded up to whole blocks
  int queue_depth = 8;                     // requests of one thread under way
  int threads = 1;                         // that share every move
};

// The requests of one thread.
class RequestQueue;

// One move at a time.
class BlockMover {
 public:
  explicit BlockMover(const IoSettings& settings);
  ~BlockMover();
  BlockMover(const BlockMover&) = delete;
  BlockMover& operator=(const BlockMover&) = delete;

  // Returns when all is moved; offset, memory and bytes are multiples of kBlock where `direct`, which says
  // that `file` goes past the page cache. Throws StoreError when nothing is under way any more.
  void move(Direction direction, int file, bool direct, size_t offset, char* memory, size_t bytes);

 private:
  IoSettings settings_;
  std::vector<std::unique_ptr<RequestQueue>> queues_;
  std::vector<std::unique_ptr<comm::Lane>> helpers_;  // last: their threads end before the rest goes
};

}  // namespace slipstream::io
