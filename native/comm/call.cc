#include "comm/call.h"

#include <bit>
#include <numeric>
#include <stdexcept>

#include "comm/sum.h"

namespace slipstream::comm {

namespace {

constexpr const char* kKindNames[] = {
    "barrier",   "all_reduce", "reduce_scatter", "all_gather",          "all_to_all", "permute",
    "broadcast", "send",       "receive",        "all_to_all_variable", "exchange"};
constexpr const char* kDTypeNames[] = {"f32", "bf16", "f16", "i32", "u8", "i8", "f64"};

bool lengths_may_differ(CollectiveKind kind) {
  return kind == CollectiveKind::all_to_all_variable || kind == CollectiveKind::exchange;
}

void add_tensors(std::span<const Tensor> tensors, bool with_shape, std::vector<int64_t>* words) {
  words->push_back(static_cast<int64_t>(tensors.size()));
  for (const Tensor& tensor : tensors) {
    words->push_back(static_cast<int64_t>(tensor.dtype));
    words->push_back(with_shape ? tensor.rank : -1);
    if (!with_shape) continue;
    for (int axis = 0; axis < tensor.rank; axis++) words->push_back(tensor.sizes[axis]);
  }
}

std::string shapes_of(const std::vector<int64_t>& words, size_t begin) {
  std::string text;
  const int64_t count = words[begin];
  size_t at = begin + 1;
  for (int64_t index = 0; index < count; index++) {
    const char* dtype = kDTypeNames[words[at]];
    const int64_t rank = words[at + 1];
    at += 2;
    // A long bucket is told by its first tensors.
    const bool told = index < 3;
    if (told) text += std::string(index > 0 ? ", " : " ") + dtype;
    if (rank < 0) continue;
    if (told) text += "[";
    for (int64_t axis = 0; axis < rank; axis++) {
      if (told) text += (axis > 0 ? ", " : "") + std::to_string(words[at]);
      at++;
    }
    if (told) text += "]";
  }
  if (count > 3) text += " and " + std::to_string(count - 3) + " more";
  return text;
}

int64_t bytes_of(std::span<const Tensor> tensors) {
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

}  // namespace

void take_fingerprint(const CollectiveCall& call, Fingerprint* result) {
  const CollectiveKind kind = call.kind;
  // Who sends and who receives call by different kinds, but for the same tensors.
  const bool pair = kind == CollectiveKind::send || kind == CollectiveKind::receive;
  result->words.clear();
  result->words.push_back(static_cast<int64_t>(kind));
  result->words.push_back(call.dimension);
  result->words.push_back(call.other_dimension);
  result->words.push_back(pair ? 0 : call.peer);
  const bool from_outputs = kind == CollectiveKind::receive;
  add_tensors(from_outputs ? call.outputs : call.inputs, !lengths_may_differ(kind), &result->words);
  result->label = call.label;
}

std::string describe(const Fingerprint& fingerprint) {
  const std::vector<int64_t>& words = fingerprint.words;
  const auto kind = static_cast<CollectiveKind>(words[0]);
  std::string text = kKindNames[words[0]];
  if (!fingerprint.label.empty()) text += " \"" + fingerprint.label + "\"";
  if (kind == CollectiveKind::barrier || kind == CollectiveKind::exchange) return text;
  text += " of" + shapes_of(words, 4);
  switch (kind) {
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_gather:
      if (words[1] != 0) text += " along dimension " + std::to_string(words[1]);
      break;
    case CollectiveKind::all_to_all:
      if (words[1] == 0 && words[2] == 0) break;
      text += " from dimension " + std::to_string(words[1]) + " to " + std::to_string(words[2]);
      break;
    case CollectiveKind::permute:
      text += " by " + std::to_string(words[3]);
      break;
    case CollectiveKind::broadcast:
      text += " from rank " + std::to_string(words[3]) + " of the group";
      break;
    default:
      break;
  }
  return text;
}

Cost cost_of(const CollectiveCall& call, int rank, int size) {
  const double input = static_cast<double>(bytes_of(call.inputs));
  const double others = size - 1;
  const double part = others / size;
  switch (call.kind) {
    case CollectiveKind::barrier:
      return {0, static_cast<int>(std::bit_width(static_cast<unsigned>(size - 1)))};
    case CollectiveKind::all_reduce:
      return {2 * part * input, 2 * (size - 1)};
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all:
      return {part * input, size - 1};
    case CollectiveKind::all_gather:
    case CollectiveKind::exchange:
      return {others * input, size - 1};
    case CollectiveKind::permute:
      return {call.peer % size == 0 ? 0 : input, 1};
    case CollectiveKind::broadcast:
      return {input, size - 1};
    case CollectiveKind::send:
      return {input, 1};
    case CollectiveKind::receive:
      return {};
    case CollectiveKind::all_to_all_variable: {
      int64_t elements = 0;
      for (int peer = 0; peer < size; peer++) {
        if (peer != rank) elements += call.send_counts[static_cast<size_t>(peer)];
      }
      return {static_cast<double>(elements * bytes_per_element(call.inputs[0].dtype)), size - 1};
    }
  }
  return {};
}

void validate(const CollectiveCall& call, int rank, int size) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::logic_error(std::string("internal: ") + what);
  };
  const CollectiveKind kind = call.kind;
  const bool paired = kind != CollectiveKind::barrier && kind != CollectiveKind::exchange &&
                      kind != CollectiveKind::send && kind != CollectiveKind::receive;
  if (paired) require(call.inputs.size() == call.outputs.size(), "a collective needs an output an input");
  if (kind == CollectiveKind::exchange) {
    require(call.inputs.size() == 1 && call.received != nullptr, "exchange takes one tensor");
    return;
  }
  if (kind == CollectiveKind::all_to_all_variable) {
    const auto count = static_cast<size_t>(size);
    require(call.inputs.size() == 1, "all_to_all_variable takes one tensor");
    require(call.send_counts.size() == count && call.receive_counts.size() == count, "a count a rank");
    const auto total = [](std::span<const int64_t> counts) {
      return std::accumulate(counts.begin(), counts.end(), int64_t{0});
    };
    require(total(call.send_counts) <= call.inputs[0].elements(), "more is sent than there is");
    require(total(call.receive_counts) <= call.outputs[0].elements(), "more is received than fits");
    require(call.send_counts[static_cast<size_t>(rank)] == call.receive_counts[static_cast<size_t>(rank)],
            "a rank receives from itself what it sends");
    return;
  }
  if (kind == CollectiveKind::broadcast || kind == CollectiveKind::send || kind == CollectiveKind::receive) {
    require(call.peer >= 0 && call.peer < size, "no such rank");
  }
  if (!paired) return;
  for (size_t index = 0; index < call.inputs.size(); index++) {
    const Tensor& input = call.inputs[index];
    const Tensor& output = call.outputs[index];
    require(input.dtype == output.dtype, "a collective does not convert");
    int64_t elements = input.elements();
    const bool sums = kind == CollectiveKind::all_reduce || kind == CollectiveKind::reduce_scatter;
    if (sums) require(sum_function(input.dtype) != nullptr, "this dtype cannot be summed");
    if (kind == CollectiveKind::reduce_scatter || kind == CollectiveKind::all_to_all) {
      require(call.dimension >= 0 && call.dimension < input.rank, "no such dimension");
      require(input.sizes[call.dimension] % size == 0, "a dimension does not divide by the ranks");
    }
    if (kind == CollectiveKind::all_to_all) {
      require(call.other_dimension >= 0 && call.other_dimension < input.rank, "no such dimension");
    }
    if (kind == CollectiveKind::all_gather) {
      require(call.dimension >= 0 && call.dimension < input.rank, "no such dimension");
      elements *= size;
    }
    if (kind == CollectiveKind::reduce_scatter) elements /= size;
    require(output.elements() == elements, "an output has another size than the collective gives");
  }
}

std::string list_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t index = 0; index < ranks.size(); index++) {
    if (index > 0) text += index + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[index]);
  }
  return text;
}

}  // namespace slipstream::comm
