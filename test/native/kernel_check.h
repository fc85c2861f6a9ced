// Runs a kernel's NEON variant and its scalar twin on the same operands and compares what they write.
//
// Every operand ends where its page ends, and the next page may not be touched: a vector that reads or writes
// behind its operand ends the program.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/float16.h"
#include "core/kernel.h"

namespace slipstream {

// Memory that ends at a page which may not be touched.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes) : bytes_(bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + page - 1) / page * page + page;
    void* mapping = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) std::abort();
    mapping_ = static_cast<char*>(mapping);
    if (mprotect(mapping_ + mapped_ - page, page, PROT_NONE) != 0) std::abort();
    data_ = mapping_ + mapped_ - page - bytes;
  }
  ~GuardedMemory() { munmap(mapping_, mapped_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_, mapped_;
  char *mapping_, *data_;
};

// A tensor with memory of its own.
struct Operand {
  Tensor tensor;
  std::shared_ptr<GuardedMemory> memory;

  double at(int64_t i) const {
    switch (tensor.dtype) {
      case DType::bf16:
        return to_float(tensor.as<bf16>()[i]);
      case DType::f16:
        return to_float(tensor.as<f16>()[i]);
      case DType::i32:
        return tensor.as<int32_t>()[i];
      case DType::u8:
        return tensor.as<uint8_t>()[i];
      case DType::i8:
        return tensor.as<int8_t>()[i];
      default:
        return tensor.as<float>()[i];
    }
  }
  void set(int64_t i, double value) const {
    switch (tensor.dtype) {
      case DType::bf16:
        tensor.as<bf16>()[i] = to_bf16(static_cast<float>(value));
        break;
      case DType::f16:
        tensor.as<f16>()[i] = to_f16(static_cast<float>(value));
        break;
      case DType::i32:
        tensor.as<int32_t>()[i] = static_cast<int32_t>(value);
        break;
      case DType::u8:
        tensor.as<uint8_t>()[i] = static_cast<uint8_t>(value);
        break;
      case DType::i8:
        tensor.as<int8_t>()[i] = static_cast<int8_t>(value);
        break;
      default:
        tensor.as<float>()[i] = static_cast<float>(value);
    }
  }
};

using Shape = std::vector<int64_t>;

inline Operand zeros(DType dtype, const Shape& shape) {
  Operand operand;
  operand.tensor.dtype = dtype;
  operand.tensor.rank = static_cast<int32_t>(shape.size());
  for (size_t axis = 0; axis < shape.size(); axis++) operand.tensor.sizes[axis] = shape[axis];
  operand.memory = std::make_shared<GuardedMemory>(static_cast<size_t>(operand.tensor.bytes()));
  operand.tensor.data = operand.memory->data();
  return operand;
}

inline Operand absent() { return {}; }

inline Operand copy_of(const Operand& other) {
  if (!other.tensor.present()) return other;
  Operand operand = other;
  operand.memory = std::make_shared<GuardedMemory>(other.memory->bytes());
  operand.tensor.data = operand.memory->data();
  std::memcpy(operand.memory->data(), other.memory->data(), other.memory->bytes());
  return operand;
}

inline Operand values_of(DType dtype, const Shape& shape, const std::vector<double>& values) {
  const Operand operand = zeros(dtype, shape);
  for (size_t i = 0; i < values.size(); i++) operand.set(static_cast<int64_t>(i), values[i]);
  return operand;
}

// A number in [0, 1): the same ones in every run (Steele, Lea and Flood's splitmix64).
inline double next_uniform() {
  static uint64_t state = 1;
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Numbers in [low, high).
inline Operand uniform(DType dtype, const Shape& shape, double low = -1, double high = 1) {
  const Operand operand = zeros(dtype, shape);
  const int64_t count = operand.tensor.elements();
  for (int64_t i = 0; i < count; i++) operand.set(i, low + (high - low) * next_uniform());
  return operand;
}

// Integers in [low, high).
inline Operand integers(const Shape& shape, int low, int high) {
  const Operand operand = zeros(DType::i32, shape);
  const int64_t count = operand.tensor.elements();
  for (int64_t i = 0; i < count; i++) operand.set(i, std::floor(low + (high - low) * next_uniform()));
  return operand;
}

// The bars of kernels against their scalar twins: relative error of a whole tensor, by the number of terms in
// its longest sum, and for results that were rounded to 16 bits.
inline double float32_bar(int64_t terms) { return 1e-6 * std::sqrt(static_cast<double>(terms)); }
constexpr double kRoundedBar = 4e-3;
constexpr double kExact = 0;

// What is held to the bar: |actual - expected| / |expected| of the whole tensor (Frobenius), or of each
// element.
enum class Measure { whole, each };

class Checker {
 public:
  // Runs kernel `name` both ways; `outputs` are also what the kernel finds in them. Returns what the scalar
  // twin wrote. Results of 16 bits are held to kRoundedBar at least, unless `bar` is kExact.
  std::vector<Operand> compare(const std::string& name, const std::string& label,
                               const std::vector<Operand>& inputs, const std::vector<Operand>& outputs,
                               const std::vector<double>& attributes, double bar,
                               Measure measure = Measure::whole) {
    const std::vector<Operand> expected = run(name, Isa::scalar, inputs, outputs, attributes, one_thread_);
    const std::vector<Operand> actual = run(name, Isa::neon, inputs, outputs, attributes, threads_);
    const std::vector<Operand> alone = run(name, Isa::neon, inputs, outputs, attributes, one_thread_);
    for (size_t i = 0; i < outputs.size(); i++) {
      if (!outputs[i].tensor.present()) continue;
      const DType dtype = outputs[i].tensor.dtype;
      const bool rounded = bar > 0 && (dtype == DType::bf16 || dtype == DType::f16);
      const double allowed = rounded && bar < kRoundedBar ? kRoundedBar : bar;
      const double error = difference(actual[i], expected[i], measure);
      // Not `error > allowed`: a NaN must fail.
      if (!(error <= allowed)) fail(name, label, i, "differs from the scalar twin by", error, allowed);
      const size_t bytes = actual[i].memory->bytes();
      if (std::memcmp(actual[i].memory->data(), alone[i].memory->data(), bytes) != 0) {
        fail(name, label, i, "depends on the number of threads: differs by",
             difference(actual[i], alone[i], Measure::each), 0);
      }
    }
    cases_++;
    return expected;
  }

  // Runs one variant on copies of the outputs, and returns these.
  std::vector<Operand> run(const std::string& name, Isa isa, const std::vector<Operand>& inputs,
                           const std::vector<Operand>& outputs, const std::vector<double>& attributes,
                           ThreadPool& threads) {
    const KernelEntry* entry = find_kernel(name, isa);
    if (entry == nullptr || entry->isa != isa) {
      std::printf("FAILED: there is no %s variant of %s\n", isa_name(isa), name.c_str());
      std::exit(1);
    }
    if (isa == Isa::neon) checked_.insert(name);
    std::vector<Operand> written;
    std::vector<Tensor> input_tensors, output_tensors;
    for (const Operand& operand : inputs) input_tensors.push_back(operand.tensor);
    for (const Operand& operand : outputs) {
      written.push_back(copy_of(operand));
      output_tensors.push_back(written.back().tensor);
    }
    entry->function({input_tensors.data(), static_cast<int>(inputs.size()), output_tensors.data(),
                     static_cast<int>(outputs.size()), attributes.data(), static_cast<int>(attributes.size()),
                     threads});
    return written;
  }

  void expect(const std::string& name, const std::string& label, double actual, double expected) {
    if (!(actual == expected))
      fail(name, label, 0, "is not what was calculated: off by", actual - expected, 0);
    cases_++;
  }

  ThreadPool& threads() { return threads_; }

  // Reports kernels that no case ran; returns the exit status.
  int finish() {
    for (const KernelEntry& entry : all_kernels()) {
      if (entry.isa != Isa::neon || checked_.count(entry.name) > 0) continue;
      std::printf("FAILED: no case runs the NEON variant of %s\n", entry.name.c_str());
      failures_++;
    }
    std::printf("%d cases of %zu kernels, %d failed\n", cases_, checked_.size(), failures_);
    return failures_ == 0 ? 0 : 1;
  }

 private:
  // Over the finite elements; infinite where the others are not the same.
  static double difference(const Operand& actual, const Operand& expected, Measure measure) {
    double squares = 0, norm = 0, worst = 0;
    const int64_t count = expected.tensor.elements();
    for (int64_t i = 0; i < count; i++) {
      const double a = actual.at(i), e = expected.at(i);
      if (!std::isfinite(a) || !std::isfinite(e)) {
        if (a == e || (std::isnan(a) && std::isnan(e))) continue;
        return INFINITY;
      }
      squares += (a - e) * (a - e);
      norm += e * e;
      worst = std::fmax(worst, std::fabs(a - e) / (e == 0 ? 1 : std::fabs(e)));
    }
    if (measure == Measure::each) return worst;
    return std::sqrt(norm == 0 ? squares : squares / norm);
  }

  void fail(const std::string& name, const std::string& label, size_t output, const char* what, double error,
            double allowed) {
    std::printf("FAILED: %s (%s), output %zu %s %.3g; allowed: %.3g\n", name.c_str(), label.c_str(), output,
                what, error, allowed);
    failures_++;
  }

  ThreadPool threads_{3}, one_thread_{1};
  std::set<std::string> checked_;
  int cases_ = 0, failures_ = 0;
};

}  // namespace slipstream
