/// vlr options: the table of options as docs/options.md has it. For developers; help does not show
/// the command.
#include <fmt/format.h>

#include "tools/common.h"

namespace vlr::tools {
namespace {

constexpr std::string_view kHead = R"(# Options

What a model can be told when it is opened. An option has one name: it is a member of `vlr::Options`, an argument of
`vlr::set_option` and of `vlr_options_set`, and the name in messages. The flag is that of the command `vlr`.

Values are text for the C API: `true`, `10240`, `0.5`, `1.5GiB`. KiB, MiB, GiB and TiB are powers of 1024; KB, MB, GB
and TB are powers of 1000. The entries of a list or a map are separated by commas: `vision=nf4,layers.0.=none`,
`linear=reference`. A flag of a list or a map takes one entry and can be repeated. A flag of an option that is true by
default switches it off.

Options that say "on a GPU" change nothing on a CPU, but for `device_map`, which it refuses. Callbacks (`log`, `on_progress`, `on_memory`, `on_value`,
`on_node`, `on_copy`) are members of `vlr::Options` too and have a setter each in C.

This page is written by `vlr options`, and a test compares the two.
)";

/// In a table's cell.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

int print_page() {
  const Options defaults;
  fmt::print("{}", kHead);
  for (const OptionGroup group : kOptionGroups) {
    fmt::print("\n## {}\n\n| option | type | default | flag | what |\n|---|---|---|---|---|\n",
               option_group_name(group));
    for (const OptionInfo& info : option_table()) {
      if (info.group != group) continue;
      const std::string value = format_option(info, defaults);
      fmt::print("| `{}` | {} | {} | `{}{}{}` | {}. |\n", info.name, option_type_name(info),
                 value.empty() ? "" : "`" + value + "`", info.flag, info.value.empty() ? "" : " ",
                 info.value, cell(info.doc));
    }
  }
  return kServed;
}

}  // namespace

void add_options(CLI::App& app, Run& run) {
  app.group("");
  app.callback([&run] { run = print_page; });
}

}  // namespace vlr::tools
