#include "core/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace slipstream {

namespace {

struct Name {
  Isa isa;
  const char* text;
};

constexpr Name kNames[] = {
    {Isa::scalar, "scalar"},
    {Isa::neon, "neon"},
    {Isa::avx2, "avx2"},
    {Isa::avx512, "avx512"},
    {Isa::avx512bf16, "avx512bf16"},
    {Isa::amx, "amx"},
    {Isa::amx_emulated, "amx_emulated"},
};

#if defined(__x86_64__)

uint64_t enabled_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile state only to processes that ask for it (arch_prctl
// ARCH_REQ_XCOMP_PERM, feature 18).
bool request_tile_permission() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa detect_x86() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::scalar;
  const bool has_xsave = (c >> 27) & 1, has_fma = (c >> 12) & 1, has_f16c = (c >> 29) & 1;
  if (!has_xsave || !has_fma || !has_f16c) return Isa::scalar;
  const uint64_t state = enabled_state();
  if ((state & 0x6) != 0x6) return Isa::scalar;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::scalar;
  const bool has_avx2 = (b >> 5) & 1;
  if (!has_avx2) return Isa::scalar;
  const bool has_avx512 = ((b >> 16) & 1) && ((b >> 17) & 1) && ((b >> 30) & 1) && ((b >> 31) & 1);
  const bool has_vnni = (c >> 11) & 1;
  if (!has_avx512 || (state & 0xe6) != 0xe6) return Isa::avx2;
  const bool has_amx = ((d >> 24) & 1) && ((d >> 22) & 1) && ((d >> 25) & 1);
  uint32_t a1, b1, c1, d1;
  const bool has_bf16 = __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && ((a1 >> 5) & 1);
  if (!has_bf16 || !has_vnni) return Isa::avx512;
  if (has_amx && (state & 0x60000) == 0x60000 && request_tile_permission()) return Isa::amx;
  return Isa::avx512bf16;
}

#endif

}  // namespace

const char* isa_name(Isa isa) {
  for (const Name& name : kNames) {
    if (name.isa == isa) return name.text;
  }
  return "unknown";
}

bool parse_isa(std::string_view text, Isa* isa) {
  for (const Name& name : kNames) {
    if (text == name.text) {
      *isa = name.isa;
      return true;
    }
  }
  return false;
}

Isa detect_isa() {
#if defined(__x86_64__)
  static const Isa detected = detect_x86();
  return detected;
#elif defined(__aarch64__)
  return Isa::neon;
#else
  return Isa::scalar;
#endif
}

bool can_run(Isa isa) {
  const Isa detected = detect_isa();
  if (isa == Isa::scalar) return true;
  if (isa == Isa::neon || detected == Isa::neon) return isa == detected;
  if (isa == Isa::amx_emulated) return detected >= Isa::avx512bf16;
  return isa <= detected;
}

}  // namespace slipstream
