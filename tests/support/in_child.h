/// Runs something in a process of its own: what it crashes, how long it takes and how much memory.
#ifndef VLR_TESTS_SUPPORT_IN_CHILD_H_
#define VLR_TESTS_SUPPORT_IN_CHILD_H_

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>

namespace vlr::test {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // takes memory of its own
#else
constexpr bool kSanitized = false;
#endif

struct InChild {
  bool as_expected = false;  ///< ended by itself, and body() gave true
  int signal = 0;            ///< that ended it
  int64_t peak_megabytes = 0;
};

/// body() of the same program, which should have started no threads yet.
template <class Body>
InChild in_child(const Body& body) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process");
  if (child == 0) {
    bool good = false;
    try {
      good = body();
    } catch (...) {
    }
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  if (::wait4(child, &status, 0, &usage) != child) throw std::runtime_error("no child");
  return {.as_expected = WIFEXITED(status) && WEXITSTATUS(status) == 0,
          .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
          .peak_megabytes = usage.ru_maxrss / 1024};
}

}  // namespace vlr::test

#endif  // VLR_TESTS_SUPPORT_IN_CHILD_H_
