#include "executor/program.h"

#include <chrono>
#include <stdexcept>

#include "executor/finite.h"

namespace slipstream {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Reads the words in order and refuses to read past their end.
class Reader {
 public:
  explicit Reader(std::span<const double> words) : words_(words) {}
  double number() {
    if (next_ >= words_.size()) throw std::runtime_error("internal: a program ends too early");
    return words_[next_++];
  }
  int64_t integer() { return static_cast<int64_t>(number()); }
  int count() {
    const int64_t value = integer();
    if (value < 0 || value > static_cast<int64_t>(words_.size())) {
      throw std::runtime_error("internal: a program holds a count that cannot be");
    }
    return static_cast<int>(value);
  }
  bool finished() const { return next_ == words_.size(); }

 private:
  std::span<const double> words_;
  size_t next_ = 0;
};

std::vector<int> read_indices(Reader& reader, size_t limit) {
  std::vector<int> indices(reader.count());
  for (int& index : indices) {
    index = static_cast<int>(reader.integer());
    if (index < -1 || index >= static_cast<int>(limit)) {
      throw std::runtime_error("internal: a step names a tensor that is not there");
    }
  }
  return indices;
}

PlannedStep read_step(Reader& reader, const std::vector<const KernelEntry*>& kernels, size_t tensors) {
  PlannedStep step;
  const int kernel = reader.count();
  if (kernel >= static_cast<int>(kernels.size())) throw std::runtime_error("internal: unknown kernel index");
  step.kernel = kernels[kernel];
  step.inputs = read_indices(reader, tensors);
  step.outputs = read_indices(reader, tensors);
  step.attributes.resize(reader.count());
  for (double& attribute : step.attributes) attribute = reader.number();
  return step;
}

}  // namespace

Program::Program(std::shared_ptr<ExecutionContext> context, std::span<const double> words,
                 const std::vector<std::string>& names, Isa isa, std::vector<std::vector<char>> constants)
    : context_(std::move(context)), constants_(std::move(constants)) {
  std::vector<const KernelEntry*> kernels;
  for (const std::string& name : names) {
    const KernelEntry* kernel = find_kernel(name, isa);
    if (kernel == nullptr) throw std::runtime_error("internal: there is no kernel \"" + name + "\"");
    kernels.push_back(kernel);
  }
  Reader reader(words);
  if (reader.integer() != kProgramVersion) throw std::runtime_error("internal: another program version");
  symbol_bounds_.resize(reader.count());
  tensors_.resize(reader.count());
  binding_count_ = reader.count();
  if (reader.count() != static_cast<int>(constants_.size())) {
    throw std::runtime_error("internal: another number of constants");
  }
  prepare_.resize(reader.count());
  steps_.resize(reader.count());
  const int64_t arena_bytes = reader.integer(), prepared_bytes = reader.integer();
  for (int64_t& bound : symbol_bounds_) bound = reader.integer();
  for (PlannedTensor& tensor : tensors_) {
    tensor.dtype = static_cast<DType>(reader.integer());
    tensor.storage = static_cast<StorageKind>(reader.integer());
    tensor.place = reader.integer();
    tensor.dimensions.resize(reader.count());
    if (tensor.dimensions.size() > kMaximumRank) throw std::runtime_error("internal: too many dimensions");
    for (PlannedDimension& dimension : tensor.dimensions) {
      dimension.scale = reader.integer();
      dimension.symbol = static_cast<int>(reader.integer());
      if (dimension.symbol >= static_cast<int>(symbol_bounds_.size())) {
        throw std::runtime_error("internal: unknown symbol");
      }
    }
  }
  for (PlannedStep& step : prepare_) step = read_step(reader, kernels, tensors_.size());
  for (PlannedStep& step : steps_) step = read_step(reader, kernels, tensors_.size());
  if (!reader.finished()) throw std::runtime_error("internal: a program has words left over");
  prepared_ = Memory(prepared_bytes);
  context_->arena().require(static_cast<size_t>(arena_bytes));
  arena_bytes_ = static_cast<size_t>(arena_bytes);
}

void Program::resolve(std::span<const BoundMemory> bindings, std::span<const int64_t> symbols) {
  // An empty tensor may have no address; kernels read absence from null.
  static char nothing[64];
  resolved_.resize(tensors_.size());
  for (size_t index = 0; index < tensors_.size(); index++) {
    const PlannedTensor& planned = tensors_[index];
    Tensor& tensor = resolved_[index];
    tensor.dtype = planned.dtype;
    tensor.rank = static_cast<int32_t>(planned.dimensions.size());
    for (int axis = 0; axis < tensor.rank; axis++) {
      const PlannedDimension& dimension = planned.dimensions[axis];
      tensor.sizes[axis] = dimension.scale * (dimension.symbol < 0 ? 1 : symbols[dimension.symbol]);
    }
    const size_t bytes = static_cast<size_t>(tensor.bytes());
    BoundMemory memory{nullptr, 0};
    switch (planned.storage) {
      case StorageKind::arena:
        memory = {arena_ + planned.place, arena_bytes_ - planned.place};
        break;
      case StorageKind::prepared:
        memory = {prepared_.data() + planned.place, prepared_.bytes() - planned.place};
        break;
      case StorageKind::binding:
        memory = bindings[planned.place];
        break;
      case StorageKind::constant:
        memory = {constants_[planned.place].data(), constants_[planned.place].size()};
        break;
    }
    if (memory.bytes < bytes) throw std::runtime_error("internal: a tensor does not fit its memory");
    tensor.data = bytes == 0 || memory.data == nullptr ? nothing : memory.data;
  }
}

bool Program::run_steps(ThreadPool& threads, const std::vector<PlannedStep>& steps, int first_index,
                        const RunOptions& options, double started, RunReport* report) {
  std::vector<Tensor> inputs, outputs;
  for (size_t index = 0; index < steps.size(); index++) {
    const PlannedStep& step = steps[index];
    inputs.clear();
    outputs.clear();
    for (int tensor : step.inputs) inputs.push_back(tensor < 0 ? Tensor{} : resolved_[tensor]);
    for (int tensor : step.outputs) outputs.push_back(tensor < 0 ? Tensor{} : resolved_[tensor]);
    const double before = now();
    step.kernel->function({inputs.data(), static_cast<int>(inputs.size()), outputs.data(),
                           static_cast<int>(outputs.size()), step.attributes.data(),
                           static_cast<int>(step.attributes.size()), threads});
    const double after = now();
    report->kernel_seconds += after - before;
    if (options.trace) {
      report->step_seconds.push_back(before - started);
      report->step_seconds.push_back(after - started);
    }
    if (!options.check_finite) continue;
    for (size_t output = 0; output < outputs.size(); output++) {
      if (!outputs[output].present() || all_finite(outputs[output])) continue;
      report->failed_step = first_index + static_cast<int>(index);
      report->failed_output = static_cast<int>(output);
      return false;
    }
  }
  return true;
}

// The arena may be in use by a program that runs: `release` alone trims it.
Program::~Program() {
  if (!released_) context_->arena().give_back(arena_bytes_);
}

void Program::release() {
  if (released_) return;
  context_->arena().give_back(arena_bytes_);
  context_->arena().trim();
  prepared_ = Memory();
  released_ = true;
}

RunReport Program::run(ThreadPool& threads, std::span<const BoundMemory> bindings,
                       std::span<const int64_t> symbols, const RunOptions& options) {
  for (size_t symbol = 0; symbol < symbol_bounds_.size(); symbol++) {
    if (symbols[symbol] < 0 || symbols[symbol] > symbol_bounds_[symbol]) {
      throw std::runtime_error("internal: a symbol is out of its bounds");
    }
  }
  if (released_) throw std::runtime_error("internal: the program was released");
  RunReport report;
  const double started = now();
  arena_ = context_->arena().data();
  resolve(bindings, symbols);
  bool going = true;
  if (options.prepare) going = run_steps(threads, prepare_, 0, options, started, &report);
  if (going) run_steps(threads, steps_, static_cast<int>(prepare_.size()), options, started, &report);
  report.seconds = now() - started;
  return report;
}

}  // namespace slipstream
