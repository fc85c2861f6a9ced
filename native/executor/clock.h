// The clock of runs.
#pragma once

#include <chrono>

namespace slipstream {

// Seconds that only grow, since some moment.
inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace slipstream
