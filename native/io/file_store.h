// Memory on disk: a file of a fixed length that holds states which do not fit in memory (Rajbhandari et al.,
// "ZeRO-Infinity", arXiv 2104.07857). Reads and writes go past the page cache where the file system takes
// that (O_DIRECT), so that what is on disk does not stay in memory as well; elsewhere pages are dropped once
// written.
//
// The file has no name: it is created in a folder, reserved in full, and unlinked at once, so that nothing is
// left behind however the process ends.
//
// Offsets and lengths may be anything; whole blocks of 4096 bytes at aligned offsets, to or from memory that
// is aligned alike, move without a copy. What shares a block with its neighbour is read, changed and written
// back, on one lane, so neighbours may be written in any order.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "comm/lane.h"
#include "core/memory.h"
#include "io/block_mover.h"
#include "io/store_error.h"

namespace slipstream::io {

struct StoreTraffic {
  int64_t read_bytes = 0, written_bytes = 0;
  double read_seconds = 0, write_seconds = 0;  // during which each lane was busy
};

class FileStore {
 public:
  // Creates the file and reserves `bytes` for it. Throws StoreError: the folder is missing or read-only, the
  // disk is full. `direct`: past the page cache where possible.
  FileStore(const std::string& folder, size_t bytes, bool direct, const IoSettings& settings = {});
  ~FileStore();
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  size_t bytes() const { return bytes_; }
  bool direct() const { return direct_ >= 0; }
  StoreTraffic traffic() const;

  // Starts to move `bytes` between the file and memory on the direction's lane.
  comm::Lane::Ticket start(Direction direction, size_t offset, void* memory, size_t bytes);
  // Waits for what `start` gave and throws what it failed with.
  void wait(Direction direction, comm::Lane::Ticket ticket);

  // The same for programs, which know their transfers by number.
  void start_numbered(Direction direction, int number, size_t offset, void* memory, size_t bytes);
  void wait_numbered(Direction direction, int number);
  // Waits for all numbered transfers whatever becomes of them: after a program failed.
  void drain();

 private:
  void move(Direction direction, size_t offset, char* memory, size_t bytes);
  void read(size_t offset, char* into, size_t bytes);
  void write(size_t offset, const char* from, size_t bytes);
  // On the lane of `lane`, whatever is done there.
  void read_blocks(Direction lane, size_t offset, char* into, size_t bytes);
  void write_blocks(size_t offset, const char* from, size_t bytes);

  size_t bytes_ = 0;
  int file_ = -1;    // through the page cache
  int direct_ = -1;  // past it
  Memory bounce_[2];
  BlockMover movers_[2];  // by lane
  std::atomic<int64_t> moved_[2] = {0, 0};
  std::atomic<int64_t> nanoseconds_[2] = {0, 0};
  std::mutex mutex_;
  std::map<int, comm::Lane::Ticket> numbered_[2];
  comm::Lane lanes_[2];  // last: their threads end before the rest goes
};

// Stores by the numbers under which programs and JavaScript know them.
int add_store(std::shared_ptr<FileStore> store);
std::shared_ptr<FileStore> find_store(int id);  // throws std::runtime_error where there is none
void remove_store(int id);

}  // namespace slipstream::io
