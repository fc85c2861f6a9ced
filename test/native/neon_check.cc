// Every NEON kernel against its scalar twin, over shapes that divide no vector and no tile. Run by
// scripts/check-neon.ts, on an arm64 machine or in an emulator.
#include <bit>

#include "kernel_check.h"

namespace slipstream {
namespace {

const DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

const char* name_of(DType dtype) {
  return dtype == DType::f32 ? "f32" : dtype == DType::bf16 ? "bf16" : dtype == DType::f16 ? "f16" : "other";
}

std::string label_of(DType dtype, std::initializer_list<int64_t> numbers) {
  std::string label = name_of(dtype);
  for (const int64_t number : numbers) label.append(" ").append(std::to_string(number));
  return label;
}

void check_matmul(Checker& check) {
  const int64_t sizes[][3] = {{1, 1, 1},    {3, 33, 5}, {13, 31, 70}, {25, 70, 301},
                              {131, 5, 33}, {7, 0, 3},  {5, 6, 0}};
  int variant = 0;
  for (const auto& [rows, columns, depth] : sizes) {
    for (const DType dtype : kFloats) {
      for (int transposes = 0; transposes < 4; transposes++, variant++) {
        const bool transpose_a = transposes & 1, transpose_b = transposes & 2;
        const DType other = kFloats[variant / 3 % 3], output = kFloats[variant / 4 % 3];
        const Operand a = uniform(dtype, transpose_a ? Shape{2, depth, rows} : Shape{2, rows, depth});
        const Operand b = uniform(dtype, transpose_b ? Shape{columns, depth} : Shape{depth, columns});
        const Operand bias = variant % 2 ? uniform(other, {columns}) : absent();
        const Operand residual = variant % 3 ? uniform(other, {2, rows, columns}) : absent();
        const bool accumulate = variant % 5 == 4;
        const Operand c = uniform(accumulate ? DType::f32 : output, {2, rows, columns});
        check.compare("matmul", label_of(dtype, {rows, columns, depth, transposes}), {a, b, bias, residual},
                      {c},
                      {double(transpose_a), double(transpose_b), double(variant % 5), double(accumulate)},
                      float32_bar(depth + 2));
      }
    }
  }
}

void check_packed(Checker& check) {
  for (const DType packed : {DType::f32, DType::bf16}) {
    for (const DType dtype : kFloats) {
      for (const bool transpose : {false, true}) {
        const int64_t rows = 29, columns = 45, depth = 77;
        const Operand b = uniform(dtype, transpose ? Shape{columns, depth} : Shape{depth, columns});
        const int64_t padded = packed == DType::bf16 ? (depth + 31) / 32 * 32 : depth;
        const int64_t bytes = (columns + 31) / 32 * 32 * padded * bytes_per_element(packed);
        const std::string label = label_of(dtype, {packed == DType::bf16, transpose});
        const double code = static_cast<double>(packed);
        const Operand panels = check.compare("pack_matrix", label, {b}, {zeros(DType::u8, {bytes})},
                                             {double(transpose), code}, kExact)[0];
        check.compare("matmul_packed", label, {uniform(dtype, {rows, depth}), panels},
                      {zeros(DType::f32, {rows, columns})}, {double(depth), double(columns), code, 2, 0},
                      float32_bar(depth));
      }
    }
  }
}

void check_linear_cross_entropy(Checker& check) {
  for (const DType dtype : kFloats) {
    for (const int64_t vocabulary : {7, 1030}) {
      const int64_t tokens = 21, depth = 37;
      const Operand hidden = uniform(dtype, {tokens, depth}), weight = uniform(dtype, {vocabulary, depth});
      const Operand targets = integers({tokens}, -1, static_cast<int>(vocabulary));
      const Operand losses = zeros(DType::f32, {tokens});
      const std::string label = label_of(dtype, {vocabulary});
      check.compare("linear_cross_entropy", label, {hidden, weight, targets}, {losses}, {},
                    float32_bar(depth));
      // Gradients of the logits are rounded to bf16 where the products are.
      check.compare("linear_cross_entropy_gradient", label,
                    {uniform(DType::f32, {tokens}), hidden, weight, targets},
                    {losses, zeros(dtype, {tokens, depth}), uniform(DType::f32, {vocabulary, depth})}, {1},
                    dtype == DType::bf16 ? kRoundedBar : float32_bar(vocabulary));
    }
  }
}

void check_measures(Checker& check) {
  const Operand operations = zeros(DType::f32, {1});
  for (const double kind : {0.0, 1.0}) {
    const auto counted = check.run("measure_peak", Isa::neon, {}, {operations}, {kind, 10}, check.threads());
    // 24 chains of 4 lanes, two operations each, ten times.
    check.expect("measure_peak", "operations", counted[0].at(0), 24 * 4 * 2 * 10 * check.threads().size());
  }
  const Operand bytes = values_of(DType::u8, {4099}, {});
  const Operand sums = uniform(DType::f32, {check.threads().size()});
  const auto read = check.run("measure_bandwidth", Isa::neon, {bytes}, {sums}, {}, check.threads());
  for (int thread = 0; thread < check.threads().size(); thread++) {
    check.expect("measure_bandwidth", "sum of zeros", read[0].at(thread), 0);
  }
}

int64_t packed_bytes(const std::vector<double>& format, int64_t rows, int64_t columns) {
  const int64_t bits = static_cast<int64_t>(format[0]), group = static_cast<int64_t>(format[1]);
  const int64_t step = group == 0 ? 64 : group, padded = (columns + step - 1) / step * step;
  const int64_t header = group == 0 ? 128 : 64 * (format[2] != 0 ? 2 : 1);
  return (rows + 31) / 32 * (padded * 4 * bits + (group == 0 ? 1 : padded / group) * header);
}

void check_quantized(Checker& check) {
  const int64_t columns = 45, depth = 172;
  const std::vector<double> formats[] = {{8, 0, 0},  {8, 16, 0}, {8, 32, 0}, {8, 32, 1},
                                         {4, 32, 0}, {4, 32, 1}, {4, 128, 1}};
  for (const auto& format : formats) {
    const int64_t group = static_cast<int64_t>(format[1]), step = group == 0 ? 64 : group;
    const int64_t padded = (depth + step - 1) / step * step, groups = group == 0 ? 1 : padded / group;
    for (const DType dtype : kFloats) {
      const std::string label = label_of(dtype, {static_cast<int64_t>(format[0]), group});
      const Operand packed =
          check.compare("quantize_matrix", label, {uniform(dtype, {columns, depth})},
                        {zeros(DType::u8, {packed_bytes(format, columns, depth)})}, format, kExact)[0];
      std::vector<double> matrix = format;
      matrix.push_back(depth);
      check.compare("dequantize_matrix", label, {packed}, {zeros(dtype, {columns, depth})}, matrix, kExact);
      check.compare("embedding_quantized", label, {packed, integers({5}, 0, static_cast<int>(columns))},
                    {zeros(dtype, {5, depth})}, matrix, kExact);
      for (const int64_t rows : {1, 2, 3, 4, 7}) {
        const auto bytes = check.compare("quantize_rows", label, {uniform(dtype, {rows, depth})},
                                         {zeros(DType::i8, {rows, padded}), zeros(DType::f32, {rows, groups}),
                                          zeros(DType::i32, {rows, groups})},
                                         {format[1]}, kExact);
        check.compare("matmul_quantized", label,
                      {bytes[0], bytes[1], bytes[2], packed, uniform(dtype, {columns})},
                      {zeros(DType::f32, {rows, columns})},
                      {double(depth), format[1], 0, 1, 1, 0, format[0], format[2], double(columns)}, kExact);
      }
    }
  }
  const int64_t block_bytes[] = {34, 18, 144, 176, 210}, elements[] = {32, 32, 256, 256, 256};
  for (int type = 0; type < 5; type++) {
    const int64_t inner = 2 * elements[type], bytes = columns * 2 * block_bytes[type];
    const std::vector<double> format = {type == 1 || type == 2 ? 4.0 : 8.0, type == 4 ? 16.0 : 32.0,
                                        type == 2 || type == 3 ? 1.0 : 0.0};
    check.compare("repack_blocks", label_of(DType::u8, {type}), {uniform(DType::u8, {bytes}, 0, 100)},
                  {zeros(DType::u8, {packed_bytes(format, columns, inner)})},
                  {double(type), double(columns), double(inner)}, kExact);
  }
  const Operand operations = zeros(DType::f32, {1});
  const auto counted = check.run("measure_byte_peak", Isa::neon, {}, {operations}, {10}, check.threads());
  // 12 chains of 4 lanes of 4 bytes, two operations each, ten times.
  check.expect("measure_byte_peak", "operations", counted[0].at(0),
               12 * 16 * 2 * 10 * check.threads().size());
}

void check_attention(Checker& check) {
  const Operand offsets = values_of(DType::i32, {5}, {0, 1, 1, 70, 203});
  const int64_t tokens = 203, heads = 4, groups = 2;
  for (const DType dtype : kFloats) {
    for (const int64_t size : {5, 36, 64}) {
      for (const int64_t window : {0, 23}) {
        const bool causal = size != 36 || window > 0;
        const Operand q = uniform(dtype, {tokens, heads, size}), k = uniform(dtype, {tokens, groups, size});
        const Operand v = uniform(dtype, {tokens, groups, size});
        const std::vector<double> attributes = {0.3, double(causal), double(window)};
        const std::string label = label_of(dtype, {size, window});
        const auto forward =
            check.compare("attention", label, {q, k, v, offsets},
                          {zeros(dtype, {tokens, heads, size}), zeros(DType::f32, {heads, tokens})},
                          attributes, float32_bar(133));
        check.compare("attention_gradient", label,
                      {uniform(dtype, {tokens, heads, size}), q, k, v, forward[0], forward[1], offsets},
                      {zeros(dtype, {tokens, heads, size}), zeros(dtype, {tokens, groups, size}),
                       zeros(dtype, {tokens, groups, size})},
                      attributes, float32_bar(2 * 133));
      }
    }
  }
}

void check_attention_block(Checker& check) {
  // Every other token of 203: 101 queries and 102 keys, round-robin.
  const int64_t queries = 101, keys = 102, heads = 4, groups = 2;
  std::vector<double> query_places, key_places;
  for (int64_t i = 0; i < queries; i++) query_places.push_back(double(2 * i + 1));
  for (int64_t i = 0; i < keys; i++) key_places.push_back(double(2 * i));
  const Operand own = values_of(DType::i32, {queries}, query_places);
  const Operand other = values_of(DType::i32, {keys}, key_places);
  const Operand offsets = values_of(DType::i32, {5}, {0, 1, 1, 70, 203});
  for (const DType dtype : kFloats) {
    for (const int64_t size : {5, 36, 64}) {
      for (const int64_t window : {0, 23}) {
        const bool causal = size != 36 || window > 0;
        const Shape rows{queries, heads, size}, columns{keys, groups, size}, statistics{heads, queries};
        const Operand q = uniform(dtype, rows), k = uniform(dtype, columns), v = uniform(dtype, columns);
        std::vector<double> attributes = {0.3, double(causal), double(window)};
        const std::string label = label_of(dtype, {size, window});
        const auto first = check.compare("attention_block", label, {q, k, v, own, other, offsets},
                                         {zeros(DType::f32, rows), zeros(DType::f32, statistics)}, attributes,
                                         float32_bar(keys));
        const auto all = check.compare("attention_block", label + " goes on",
                                       {q, k, v, own, other, offsets, first[0], first[1]},
                                       {zeros(dtype, rows), zeros(DType::f32, statistics)}, attributes,
                                       float32_bar(keys));
        const Operand d_out = uniform(dtype, rows);
        const Operand delta = check.compare("attention_delta", label, {d_out, all[0]},
                                            {zeros(DType::f32, statistics)}, {}, float32_bar(size))[0];
        for (const double sums : {0.0, 1.0, 2.0}) {
          std::vector<Operand> inputs = {d_out, q, k, v, all[1], delta, own, other, offsets};
          if (sums == 1) inputs.push_back(uniform(DType::f32, rows));
          if (sums == 2) inputs.push_back(uniform(DType::f32, columns));
          if (sums == 2) inputs.push_back(uniform(DType::f32, columns));
          std::vector<double> with_sums = attributes;
          with_sums.push_back(sums);
          check.compare("attention_block_gradient", label, inputs,
                        {zeros(DType::f32, rows), zeros(DType::f32, columns), zeros(DType::f32, columns)},
                        with_sums, float32_bar(2 * queries));
        }
      }
    }
  }
}

void check_paged_attention(Checker& check) {
  // Three sequences: the last token of a long context, a short prompt, the last five of a context.
  const int64_t block_size = 16, blocks = 40, heads = 6, groups = 2, table = 36;
  const Operand offsets = values_of(DType::i32, {4}, {0, 1, 8, 13}),
                lengths = values_of(DType::i32, {3}, {570, 7, 41});
  const Operand tables = integers({3, table}, 0, blocks);
  for (const DType dtype : kFloats) {
    for (const DType cache : kFloats) {
      for (const int64_t size : {6, 64}) {
        for (const double window : {0.0, 19.0}) {
          const Operand q = uniform(dtype, {13, heads, size});
          const Operand k = uniform(cache, {blocks * block_size, groups, size});
          const Operand v = uniform(cache, {blocks * block_size, groups, size});
          check.compare("paged_attention", label_of(dtype, {size}) + " " + name_of(cache),
                        {q, k, v, offsets, lengths, tables}, {zeros(dtype, {13, heads, size})},
                        {0.4, window, double(block_size)}, float32_bar(570));
        }
      }
    }
  }
}

void check_quantized_cache(Checker& check) {
  const int64_t block_size = 8, blocks = 40, heads = 6, groups = 2, table = 36;
  const Operand offsets = values_of(DType::i32, {3}, {0, 1, 21}),
                lengths = values_of(DType::i32, {2}, {270, 41});
  const Operand tables = integers({2, table}, 0, blocks), slots = integers({37}, -1, blocks * block_size);
  for (const DType dtype : kFloats) {
    for (const int64_t size : {1, 6, 64}) {
      const Operand k = uniform(DType::i8, {blocks * block_size, groups, size}, -127, 127);
      const Operand v = uniform(DType::i8, {blocks * block_size, groups, size}, -127, 127);
      const Operand scales = uniform(DType::f32, {blocks * block_size, groups}, 0.001, 0.02);
      check.compare("paged_attention", label_of(dtype, {size}) + " i8",
                    {uniform(dtype, {21, heads, size}), k, v, offsets, lengths, tables, scales, scales},
                    {zeros(dtype, {21, heads, size})}, {0.4, 0, double(block_size)}, float32_bar(270));
      const Operand values = uniform(dtype, {37, groups, size});
      check.compare("cache_write_quantized", label_of(dtype, {size}), {k, scales, values, slots}, {k, scales},
                    {}, 0);
    }
  }
}

void check_norms(Checker& check) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 3, 17, 130}) {
      const int64_t rows = 37;
      const std::string label = label_of(dtype, {width});
      const Operand x = uniform(dtype, {rows, width}), weight = uniform(dtype, {width}),
                    y = zeros(dtype, {rows, width});
      const Operand d_y = uniform(dtype, {rows, width}), column = zeros(DType::f32, {rows});
      const Operand sums = uniform(DType::f32, {width});
      const double bar = float32_bar(4 * (width + rows));
      const auto root = check.compare("rms_norm", label, {x, weight}, {y, column}, {1e-5}, bar);
      check.compare("rms_norm_gradient", label, {d_y, x, weight, root[1]}, {y, sums}, {1}, bar);
      const Operand bias = width == 3 ? absent() : uniform(dtype, {width});
      // The epsilon is large because a row of one element has no variance: its gradient would be all
      // rounding.
      const auto layer =
          check.compare("layer_norm", label, {x, weight, bias}, {y, column, column}, {1e-2}, bar);
      check.compare("layer_norm_gradient", label, {d_y, x, weight, layer[1], layer[2]},
                    {y, sums, width == 3 ? absent() : sums}, {1}, bar);
    }
  }
}

void check_softmax(Checker& check) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 5, 31, 2053}) {
      const int64_t rows = 9;
      const std::string label = label_of(dtype, {width});
      const Operand x = uniform(dtype, {rows, width}, -9, 9), y = zeros(dtype, {rows, width});
      const Operand targets = integers({rows}, -1, static_cast<int>(width)),
                    column = zeros(DType::f32, {rows});
      const double bar = float32_bar(width + 8);
      const auto weights = check.compare("softmax", label, {x}, {y}, {}, bar);
      // A row of one element has a gradient of nothing but rounding.
      if (width > 1) check.compare("softmax_gradient", label, {x, weights[0]}, {y}, {}, bar);
      const auto losses = check.compare("cross_entropy", label, {x, targets}, {column, column}, {}, bar);
      if (width > 1) {
        check.compare("cross_entropy_gradient", label, {uniform(DType::f32, {rows}), x, targets, losses[1]},
                      {y}, {}, bar);
      }
      for (int64_t i = 0; i < rows * width; i += 5) x.set(i, NAN);
      check.compare("argmax", label, {x}, {zeros(DType::i32, {rows})}, {}, kExact);
    }
  }
}

void check_swiglu(Checker& check) {
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 3, 31, 2053}) {
      const int64_t rows = 3;
      const std::string label = label_of(dtype, {width});
      const Operand gate = uniform(dtype, {rows, width}, -9, 9), up = uniform(dtype, {rows, width}),
                    y = zeros(dtype, {rows, width});
      const double bar = float32_bar(8);
      check.compare("swiglu", label, {gate, up}, {y}, {}, bar);
      check.compare("swiglu_gradient", label, {uniform(dtype, {rows, width}), gate, up}, {y, y}, {}, bar);
    }
  }
}

void check_rope(Checker& check) {
  for (const DType dtype : kFloats) {
    for (const int64_t half : {1, 7, 16}) {
      for (const int mode : {0, 1, 2, 3}) {
        const Operand x = uniform(dtype, {11, 3, 2 * half + 3});
        check.compare("rope", label_of(dtype, {half, mode}),
                      {x, integers({11}, 0, 1000000), uniform(DType::f32, {half}, 0, 1)},
                      {zeros(dtype, {11, 3, 2 * half + 3})}, {double(mode & 1), double(mode >> 1)}, 1e-6);
      }
    }
  }
}

void check_map(Checker& check) {
  constexpr int kOpcodes = 33;
  for (int opcode = 1; opcode < kOpcodes; opcode++) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const int64_t count = 1003;
      // log, the roots and powers take positive numbers; the others meet all kinds.
      const bool positive = opcode == 4 || opcode == 5 || opcode == 6 || opcode == 26;
      const Operand a = uniform(dtype, {count}, positive ? 1e-3 : -20, 20),
                    b = uniform(dtype, {count}, -3, 3);
      const Operand c = uniform(dtype, {count});
      const double specials[] = {0, -0.0, INFINITY, -INFINITY, NAN, 1e-40, 30000, 5e6};
      for (int i = 0; i < 8; i++) {
        a.set(7 * i, specials[i]);
        b.set(7 * i + 1, specials[i]);
        c.set(7 * i + 2, specials[i]);
        b.set(90 + i, a.at(90 + i));
        a.set(120 + i, i % 2);
      }
      // gelu cancels far left of zero, and sine and cosine near their zeros.
      const bool cancels = opcode == 12 || opcode == 13 || opcode == 15 || opcode == 16;
      check.compare("map", label_of(dtype, {opcode}), {a, b, c}, {zeros(DType::f32, {count})},
                    {1, double(opcode), 0, 1, 2, 0}, 1e-6, cancels ? Measure::whole : Measure::each);
    }
  }
  // (x * 2.5 + row) over broadcast operands, and a cast.
  for (const DType dtype : kFloats) {
    check.compare("map", "broadcast", {uniform(dtype, {5, 1, 13}), uniform(dtype, {7, 1})},
                  {zeros(dtype, {5, 7, 13})}, {3, 0, 0, 0, 0, 2.5, 22, 0, 2, 0, 0, 20, 3, 1, 0, 0}, 1e-6);
    check.compare("map", "cast", {uniform(DType::f32, {77})}, {zeros(dtype, {77})}, {0}, kExact);
  }
}

void check_movement(Checker& check) {
  const DType all[] = {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8};
  for (const DType from : all) {
    for (const DType to : all) {
      const Operand x = uniform(from, {1019}, from == DType::u8 ? 0 : -3000, from == DType::u8 ? 256 : 3000);
      if (from != DType::i32 && from != DType::u8) {
        const double specials[] = {NAN, INFINITY, -INFINITY, 1e-6, -0.0, 3e9, -3e9, 65519, 65520, 1.00390625};
        for (int i = 0; i < 10; i++) x.set(3 * i, specials[i]);
        // The NaN that would become a zero if it were rounded.
        if (from == DType::f32) x.tensor.as<float>()[40] = std::bit_cast<float>(0x7fffffffu);
      }
      check.compare("copy", label_of(from, {int64_t(from), int64_t(to)}), {x}, {zeros(to, {1019})}, {},
                    kExact);
    }
    check.compare("fill", label_of(from, {}), {}, {zeros(from, {1019})}, {3.7}, kExact);
    check.compare("iota", label_of(from, {}), {}, {zeros(from, {7, 11, 3})}, {1}, kExact);
  }
  for (const DType dtype : kFloats) {
    for (const int64_t width : {1, 7, 50}) {
      const std::string label = label_of(dtype, {width});
      const Operand weight = uniform(dtype, {23, width}), ids = integers({4, 9}, -1, 24);
      const Operand d_y = uniform(dtype, {4, 9, width}), y = zeros(DType::f32, {4, 9, width});
      check.compare("gather", label, {weight, ids}, {y}, {}, kExact);
      check.compare("embedding", label, {weight, ids}, {y}, {}, kExact);
      check.compare("embedding_gradient", label, {d_y, ids}, {uniform(DType::f32, {23, width})}, {1}, kExact);
      check.compare("scatter_add", label, {d_y, ids}, {zeros(dtype, {23, width})}, {}, kExact);
    }
    for (const double kind : {0.0, 1.0, 2.0}) {
      const Operand x = uniform(dtype, {3, 19, 5, 107});
      const std::string label = label_of(dtype, {int64_t(kind)});
      const double bar = kind == 0 ? float32_bar(3 * 19 * 107) : kExact;
      check.compare("reduce", label + " all", {x}, {zeros(DType::f32, {})}, {kind, 0, 1, 2, 3}, bar);
      check.compare("reduce", label + " rows", {x}, {zeros(DType::f32, {3, 5})}, {kind, 1, 3}, bar);
      check.compare("reduce", label + " columns", {x}, {zeros(dtype, {19, 107})}, {kind, 0, 2}, bar);
      x.set(1000, NAN);
      check.compare("reduce", label + " NaN", {x}, {zeros(DType::f32, {3, 5})}, {kind, 1, 3}, bar);
    }
  }
  for (const double kind : {0.0, 1.0}) {
    check.compare("random", "", {values_of(DType::i32, {2}, {1234567, 89})}, {zeros(DType::f32, {1003})},
                  {kind, 5}, kExact);
  }
}

// Logits on a grid are exact under penalties and have ties; the seeds put no number within rounding of an
// edge.
void check_sampling(Checker& check) {
  const int64_t rows = 12;
  for (const int64_t vocabulary : {1, 5, 127, 301, 5003}) {
    const int64_t words = (vocabulary + 31) / 32;
    const Operand logits = uniform(DType::f32, {rows, vocabulary}, -6, 6);
    for (int64_t i = 0; i < 4 * vocabulary; i++) logits.set(i, std::floor(4 * logits.at(i)) / 4);
    logits.set(vocabulary, NAN);
    const Operand parameters = zeros(DType::f32, {rows, 8});
    for (int64_t row = 0; row < rows; row++) {
      const double settings[] = {row % 4 == 0 ? 0.0 : 0.5 * static_cast<double>(row % 4),
                                 row % 3 == 1 ? 7.0 : 0.0,
                                 row % 5 == 2 ? 0.8 : 1.0,
                                 row % 6 == 3 ? 0.05 : 0.0,
                                 row % 2 == 0 ? 2.0 : 1.0,
                                 0.5,
                                 0.25,
                                 static_cast<double>(2 * row - 1)};
      for (int64_t column = 0; column < 8; column++) parameters.set(row * 8 + column, settings[column]);
    }
    const int last = static_cast<int>(vocabulary) - 1;
    std::vector<double> offsets;
    for (int64_t row = 0; row <= rows; row++) offsets.push_back(static_cast<double>(row));
    const Operand list = values_of(DType::i32, {rows + 1}, offsets);
    const Operand masks = integers({2, words}, INT32_MIN, INT32_MAX);
    masks.set(0, -1);
    masks.set(words, -1);
    check.compare("sample", label_of(DType::f32, {vocabulary}),
                  {logits, parameters, integers({rows, 4}, 0, 1 << 30), list, integers({rows}, 0, last + 1),
                   integers({rows}, 0, 3), list, integers({rows}, 0, last + 1),
                   uniform(DType::f32, {rows}, -1, 1), masks, integers({rows}, -1, 2)},
                  {zeros(DType::i32, {rows}), zeros(DType::f32, {rows}), zeros(DType::i32, {rows, 20}),
                   zeros(DType::f32, {rows, 20})},
                  {}, float32_bar(vocabulary));
  }
}

void check_optimizers(Checker& check) {
  struct Update {
    const char* name;
    int states;
    std::vector<double> hyper;
  };
  const Update updates[] = {{"adamw", 2, {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.271, 0.003, 0.5}},
                            {"adam", 2, {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.271, 0.003, 0.5}},
                            {"sgd", 1, {1e-2, 0.9, 0.1, 0.1, 0, 0.5}},
                            {"sgd", 1, {1e-2, 0.9, 0, 0.1, 1, 0.5}},
                            {"lion", 1, {1e-3, 0.9, 0.99, 0.1, 0.5}},
                            {"adagrad", 1, {1e-2, 1e-10, 0.1, 0.5}}};
  for (const DType dtype : kFloats) {
    for (const int64_t count : {3, 4099}) {
      const Operand gradient = uniform(dtype, {count});
      for (const Update& update : updates) {
        std::vector<Operand> state = {uniform(DType::f32, {count})};
        for (int i = 0; i < update.states; i++) state.push_back(uniform(DType::f32, {count}, 0, 1));
        std::vector<Operand> inputs = state;
        inputs.insert(inputs.begin() + 1, gradient);
        inputs.push_back(values_of(DType::f32, {int64_t(update.hyper.size())}, update.hyper));
        check.compare(update.name, label_of(dtype, {count}), inputs, state, {}, 1e-6);
      }
      check.compare("sum_of_squares", label_of(dtype, {count}), {gradient}, {zeros(DType::f32, {1})}, {},
                    1e-6);
    }
  }
}

}  // namespace
}  // namespace slipstream

int main() {
  slipstream::Checker check;
  slipstream::check_matmul(check);
  slipstream::check_packed(check);
  slipstream::check_quantized(check);
  slipstream::check_linear_cross_entropy(check);
  slipstream::check_measures(check);
  slipstream::check_attention(check);
  slipstream::check_attention_block(check);
  slipstream::check_paged_attention(check);
  slipstream::check_quantized_cache(check);
  slipstream::check_norms(check);
  slipstream::check_softmax(check);
  slipstream::check_swiglu(check);
  slipstream::check_rope(check);
  slipstream::check_map(check);
  slipstream::check_movement(check);
  slipstream::check_sampling(check);
  slipstream::check_optimizers(check);
  return check.finish();
}
