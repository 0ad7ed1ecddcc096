/// A value for every option that is not its default, as get gives it back.
#ifndef VLR_TESTS_SUPPORT_OPTION_VALUES_H_
#define VLR_TESTS_SUPPORT_OPTION_VALUES_H_

#include <string>
#include <string_view>

#include "engine/api/options.h"

namespace vlr::testing {

inline std::string other_value(std::string_view name) {
  if (name == "device") return "cpu";
  if (name == "dtype") return "f32";
  if (name == "preset") return "low";
  if (name == "quant") return "nf4";
  if (name == "quant_rules") return "vision=nf4,layers.0.=none";
  if (name == "no_fuse") return "qk,gelu";
  if (name == "impls") return "attention=reference,linear=reference";
  if (name == "local_files") return "never";
  if (name == "video_sampling") return "uniform+ends";
  const OptionInfo& info = *find_option(name);
  const std::string value = format_option(info, {});
  if (value == "true" || value == "false") return value == "true" ? "false" : "true";
  if (info.is_size()) return "3MiB";
  const std::string_view type = option_type_name(info);
  if (type == "text") return "somewhere/else";
  if (type == "number") return "2.5";
  return value == "64" ? "128" : "64";
}

}  // namespace vlr::testing

#endif  // VLR_TESTS_SUPPORT_OPTION_VALUES_H_
