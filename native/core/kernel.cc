#include "core/kernel.h"

namespace slipstream {

namespace {

std::vector<KernelEntry>& table() {
  static std::vector<KernelEntry> entries;
  return entries;
}

bool serves(Isa kernel, Isa limit) {
  if (kernel == limit || kernel == Isa::scalar) return true;
  if (kernel == Isa::neon || limit == Isa::neon) return false;
  if (kernel == Isa::amx && limit == Isa::amx_emulated) return false;
  return kernel <= limit;
}

}  // namespace

bool register_kernel(const char* name, Isa isa, KernelFunction function) {
  table().push_back({name, isa, function});
  return true;
}

const KernelEntry* find_kernel(std::string_view name, Isa limit) {
  const KernelEntry* best = nullptr;
  for (const KernelEntry& entry : table()) {
    if (entry.name != name || !serves(entry.isa, limit)) continue;
    if (best == nullptr || entry.isa > best->isa) best = &entry;
  }
  return best;
}

const std::vector<KernelEntry>& all_kernels() { return table(); }

}  // namespace slipstream
