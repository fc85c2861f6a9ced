#include "io/block_mover.h"

#include <unistd.h>

#if defined(__linux__)
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <exception>

#include "io/store_error.h"

namespace slipstream::io {

namespace {

const char* failure_of(Direction direction) {
  return direction == Direction::read ? "a read failed" : "a write failed";
}

// One request after another.
void move_in_turn(Direction direction, int file, size_t offset, char* memory, size_t bytes, size_t request) {
  for (size_t done = 0; done < bytes;) {
    const size_t length = std::min(request, bytes - done);
    const auto place = static_cast<off_t>(offset + done);
    const ssize_t moved = direction == Direction::read ? pread(file, memory + done, length, place)
                                                       : pwrite(file, memory + done, length, place);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) throw StoreError(errno, failure_of(direction));
    if (moved == 0) throw StoreError(EIO, failure_of(direction));
    done += static_cast<size_t>(moved);
  }
}

}  // namespace

class RequestQueue {
 public:
  explicit RequestQueue(const IoSettings& settings) : settings_(settings) {}
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

#if defined(__linux__)
  ~RequestQueue() {
    if (context_ != 0) syscall(SYS_io_destroy, context_);
  }

  void move(Direction direction, int file, bool direct, size_t offset, char* memory, size_t bytes) {
    const size_t request = settings_.request_bytes;
    // Through the page cache a request would be served before io_submit returns.
    if (!direct || settings_.queue_depth == 1 || bytes <= request || !open()) {
      return move_in_turn(direction, file, offset, memory, bytes, request);
    }
    const size_t depth = static_cast<size_t>(settings_.queue_depth);
    std::vector<iocb> requests(depth);
    std::vector<io_event> events(depth);
    std::vector<size_t> idle;
    for (size_t slot = 0; slot < depth; ++slot) idle.push_back(depth - 1 - slot);
    size_t started = 0, waiting = 0;
    int failure = 0;
    const auto submit = [&](size_t slot, size_t begin, size_t length) {
      iocb& asked = requests[slot];
      asked = {};
      asked.aio_data = slot;
      asked.aio_lio_opcode = direction == Direction::read ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
      asked.aio_fildes = static_cast<uint32_t>(file);
      asked.aio_buf = reinterpret_cast<uint64_t>(memory + begin);
      asked.aio_nbytes = length;
      asked.aio_offset = static_cast<int64_t>(offset + begin);
      iocb* list[] = {&asked};
      while (syscall(SYS_io_submit, context_, 1, list) != 1) {
        if (errno == EAGAIN || errno == EINTR) continue;
        failure = errno;
        idle.push_back(slot);
        return;
      }
      ++waiting;
    };
    while (waiting > 0 || (started < bytes && failure == 0)) {
      while (!idle.empty() && started < bytes && failure == 0) {
        const size_t slot = idle.back(), length = std::min(request, bytes - started);
        idle.pop_back();
        submit(slot, started, length);
        started += length;
      }
      if (waiting == 0) break;
      const long count = syscall(SYS_io_getevents, context_, 1, depth, events.data(), nullptr);
      if (count < 0 && errno == EINTR) continue;
      // Requests that nobody can wait for any more still own the memory.
      if (count < 0) std::terminate();
      for (long index = 0; index < count; ++index) {
        const io_event& event = events[static_cast<size_t>(index)];
        const size_t slot = event.data;
        const iocb& asked = requests[slot];
        --waiting;
        const auto moved = event.res;
        if (moved < 0 || moved == 0) failure = moved == 0 ? EIO : static_cast<int>(-moved);
        const size_t left = moved <= 0 ? 0 : asked.aio_nbytes - static_cast<size_t>(moved);
        if (left == 0 || failure != 0) {
          idle.push_back(slot);
          continue;
        }
        const size_t begin = static_cast<size_t>(asked.aio_offset) - offset + static_cast<size_t>(moved);
        submit(slot, begin, left);
      }
    }
    if (failure != 0) throw StoreError(failure, failure_of(direction));
  }

 private:
  // Whether the system takes asynchronous requests.
  bool open() {
    if (context_ == 0 && !refused_) refused_ = syscall(SYS_io_setup, settings_.queue_depth, &context_) != 0;
    return !refused_;
  }

  aio_context_t context_ = 0;
  bool refused_ = false;
#else
  void move(Direction direction, int file, bool, size_t offset, char* memory, size_t bytes) {
    move_in_turn(direction, file, offset, memory, bytes, settings_.request_bytes);
  }

 private:
#endif
  IoSettings settings_;
};

BlockMover::BlockMover(const IoSettings& settings) : settings_(settings) {
  settings_.request_bytes = (std::max(settings.request_bytes, kBlock) + kBlock - 1) / kBlock * kBlock;
  settings_.queue_depth = std::max(settings.queue_depth, 1);
  settings_.threads = std::max(settings.threads, 1);
  for (int thread = 0; thread < settings_.threads; ++thread) {
    queues_.push_back(std::make_unique<RequestQueue>(settings_));
    if (thread > 0) helpers_.push_back(std::make_unique<comm::Lane>());
  }
}

BlockMover::~BlockMover() = default;

void BlockMover::move(Direction direction, int file, bool direct, size_t offset, char* memory, size_t bytes) {
  // Threads get runs of whole requests, as equal as these allow.
  const size_t request = settings_.request_bytes, count = (bytes + request - 1) / request;
  const size_t parts = std::min(queues_.size(), std::max(count, size_t{1}));
  const auto begin_of = [&](size_t part) { return std::min(bytes, count * part / parts * request); };
  std::vector<comm::Lane::Ticket> tickets;
  for (size_t part = 1; part < parts; ++part) {
    const size_t begin = begin_of(part), length = begin_of(part + 1) - begin;
    tickets.push_back(helpers_[part - 1]->submit(
        [=, this] { queues_[part]->move(direction, file, direct, offset + begin, memory + begin, length); }));
  }
  std::exception_ptr failure;
  try {
    queues_[0]->move(direction, file, direct, offset, memory, begin_of(1));
  } catch (...) {
    failure = std::current_exception();
  }
  for (size_t part = 1; part < parts; ++part) {
    try {
      helpers_[part - 1]->wait(tickets[part - 1]);
    } catch (...) {
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace slipstream::io
