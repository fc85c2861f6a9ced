// Planned programs and their interpreter. The layout of the words is written by src/runtime/native/encode.ts:
//
//   header   version, symbols, tensors, bindings, constants, groups, tickets, prepare steps, steps, arena
//            bytes, prepared bytes
//   symbols  one bound each
//   tensors  dtype, storage kind, offset or index, rank, then (scale, symbol or -1) a dimension
//   steps    step kind, then
//            kernel: kernel, inputs n, tensor.., outputs n, tensor.., attributes n, value..
//            start:  group, collective kind, ticket, inputs n, tensor.., outputs n, tensor.., dimension,
//                    other dimension, peer, label
//            wait:   ticket
//            (tensor -1: absent)
//
// Prepare steps come before the steps. A collective that was started runs on the lane of its group; until its
// wait step nobody writes its inputs or touches its outputs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/kernel.h"
#include "core/memory.h"
#include "executor/collectives.h"
#include "executor/context.h"

namespace slipstream {

constexpr int kProgramVersion = 2;

enum class StorageKind : int { arena = 0, prepared = 1, binding = 2, constant = 3 };

enum class StepKind : int { kernel = 0, start = 1, wait = 2 };

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
  StepKind kind = StepKind::kernel;
  const KernelEntry* kernel = nullptr;
  std::vector<int> inputs;
  std::vector<int> outputs;
  std::vector<double> attributes;
  PlannedCollective collective;  // of a start; of a wait, its ticket
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
  double wait_seconds = 0;           // in which nothing ran here, until a collective ended
  int failed_step = -1;              // index among prepare steps and steps, with check_finite
  int failed_output = -1;            // which of its outputs
  std::vector<double> step_seconds;  // start and end of each step that ran, since the start of the run
  // with trace: begin and end of each collective on its lane, by ticket, since the start of the run
  std::vector<double> collective_seconds;
};

class Program {
 public:
  // Throws std::runtime_error where the words are malformed or a kernel is missing. The groups live as long
  // as the program.
  Program(std::shared_ptr<ExecutionContext> context, std::span<const double> words,
          const std::vector<std::string>& kernels, Isa isa, std::vector<std::vector<char>> constants,
          std::vector<comm::Group*> groups, const std::vector<std::string>& labels);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Called on the thread of its context. Where it throws or stops early, the groups of its collectives have
  // been ended for every rank: the others would wait for what this rank does not do any more.
  RunReport run(ThreadPool& threads, std::span<const BoundMemory> bindings, std::span<const int64_t> symbols,
                const RunOptions& options);

  // Gives its memory back to the system. It cannot run afterwards. No program of the context may be running.
  void release();

  const std::shared_ptr<ExecutionContext>& context() const { return context_; }

  // Ends the groups, so that a run under way does not wait for ever. Any thread.
  void abort(const std::string& reason) {
    if (collectives_ != nullptr) collectives_->abort(reason);
  }

  size_t binding_count() const { return binding_count_; }
  size_t symbol_count() const { return symbol_bounds_.size(); }

 private:
  void resolve(std::span<const BoundMemory> bindings, std::span<const int64_t> symbols);
  bool run_steps(ThreadPool& threads, const std::vector<PlannedStep>& steps, int first_index,
                 const RunOptions& options, double started, RunReport* report);
  void run_all(ThreadPool& threads, const RunOptions& options, double started, RunReport* report);

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
  std::unique_ptr<Collectives> collectives_;
  std::vector<Tensor> resolved_;
};

}  // namespace slipstream
