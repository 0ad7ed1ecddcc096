#include "kernels/core/scratch.h"

#include <fmt/format.h>

namespace vlr {

Status Scratch::status(std::string_view who) const {
  if (fits()) return {};
  return {Code::kInternal,
          fmt::format("{}: needs a workspace of {} bytes, got {}", who, used_, memory_.size())};
}

}  // namespace vlr
