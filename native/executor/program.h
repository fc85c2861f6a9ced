// Planned programs and their interpreter. The layout of the words is written by src/runtime/native/encode.ts:
//
//   header   version, symbols, tensors, bindings, constants, prepare steps, steps, arena bytes, prepared
//   bytes symbols  one bound each tensors  dtype, storage kind, offset or index, rank, then (scale, symbol or
//   -1) a dimension steps    kernel, inputs n, tensor.., outputs n, tensor.., attributes n, value.. (tensor
//   -1: absent)
//
// Prepare steps come before the steps.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/kernel.h"
#include "core/memory.h"
#include "executor/context.h"

namespace slipstream {

constexpr int kProgramVersion = 1;

enum class StorageKind : int { arena = 0, prepared = 1, binding = 2, constant = 3 };

struct PlannedDimension {
  int64_t scale;
  int symbol;  // -1: the size is `scale`
};

struct PlannedTensor {
  DType dtype;
  StorageKind storage;
  int64_t place;  // a byte offset, or the index of a binding or constant
  std::vector<PlannedDimension> dimensions;
};

struct PlannedStep {
  const KernelEntry* kernel;
  std::vector<int> inputs;
  std::vector<int> outputs;
  std::vector<double> attributes;
};

struct BoundMemory {
  void* data;
  size_t bytes;
};

struct RunOptions {
  bool prepare = false;       // run the prepare steps first
  bool check_finite = false;  // stop after the first step with a result that is not finite
  bool trace = false;         // record the start and end of every step
};

struct RunReport {
  double seconds = 0;
  double kernel_seconds = 0;
  int failed_step = -1;              // index among prepare steps and steps, with check_finite
  int failed_output = -1;            // which of its outputs
  std::vector<double> step_seconds;  // start and end of each step that ran, since the start of the run
};

class Program {
 public:
  // Throws std::runtime_error where the words are malformed or a kernel is missing.
  Program(std::shared_ptr<ExecutionContext> context, std::span<const double> words,
          const std::vector<std::string>& kernels, Isa isa, std::vector<std::vector<char>> constants);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Called on the thread of its context.
  RunReport run(ThreadPool& threads, std::span<const BoundMemory> bindings, std::span<const int64_t> symbols,
                const RunOptions& options);

  // Gives its memory back to the system. It cannot run afterwards. No program of the context may be running.
  void release();

  const std::shared_ptr<ExecutionContext>& context() const { return context_; }

  size_t binding_count() const { return binding_count_; }
  size_t symbol_count() const { return symbol_bounds_.size(); }

 private:
  void resolve(std::span<const BoundMemory> bindings, std::span<const int64_t> symbols);
  bool run_steps(ThreadPool& threads, const std::vector<PlannedStep>& steps, int first_index,
                 const RunOptions& options, double started, RunReport* report);

  const std::shared_ptr<ExecutionContext> context_;
  std::vector<int64_t> symbol_bounds_;
  std::vector<PlannedTensor> tensors_;
  std::vector<PlannedStep> prepare_, steps_;
  size_t binding_count_ = 0;
  std::vector<std::vector<char>> constants_;
  size_t arena_bytes_ = 0;
  char* arena_ = nullptr;  // of the run at hand
  Memory prepared_;
  bool released_ = false;
  std::vector<Tensor> resolved_;
};

}  // namespace slipstream
