/// The C API's options and callbacks.
#include "engine/api/c_api.h"
#include "engine/api/options.h"

using namespace vlr::c_api;
using vlr::Status;

extern "C" {

vlr_options* vlr_options_new(void) {
  try {
    return new vlr_options;
  } catch (...) {
    return nullptr;
  }
}

void vlr_options_free(vlr_options* options) { delete options; }

const char* vlr_options_name(size_t i) {
  const auto table = vlr::option_table();
  return i < table.size() ? table[i].name.data() : nullptr;  // of a literal: terminated
}

vlr_code vlr_options_set(vlr_options* options, const char* name, const char* value,
                         vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!options || !name || !value)
      return missing(!options ? "options" : !name ? "name" : "value");
    return vlr::set_option(options->options, name, value);
  });
}

vlr_code vlr_options_get(const vlr_options* options, const char* name, char** value,
                         vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!options || !name || !value)
      return missing(!options ? "options" : !name ? "name" : "value");
    *value = nullptr;
    VLR_ASSIGN_OR_RETURN(const std::string text, vlr::get_option(options->options, name));
    return give(text, value);
  });
}

void vlr_options_on_log(vlr_options* options, vlr_on_log function, void* user) {
  if (!options) return;
  options->options.log = nullptr;
  if (!function) return;
  options->options.log = [=](std::string_view line) { function(user, std::string(line).c_str()); };
}

void vlr_options_on_progress(vlr_options* options, vlr_on_progress function, void* user) {
  if (!options) return;
  options->options.on_progress = nullptr;
  if (!function) return;
  options->options.on_progress = [=](const vlr::LoadProgress& p) {
    const std::string what(p.what);
    const vlr_load_progress progress{.struct_size = sizeof progress,
                                     .bytes_done = p.bytes_done,
                                     .bytes_total = p.bytes_total,
                                     .what = what.c_str()};
    function(user, &progress);
  };
}

void vlr_options_on_memory(vlr_options* options, vlr_on_memory function, void* user) {
  if (!options) return;
  options->options.on_memory = nullptr;
  if (!function) return;
  options->options.on_memory = [=](const vlr::MemoryEvent& e) {
    const std::string purpose(e.purpose), layer(e.layer);
    const vlr_memory_event event{.struct_size = sizeof event,
                                 .purpose = purpose.c_str(),
                                 .layer = layer.c_str(),
                                 .device_bytes = e.device_bytes,
                                 .host_bytes = e.host_bytes,
                                 .device_total = e.device_total,
                                 .host_total = e.host_total,
                                 .scoring = e.phase == vlr::MemoryEvent::Phase::kScore};
    function(user, &event);
  };
}

void vlr_options_on_value(vlr_options* options, vlr_on_value function, vlr_wants_value wants,
                          void* user) {
  if (!options) return;
  options->options.on_value = nullptr;
  options->options.wants_value = nullptr;
  if (!function) return;
  options->options.on_value = [=](std::string_view name, std::span<const int64_t> shape,
                                  const float* data) {
    function(user, std::string(name).c_str(), shape.data(), shape.size(), data);
  };
  if (!wants) return;
  options->options.wants_value = [=](std::string_view name) {
    return wants(user, std::string(name).c_str()) != 0;
  };
}

void vlr_options_on_node(vlr_options* options, vlr_on_node function, void* user) {
  if (!options) return;
  options->options.on_node = nullptr;
  if (!function) return;
  options->options.on_node = [=](const vlr::NodeTiming& t) {
    const vlr_node_timing timing{.struct_size = sizeof timing,
                                 .run = t.run.c_str(),
                                 .name = t.name.c_str(),
                                 .op = t.op.c_str(),
                                 .seconds = t.seconds,
                                 .flops = t.flops,
                                 .bytes = t.bytes};
    function(user, &timing);
  };
}

void vlr_options_on_copy(vlr_options* options, vlr_on_copy function, void* user) {
  if (!options) return;
  options->options.on_copy = nullptr;
  if (!function) return;
  options->options.on_copy = [=](const vlr::CopyTiming& t) {
    const vlr_copy_timing timing{.struct_size = sizeof timing,
                                 .run = t.run.c_str(),
                                 .name = t.name.c_str(),
                                 .start = t.start,
                                 .seconds = t.seconds,
                                 .bytes = t.bytes};
    function(user, &timing);
  };
}

}  // extern "C"
