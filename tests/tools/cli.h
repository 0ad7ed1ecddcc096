/// The vlr command from outside, for tests.
#ifndef VLR_TESTS_TOOLS_CLI_H_
#define VLR_TESTS_TOOLS_CLI_H_

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/temp_folder.h"

namespace vlr {

using Arguments = std::vector<std::string>;

struct Ran {
  int code = -1;
  std::string out, err;
};

/// Each test has a folder, which is also the command's working directory.
class CliFolder : public ::testing::Test {
 protected:
  /// `streams`: where they go instead, as in ">/dev/full".
  Ran run(const Arguments& arguments, std::string_view input = "",
          const std::string& streams = "") const {
    const auto quoted = [](const std::string& word) {
      std::string out = "'";
      for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
      return out + "'";
    };
    testing::write_file(folder_ / "stdin", input);
    std::string command = "cd " + quoted(folder_.path()) + " && " + quoted(VLR_CLI);
    for (const std::string& a : arguments) command.append(" ").append(quoted(a));
    const int status = std::system((command + " <stdin >stdout 2>stderr " + streams).c_str());
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            .out = testing::read_file(folder_ / "stdout"),
            .err = testing::read_file(folder_ / "stderr")};
  }

  testing::TempFolder folder_;
};

}  // namespace vlr

#endif  // VLR_TESTS_TOOLS_CLI_H_
