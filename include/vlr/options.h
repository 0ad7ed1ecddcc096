/// Options by name, as text: for configuration files, command lines and bindings. What each option
/// means and may be is in docs/options.md; its name is that of the member of vlr::Options.
#ifndef VLR_OPTIONS_H_
#define VLR_OPTIONS_H_

#include <string>
#include <string_view>
#include <vector>

#include "vlr/export.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// Every option that has a value as text: all members of Options but the callbacks.
VLR_API std::vector<std::string_view> option_names();

/// Sets one: "true", "10240", "0.5", "1.5GiB", "vision=nf4,layers.0.=none" (a list, which replaces
/// what was there), "linear=reference". kInvalidArgument: no such option, or no such value; the
/// options are then as they were. open() checks what depends on several of them.
VLR_API Status set_option(Options& options, std::string_view name, std::string_view text);

/// Its value as set_option() takes it. kInvalidArgument: no such option.
VLR_API Result<std::string> get_option(const Options& options, std::string_view name);

}  // namespace vlr

#endif  // VLR_OPTIONS_H_
