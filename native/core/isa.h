// Instruction sets: which one this processor has, which one the user allows, and which a kernel needs.
#pragma once

#include <cstdint>
#include <string_view>

namespace slipstream {

// Ordered: a kernel built for a level runs on every higher level of the same architecture. `amx_emulated`
// runs the AMX kernels on a software model of the tile unit: for tests only, never chosen by itself.
enum class Isa : int32_t {
  scalar = 0,
  neon = 1,
  avx2 = 2,
  avx512 = 3,
  avx512bf16 = 4,
  amx = 5,
  amx_emulated = 6
};

const char* isa_name(Isa isa);

// The instruction set of a name such as "avx512bf16"; false where the name is unknown.
bool parse_isa(std::string_view name, Isa* isa);

// The highest level that this processor and operating system can run. Asks the kernel for the permission
// that AMX tiles need.
Isa detect_isa();

// Whether this processor can run kernels of that level (amx_emulated needs avx512bf16).
bool can_run(Isa isa);

}  // namespace slipstream
