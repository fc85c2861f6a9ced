// The steps of programs that move tensors between memory and a store. Each takes the memory (input 0,
// contiguous; for `load` it is written) and the attributes store, byte offset in the store, and the number of
// the transfer in its program. `load` and `save` start it on the store's lanes and return at once;
// `load_wait` and `save_wait` (attributes store and number) return when it is done.
#include "core/kernel.h"
#include "io/file_store.h"

namespace slipstream::io {

namespace {

void start(const KernelCall& call, Direction direction) {
  const Tensor& tensor = call.inputs[0];
  find_store(static_cast<int>(call.attributes[0]))
      ->start_numbered(direction, static_cast<int>(call.attributes[2]),
                       static_cast<size_t>(call.attributes[1]), tensor.as<char>(),
                       static_cast<size_t>(tensor.bytes()));
}

void wait(const KernelCall& call, Direction direction) {
  find_store(static_cast<int>(call.attributes[0]))
      ->wait_numbered(direction, static_cast<int>(call.attributes[1]));
}

SLIPSTREAM_KERNEL("load", Isa::scalar, [](const KernelCall& call) { start(call, Direction::read); });
SLIPSTREAM_KERNEL("save", Isa::scalar, [](const KernelCall& call) { start(call, Direction::write); });
SLIPSTREAM_KERNEL("load_wait", Isa::scalar, [](const KernelCall& call) { wait(call, Direction::read); });
SLIPSTREAM_KERNEL("save_wait", Isa::scalar, [](const KernelCall& call) { wait(call, Direction::write); });

}  // namespace

}  // namespace slipstream::io
