#include "executor/program.h"

#include <stdexcept>

#include "executor/clock.h"
#include "executor/finite.h"

namespace slipstream {

namespace {

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

// What steps may refer to.
struct Limits {
  const std::vector<const KernelEntry*>& kernels;
  const std::vector<std::string>& labels;
  size_t tensors, groups, tickets;
};

int read_index(Reader& reader, size_t limit, const char* what) {
  const int64_t index = reader.integer();
  if (index < 0 || index >= static_cast<int64_t>(limit)) {
    throw std::runtime_error(std::string("internal: unknown ") + what);
  }
  return static_cast<int>(index);
}

PlannedStep read_step(Reader& reader, const Limits& limits) {
  PlannedStep step;
  step.kind = static_cast<StepKind>(read_index(reader, 3, "step kind"));
  PlannedCollective& collective = step.collective;
  switch (step.kind) {
    case StepKind::kernel:
      step.kernel = limits.kernels[read_index(reader, limits.kernels.size(), "kernel index")];
      break;
    case StepKind::start:
      collective.group = read_index(reader, limits.groups, "group");
      collective.kind = static_cast<comm::CollectiveKind>(reader.integer());
      collective.ticket = read_index(reader, limits.tickets, "ticket");
      break;
    case StepKind::wait:
      collective.ticket = read_index(reader, limits.tickets, "ticket");
      return step;
  }
  step.inputs = read_indices(reader, limits.tensors);
  step.outputs = read_indices(reader, limits.tensors);
  if (step.kind == StepKind::start) {
    collective.dimension = static_cast<int>(reader.integer());
    collective.other_dimension = static_cast<int>(reader.integer());
    collective.peer = static_cast<int>(reader.integer());
    collective.label = limits.labels[read_index(reader, limits.labels.size(), "label")];
    return step;
  }
  step.attributes.resize(reader.count());
  for (double& attribute : step.attributes) attribute = reader.number();
  return step;
}

}  // namespace

Program::Program(std::shared_ptr<ExecutionContext> context, std::span<const double> words,
                 const std::vector<std::string>& names, Isa isa, std::vector<std::vector<char>> constants,
                 std::vector<comm::Group*> groups, const std::vector<std::string>& labels)
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
  if (reader.count() != static_cast<int>(groups.size())) {
    throw std::runtime_error("internal: another number of groups");
  }
  const size_t tickets = reader.count();
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
  const Limits limits{kernels, labels, tensors_.size(), groups.size(), tickets};
  for (PlannedStep& step : prepare_) step = read_step(reader, limits);
  for (PlannedStep& step : steps_) step = read_step(reader, limits);
  if (!reader.finished()) throw std::runtime_error("internal: a program has words left over");
  if (!groups.empty()) collectives_ = std::make_unique<Collectives>(std::move(groups), tickets);
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
    std::span<const Tensor> results = outputs;
    const PlannedStep* next = index + 1 < steps.size() ? &steps[index + 1] : nullptr;
    const bool at_once = step.kind == StepKind::start && next != nullptr && next->kind == StepKind::wait &&
                         next->collective.ticket == step.collective.ticket;
    const double before = steady_seconds();
    switch (step.kind) {
      case StepKind::kernel:
        step.kernel->function({inputs.data(), static_cast<int>(inputs.size()), outputs.data(),
                               static_cast<int>(outputs.size()), step.attributes.data(),
                               static_cast<int>(step.attributes.size()), threads});
        break;
      case StepKind::start:
        collectives_->start(step.collective, inputs, outputs, at_once);
        results = {};
        break;
      case StepKind::wait:
        results = collectives_->wait(step.collective.ticket);
        break;
    }
    const double after = steady_seconds();
    if (step.kind == StepKind::kernel) report->kernel_seconds += after - before;
    if (step.kind == StepKind::wait || at_once) report->wait_seconds += after - before;
    if (options.trace) {
      report->step_seconds.push_back(before - started);
      report->step_seconds.push_back(after - started);
    }
    if (!options.check_finite) continue;
    for (size_t result = 0; result < results.size(); result++) {
      if (!results[result].present() || all_finite(results[result])) continue;
      report->failed_step = first_index + static_cast<int>(index);
      report->failed_output = static_cast<int>(result);
      return false;
    }
  }
  return true;
}

void Program::run_all(ThreadPool& threads, const RunOptions& options, double started, RunReport* report) {
  bool going = true;
  if (options.prepare) going = run_steps(threads, prepare_, 0, options, started, report);
  if (going) going = run_steps(threads, steps_, static_cast<int>(prepare_.size()), options, started, report);
  if (!going && collectives_ != nullptr) collectives_->give_up("it stopped at a result that is not finite");
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
  const double started = steady_seconds();
  arena_ = context_->arena().data();
  resolve(bindings, symbols);
  try {
    run_all(threads, options, started, &report);
  } catch (const std::exception& error) {
    if (collectives_ != nullptr) collectives_->give_up(error.what());
    throw;
  }
  report.seconds = steady_seconds() - started;
  if (!options.trace || collectives_ == nullptr) return report;
  for (size_t ticket = 0; ticket < collectives_->tickets(); ticket++) {
    const Collectives::Span span = collectives_->span(ticket);
    report.collective_seconds.push_back(span.begin - started);
    report.collective_seconds.push_back(span.end - started);
  }
  return report;
}

}  // namespace slipstream
