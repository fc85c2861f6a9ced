// The intra-op thread pool. The calling thread takes part as thread 0; the workers spin briefly between
// jobs (kernels of one program follow each other within microseconds) and then sleep. Work is claimed, not
// assigned, and a worker that has not joined a job when its last task is claimed is not waited for: on a busy
// machine a thread that the system does not schedule costs little.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace slipstream {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return count_; }

  // Calls body(part) once for every part, 0 <= part < size(), each on a thread of its own where all come in
  // time, and waits for all. One job at a time: not to be called from inside a job.
  template <class Body>
  void run(const Body& body) {
    parallel_tasks(count_, [&](int64_t part, int) { body(static_cast<int>(part)); });
  }

  // Splits [0, count) into contiguous ranges cut at multiples of `grain`, a few for every thread, and calls
  // body(begin, end, thread) for each.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
    const int64_t blocks = (count + grain - 1) / grain;
    if (count_ == 1 || blocks == 1) {
      body(int64_t{0}, count, 0);
      return;
    }
    const int64_t parts = blocks < kRangesPerThread * count_ ? blocks : kRangesPerThread * count_;
    parallel_tasks(parts, [&](int64_t part, int thread) {
      const int64_t begin = blocks * part / parts * grain;
      const int64_t end = blocks * (part + 1) / parts * grain;
      body(begin, end < count ? end : count, thread);
    });
  }

  // Calls body(task, thread) for every task in [0, count), in order of claiming; idle threads take the next
  // one. Results must not depend on which thread runs a task.
  template <class Body>
  void parallel_tasks(int64_t count, const Body& body) {
    if (count <= 0) return;
    if (count_ == 1 || count == 1) {
      for (int64_t task = 0; task < count; task++) body(task, 0);
      return;
    }
    std::atomic<int64_t> next{0};
    const auto work_off = [&](int thread) {
      for (int64_t task = next.fetch_add(1); task < count; task = next.fetch_add(1)) body(task, thread);
    };
    dispatch([](const void* context, int thread) { (*static_cast<decltype(&work_off)>(context))(thread); },
             &work_off);
  }

  // At least `bytes` of this thread's scratch memory, 64-byte aligned, kept between calls: contents are
  // undefined. Kernels keep it to a few MiB; anything larger is planned as a workspace output.
  void* scratch(int thread, size_t bytes);

  // Scratch bytes held by all threads.
  size_t scratch_bytes() const;

 private:
  // More ranges than threads: one whose thread is late or slow holds the others up less.
  static constexpr int64_t kRangesPerThread = 4;

  using Invoke = void (*)(const void*, int);
  void dispatch(Invoke invoke, const void* context);
  void work(int thread);

  struct Scratch {
    void* data = nullptr;
    size_t bytes = 0;
  };

  int count_;
  std::vector<std::thread> workers_;
  std::vector<Scratch> scratch_;
  // The number of the job (high half), whether it can be joined, and how many workers have joined it.
  std::atomic<uint64_t> state_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> sleeping_{0};
  Invoke invoke_ = nullptr;
  const void* context_ = nullptr;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace slipstream
