#include "bench/support/kernel_cost.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <sstream>
#include <string_view>

extern char** environ;

namespace vlr::bench {
namespace {

/// What a program of PATH prints; empty where it is not there or ends otherwise than with 0.
std::string output_of(std::vector<std::string> command) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string out;
  std::array<char, 1 << 16> buffer;
  for (ssize_t got; failed == 0 && (got = read(ends[0], buffer.data(), buffer.size())) > 0;)
    out.append(buffer.data(), static_cast<size_t>(got));
  close(ends[0]);
  int status = 1;
  if (failed != 0 || waitpid(child, &status, 0) != child || status != 0) return {};
  return out;
}

}  // namespace

SassCounts count_instructions(const std::string& listing) {
  SassCounts counts;
  std::istringstream lines(listing);
  for (std::string line; std::getline(lines, line);) {
    //         /*0a10*/   @!P0  HGMMA.64x128x16.F32.BF16 R24, ...
    const size_t address = line.find("/*"), end = line.find("*/");
    if (address == line.npos || end == line.npos || end < address + 6) continue;
    // Four digits or more: not the encoding in hexadecimal, "/* 0x... */".
    const std::string_view digits = std::string_view(line).substr(address + 2, end - address - 2);
    if (digits.find_first_not_of("0123456789abcdef") != digits.npos) continue;
    std::istringstream words(line.substr(end + 2));
    std::string word;
    if (!(words >> word)) continue;
    if (word[0] == '@' && !(words >> word)) continue;
    const std::string_view opcode = std::string_view(word).substr(0, word.find_first_of(".; "));
    if (opcode.empty() || opcode[0] == '/') continue;
    ++counts.all;
    if (opcode.ends_with("GMMA")) ++counts.wgmma;
    if (opcode == "HMMA" || opcode == "IMMA" || opcode == "QMMA") ++counts.mma;
    if (opcode == "MUFU") ++counts.mufu;
    if (opcode == "LDL") ++counts.local_loads;
    if (opcode == "STL") ++counts.local_stores;
  }
  return counts;
}

Result<SassCounts> count_sass(const std::string& file, const std::string& name,
                              const std::string& architecture) {
  std::string tool;
  for (const char* t : {"cuobjdump", "/usr/local/cuda/bin/cuobjdump"}) {
    if (tool.empty() && !output_of({t, "--version"}).empty()) tool = t;
  }
  if (tool.empty())
    return Status(Code::kUnimplemented, "cuobjdump is not in PATH: instructions are not counted");
  // To another process /proc/self/exe is that process.
  std::error_code error;
  const std::string path = std::filesystem::canonical(file, error).string();
  const std::string listing = output_of({tool, "-sass", "-arch", architecture, "-fun", name, path});
  const SassCounts counts = count_instructions(listing);
  if (counts.all == 0)
    return Status(Code::kInvalidArgument, file + " has no kernel " + name + " for " + architecture);
  return counts;
}

}  // namespace vlr::bench
