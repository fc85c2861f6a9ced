#include "io/file_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>

namespace slipstream::io {

namespace {

// What goes through memory of the store's own at a time.
constexpr size_t kPiece = size_t{8} << 20;

const char* error_name(int error) {
  switch (error) {
    case ENOENT:
      return "ENOENT";
    case ENOTDIR:
      return "ENOTDIR";
    case EACCES:
      return "EACCES";
    case EPERM:
      return "EPERM";
    case EROFS:
      return "EROFS";
    case ENOSPC:
      return "ENOSPC";
    case EDQUOT:
      return "EDQUOT";
    case EFBIG:
      return "EFBIG";
    case EIO:
      return "EIO";
    default:
      return "ERROR";
  }
}

size_t down(size_t value) { return value / kBlock * kBlock; }
size_t up(size_t value) { return (value + kBlock - 1) / kBlock * kBlock; }

bool is_aligned(size_t offset, const void* memory, size_t bytes) {
  return offset % kBlock == 0 && bytes % kBlock == 0 && reinterpret_cast<uintptr_t>(memory) % kBlock == 0;
}

std::string name_of_file(const std::string& folder) {
  static std::atomic<int> next{0};
  return folder + "/slipstream-states-" + std::to_string(getpid()) + "-" + std::to_string(next++);
}

}  // namespace

StoreError::StoreError(int error, const std::string& what)
    : std::runtime_error("store " + std::string(error_name(error)) + ": " + what + ": " +
                         std::strerror(error)) {}

FileStore::FileStore(const std::string& folder, size_t bytes, bool direct, const IoSettings& settings)
    : bytes_(up(bytes)), movers_{BlockMover(settings), BlockMover(settings)} {
  const std::string name = name_of_file(folder);
  file_ = open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file_ < 0) throw StoreError(errno, "cannot create " + name);
#if defined(O_DIRECT)
  // Refused by file systems that live in memory, or on a network.
  if (direct) direct_ = open(name.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
#endif
  unlink(name.c_str());
#if defined(__APPLE__)
  const int failure = ftruncate(file_, static_cast<off_t>(bytes_)) == 0 ? 0 : errno;
#else
  const int failure = bytes_ == 0 ? 0 : posix_fallocate(file_, 0, static_cast<off_t>(bytes_));
#endif
  if (failure != 0) {
    close(file_);
    if (direct_ >= 0) close(direct_);
    throw StoreError(failure, "cannot reserve " + std::to_string(bytes_) + " bytes in " + folder);
  }
}

FileStore::~FileStore() {
  drain();
  if (direct_ >= 0) close(direct_);
  close(file_);
}

StoreTraffic FileStore::traffic() const {
  return {moved_[0], moved_[1], static_cast<double>(nanoseconds_[0]) * 1e-9,
          static_cast<double>(nanoseconds_[1]) * 1e-9};
}

comm::Lane::Ticket FileStore::start(Direction direction, size_t offset, void* memory, size_t bytes) {
  if (offset > bytes_ || bytes > bytes_ - offset) {
    throw std::runtime_error("internal: a transfer ends behind the end of its store");
  }
  return lanes_[static_cast<int>(direction)].submit(
      [=, this] { move(direction, offset, static_cast<char*>(memory), bytes); });
}

void FileStore::wait(Direction direction, comm::Lane::Ticket ticket) {
  lanes_[static_cast<int>(direction)].wait(ticket);
}

void FileStore::start_numbered(Direction direction, int number, size_t offset, void* memory, size_t bytes) {
  const comm::Lane::Ticket ticket = start(direction, offset, memory, bytes);
  std::lock_guard<std::mutex> lock(mutex_);
  numbered_[static_cast<int>(direction)][number] = ticket;
}

void FileStore::wait_numbered(Direction direction, int number) {
  comm::Lane::Ticket ticket;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& tickets = numbered_[static_cast<int>(direction)];
    const auto found = tickets.find(number);
    if (found == tickets.end()) throw std::runtime_error("internal: a transfer was not started");
    ticket = found->second;
    tickets.erase(found);
  }
  wait(direction, ticket);
}

void FileStore::drain() {
  for (const Direction direction : {Direction::read, Direction::write}) {
    std::map<int, comm::Lane::Ticket> tickets;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tickets.swap(numbered_[static_cast<int>(direction)]);
    }
    for (const auto& [number, ticket] : tickets) {
      try {
        wait(direction, ticket);
      } catch (const StoreError&) {
        // The program has failed already, perhaps of this.
      }
    }
  }
}

void FileStore::move(Direction direction, size_t offset, char* memory, size_t bytes) {
  const auto begun = std::chrono::steady_clock::now();
  if (direction == Direction::read) {
    read(offset, memory, bytes);
  } else {
    write(offset, memory, bytes);
  }
  const auto took = std::chrono::steady_clock::now() - begun;
  const int index = static_cast<int>(direction);
  moved_[index] += static_cast<int64_t>(bytes);
  nanoseconds_[index] += std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
}

void FileStore::read_blocks(Direction lane, size_t offset, char* into, size_t bytes) {
  movers_[static_cast<int>(lane)].move(Direction::read, direct() ? direct_ : file_, direct(), offset, into,
                                       bytes);
#if defined(POSIX_FADV_DONTNEED)
  if (direct_ < 0)
    posix_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
#endif
}

void FileStore::write_blocks(size_t offset, const char* from, size_t bytes) {
  movers_[1].move(Direction::write, direct() ? direct_ : file_, direct(), offset, const_cast<char*>(from),
                  bytes);
  if (direct_ >= 0) return;
#if defined(POSIX_FADV_DONTNEED)
  // Only pages that are on disk can be dropped.
  if (fdatasync(file_) != 0) throw StoreError(errno, "a write failed");
  posix_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
#endif
}

void FileStore::read(size_t offset, char* into, size_t bytes) {
  if (direct_ < 0) return read_blocks(Direction::read, offset, into, bytes);
  const size_t whole = is_aligned(offset, into, 0) ? down(bytes) : 0;
  read_blocks(Direction::read, offset, into, whole);
  if (whole == bytes) return;
  Memory& bounce = bounce_[0];
  if (bounce.bytes() == 0) bounce = Memory(kPiece);
  for (size_t done = whole; done < bytes;) {
    const size_t begin = down(offset + done), skipped = offset + done - begin;
    const size_t length = std::min(kPiece - skipped, bytes - done);
    read_blocks(Direction::read, begin, bounce.data(), up(skipped + length));
    std::memcpy(into + done, bounce.data() + skipped, length);
    done += length;
  }
}

void FileStore::write(size_t offset, const char* from, size_t bytes) {
  if (direct_ < 0) return write_blocks(offset, from, bytes);
  const size_t whole = is_aligned(offset, from, 0) ? down(bytes) : 0;
  write_blocks(offset, from, whole);
  if (whole == bytes) return;
  Memory& bounce = bounce_[1];
  if (bounce.bytes() == 0) bounce = Memory(kPiece);
  for (size_t done = whole; done < bytes;) {
    const size_t begin = down(offset + done), skipped = offset + done - begin;
    const size_t length = std::min(kPiece - skipped, bytes - done), end = up(skipped + length);
    // What lies before and behind in the first and the last block stays.
    if (skipped > 0) read_blocks(Direction::write, begin, bounce.data(), kBlock);
    if ((skipped + length) % kBlock != 0 && (skipped == 0 || end > kBlock)) {
      read_blocks(Direction::write, begin + end - kBlock, bounce.data() + end - kBlock, kBlock);
    }
    std::memcpy(bounce.data() + skipped, from + done, length);
    write_blocks(begin, bounce.data(), end);
    done += length;
  }
}

namespace {
std::mutex& registry_mutex() {
  static std::mutex mutex;
  return mutex;
}
// Never destroyed: a program may still run while the process ends.
std::map<int, std::shared_ptr<FileStore>>& registry() {
  static auto& stores = *new std::map<int, std::shared_ptr<FileStore>>();
  return stores;
}
}  // namespace

int add_store(std::shared_ptr<FileStore> store) {
  static int next = 1;
  std::lock_guard<std::mutex> lock(registry_mutex());
  registry()[next] = std::move(store);
  return next++;
}

std::shared_ptr<FileStore> find_store(int id) {
  std::lock_guard<std::mutex> lock(registry_mutex());
  const auto found = registry().find(id);
  if (found == registry().end()) throw std::runtime_error("internal: the store is closed");
  return found->second;
}

void remove_store(int id) {
  std::shared_ptr<FileStore> store;  // ends outside of the lock: it waits for its lanes
  std::lock_guard<std::mutex> lock(registry_mutex());
  const auto found = registry().find(id);
  if (found == registry().end()) return;
  store = std::move(found->second);
  registry().erase(found);
}

}  // namespace slipstream::io
