// The intra-op thread pool. The calling thread takes part as thread 0; the workers spin briefly between
// jobs (kernels of one program follow each other within microseconds) and then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
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

  // Calls body(thread) once on every thread, 0 <= thread < size(), and waits for all. One job at a time:
  // not to be called from inside a job.
  template <class Body>
  void run(const Body& body) {
    if (count_ == 1) {
      body(0);
      return;
    }
    dispatch([](const void* context, int thread) { (*static_cast<const Body*>(context))(thread); }, &body);
  }

  // Splits [0, count) into one contiguous range a thread, cut at multiples of `grain`, and calls
  // body(begin, end, thread) for the ranges that are not empty.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
    const int64_t blocks = (count + grain - 1) / grain;
    if (count_ == 1 || blocks == 1) {
      body(int64_t{0}, count, 0);
      return;
    }
    run([&](int thread) {
      const int64_t begin = blocks * thread / count_ * grain;
      const int64_t end = blocks * (thread + 1) / count_ * grain;
      if (begin < count && begin < end) body(begin, end < count ? end : count, thread);
    });
  }

  // Calls body(task, thread) for every task in [0, count); idle threads take the next one. For tasks of
  // uneven size whose results do not depend on which thread runs them.
  template <class Body>
  void parallel_tasks(int64_t count, const Body& body) {
    if (count <= 0) return;
    if (count_ == 1 || count == 1) {
      for (int64_t task = 0; task < count; task++) body(task, 0);
      return;
    }
    std::atomic<int64_t> next{0};
    run([&](int thread) {
      for (int64_t task = next.fetch_add(1); task < count; task = next.fetch_add(1)) body(task, thread);
    });
  }

  // At least `bytes` of this thread's scratch memory, 64-byte aligned, kept between calls: contents are
  // undefined. Kernels keep it to a few MiB; anything larger is planned as a workspace output.
  void* scratch(int thread, size_t bytes);

  // Scratch bytes held by all threads.
  size_t scratch_bytes() const;

 private:
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
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> sleeping_{0};
  Invoke invoke_ = nullptr;
  const void* context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace slipstream
