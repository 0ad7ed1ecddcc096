#include "bench/support/rival.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <thread>

#include "kernels/core/clock.h"
#include "kernels/core/text.h"

extern char** environ;

namespace vlr::bench {
namespace {

/// A positive number of an answer.
Result<double> number_in(const Rival::Json& answer, const char* key) {
  const auto it = answer.find(key);
  if (it == answer.end() || !it->is_number() || !(it->get<double>() > 0) ||
      !std::isfinite(it->get<double>()))
    return Status(Code::kInternal, fmt::format("the rival answered {}; a positive \"{}\" is wanted",
                                               answer.dump(), key));
  return it->get<double>();
}

}  // namespace

class Rival::RivalWindow : public Window {
 public:
  RivalWindow(Rival& rival, std::string implementation)
      : rival_(rival), implementation_(std::move(implementation)) {}
  Result<double> run() const {
    VLR_ASSIGN_OR_RETURN(const Json answer,
                         rival_.ask({{"do", "run"}, {"implementation", implementation_}}));
    return number_in(answer, "seconds");
  }

 private:
  Rival& rival_;
  const std::string implementation_;
};

Result<std::unique_ptr<Rival>> Rival::start(const std::string& command, double patience) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Status(Code::kInternal, "socketpair failed");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // what sh starts ends with it
  std::string shell = "sh", flag = "-c", words = command;
  std::array<char*, 4> argv = {shell.data(), flag.data(), words.data(), nullptr};
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/bin/sh", &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failed != 0) {
    close(ends[0]);
    return Status(Code::kInternal, "/bin/sh cannot be run");
  }
  std::unique_ptr<Rival> rival(new Rival(command, ends[0], child, patience));
  auto first = rival->answer();
  if (!first.ok())
    return Status(Code::kInvalidArgument, "--rival: " + std::string(first.error().message()));
  rival->description_ = *std::move(first);
  return rival;
}

Rival::~Rival() {
  close(socket_);
  const double start = seconds_now();
  constexpr double kPatience = 5;
  const auto runs = [&] {
    siginfo_t info{};  // it is not reaped yet, so the group's number is still its own
    return waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
  };
  while (runs() && seconds_now() - start < kPatience)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(-process_, SIGKILL);
  waitpid(process_, nullptr, 0);
}

Result<Rival::Json> Rival::answer() {
  const auto fail = [&](const std::string& what) {
    return Status(Code::kInternal, fmt::format("'{}' {}", printable(command_), what));
  };
  const double start = seconds_now();
  size_t end;
  while ((end = read_.find('\n')) == read_.npos) {
    const double left = patience_ - (seconds_now() - start);
    pollfd ready{socket_, POLLIN, 0};
    const int found = left > 0 ? poll(&ready, 1, static_cast<int>(std::ceil(left * 1e3))) : 0;
    if (found < 0 && errno == EINTR) continue;
    if (found == 0) {  // a late answer would be taken for that to another question
      kill(-process_, SIGKILL);
      return ended_ = fail(fmt::format("did not answer within {} s, and was ended", patience_));
    }
    std::array<char, 4096> buffer;
    const ssize_t got = recv(socket_, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail("ended without an answer");
    read_.append(buffer.data(), static_cast<size_t>(got));
  }
  const std::string line = read_.substr(0, end);
  read_.erase(0, end + 1);
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object())
    return fail("answered " + in_quotes(line) + "; a line with a JSON object is wanted");
  if (const auto error = json.find("error"); error != json.end()) {
    const bool says = error->is_string() && !error->get_ref<const std::string&>().empty();
    return Status(Code::kInternal, says ? error->get<std::string>() : "error " + error->dump());
  }
  return json;
}

Result<Rival::Json> Rival::ask(const Json& request) {
  VLR_RETURN_IF_ERROR(ended_);
  const std::string line = request.dump() + "\n";
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t n = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::kInternal, fmt::format("'{}' has ended", printable(command_)));
    sent += static_cast<size_t>(n);
  }
  return answer();
}

Result<std::vector<std::string>> Rival::open(const std::string& op, const Shape& shape, bool warm) {
  Json axes = Json::object();
  for (const Shape::Value& v : shape.values()) {
    if (v.axis.names.empty()) {
      axes[v.axis.name] = v.values;
    } else {
      axes[v.axis.name] = v.axis.names.at(static_cast<size_t>(v.values.at(0)));
    }
  }
  VLR_ASSIGN_OR_RETURN(const Json answer, ask({{"do", "open"},
                                               {"op", op},
                                               {"dtype", dtype_name(shape.dtype)},
                                               {"shape", axes},
                                               {"warm", warm}}));
  std::vector<std::string> names;
  const auto list = answer.find("implementations");
  if (list != answer.end() && list->is_array()) {
    for (const Json& name : *list) {
      if (name.is_string()) names.push_back(name.get<std::string>());
    }
  }
  if (list == answer.end() || names.size() != list->size())
    return Status(Code::kInternal,
                  "the rival answered " + answer.dump() + "; \"implementations\" are wanted");
  for (auto name = names.begin(); name != names.end(); ++name) {
    if (name->empty() || printable(*name) != *name)
      return Status(Code::kInternal, "the rival's name " + in_quotes(*name) + " cannot be shown");
    if (std::find(names.begin(), name, *name) != name)
      return Status(Code::kInternal, "the rival has " + in_quotes(*name) + " twice");
  }
  return names;
}

Status Rival::verify(const std::string& implementation) {
  const auto answer = ask({{"do", "verify"}, {"implementation", implementation}});
  return answer.ok() ? Status() : answer.error();
}

Result<std::unique_ptr<Window>> Rival::make_window(const std::string& implementation,
                                                   double seconds) {
  VLR_ASSIGN_OR_RETURN(
      const Json answer,
      ask({{"do", "window"}, {"implementation", implementation}, {"seconds", seconds}}));
  auto window = std::make_unique<RivalWindow>(*this, implementation);
  VLR_ASSIGN_OR_RETURN(const double launches, number_in(answer, "launches"));
  window->launches = std::max<int64_t>(1, std::llround(launches));
  VLR_ASSIGN_OR_RETURN(window->seconds, window->run());
  return std::unique_ptr<Window>(std::move(window));
}

Result<std::vector<double>> TurnsTimer::run(std::span<const Window* const> windows) {
  std::vector<double> out;
  for (size_t i = 0; i < windows.size();) {
    if (const auto* other = dynamic_cast<const Rival::RivalWindow*>(windows[i])) {
      VLR_ASSIGN_OR_RETURN(const double seconds, other->run());
      out.push_back(seconds);
      ++i;
      continue;
    }
    size_t end = i;
    while (end < windows.size() && !dynamic_cast<const Rival::RivalWindow*>(windows[end])) ++end;
    VLR_ASSIGN_OR_RETURN(const std::vector<double> seconds, own_.run(windows.subspan(i, end - i)));
    out.insert(out.end(), seconds.begin(), seconds.end());
    i = end;
  }
  return out;
}

}  // namespace vlr::bench
