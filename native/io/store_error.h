// A failure of the operating system. Messages open with "store <code>: ", such as "store ENOSPC: ".
#pragma once

#include <stdexcept>
#include <string>

namespace slipstream::io {

class StoreError : public std::runtime_error {
 public:
  StoreError(int error, const std::string& what);
};

}  // namespace slipstream::io
