#include "tools/request_stream.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/api/json_reader.h"
#include "model/json.h"

namespace vlr::tools {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 30;
constexpr int kMomentMs = 20;
/// Lines that are served together hold their requests in memory together.
constexpr size_t kMostBytesAtOnce = size_t{16} << 20;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == line.npos; }

/// Appends what a read() gives; 0: the end.
Result<size_t> read_block(int descriptor, const std::string& name, std::string& text) {
  constexpr size_t kBlock = size_t{1} << 18;
  if (std::ssize(text) >= kMaxBytes)
    return {Code::kInvalidArgument, fmt::format("{}: longer than {} bytes", name, kMaxBytes)};
  const size_t before = text.size();
  text.resize(before + kBlock);
  ssize_t n = -1;
  do {
    n = ::read(descriptor, text.data() + before, kBlock);
    if (n < 0 && errno == EAGAIN) {  // somebody made the pipe non-blocking
      pollfd input{.fd = descriptor, .events = POLLIN, .revents = 0};
      ::poll(&input, 1, -1);
    }
  } while (n < 0 && (errno == EINTR || errno == EAGAIN));
  const int why = errno;
  text.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
  if (n >= 0) return static_cast<size_t>(n);
  return {Code::kNotFound, fmt::format("{}: {}", name, std::generic_category().message(why))};
}

std::string name_of(const std::string& path) { return path == "-" ? "standard input" : path; }

}  // namespace

Result<std::string> read_input(const std::string& path) {
  if (path != "-") return read_text_file(path, kMaxBytes, true);
  std::string text;
  Result<size_t> read = size_t{1};
  while (read && *read > 0) read = read_block(STDIN_FILENO, name_of(path), text);
  if (!read) return read.error();
  return text;
}

Result<RequestStream> RequestStream::open(const std::string& path) {
  RequestStream out;
  out.name_ = name_of(path);
  if (path != "-") {
    VLR_ASSIGN_OR_RETURN(out.text_, read_input(path));
    out.ended_ = true;
  }
  VLR_RETURN_IF_ERROR(out.find_form());
  return out;
}

Status RequestStream::read_more() {
  if (begin_ > 0) {  // what is taken goes
    text_.erase(0, begin_);
    searched_ -= begin_;
    begin_ = 0;
  }
  VLR_ASSIGN_OR_RETURN(const size_t n, read_block(STDIN_FILENO, name_, text_));
  ended_ = n == 0;
  return {};
}

bool RequestStream::idle() const {
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return ::poll(&input, 1, kMomentMs) == 0;
}

/// Decides between one request and JSON lines, reading no more than that takes.
Status RequestStream::find_form() {
  if (!ended_) {
    size_t end = text_.npos;
    while (true) {  // the first line that is not blank
      end = text_.find('\n', searched_);
      if (end == text_.npos) {
        searched_ = text_.size();
        if (ended_) break;
        VLR_RETURN_IF_ERROR(read_more());
      } else if (is_blank(std::string_view(text_).substr(begin_, end - begin_))) {
        begin_ = searched_ = end + 1;
      } else {
        break;
      }
    }
    searched_ = begin_;
    // A line that ends within a JSON value is the beginning of one request; any other is one of
    // several lines, be there more or not.
    if (end != text_.npos) {
      json_lines_ = json_extent(std::string_view(text_).substr(begin_, end - begin_)) !=
                    JsonExtent::kBeginning;
    }
    if (json_lines_) return {};
    while (!ended_) VLR_RETURN_IF_ERROR(read_more());
  }
  const std::string_view text = std::string_view(text_).substr(begin_);
  const size_t first = text.find('\n', text.find_first_not_of(" \t\r\n"));
  json_lines_ = first != text.npos && !is_blank(text.substr(first)) &&
                json_extent(text) != JsonExtent::kWhole;
  // Of a request on many lines with an error somewhere, the place of the error says more than its
  // first line.
  if (json_lines_ && json_extent(text.substr(0, first)) != JsonExtent::kWhole)
    error_ = parse_request(text).error();
  return {};
}

/// Where the first line ends, the last one among them; npos: not in what has come so far.
size_t RequestStream::line_end() {
  const size_t end = text_.find('\n', searched_);
  if (end != text_.npos) return end;
  searched_ = text_.size();
  return ended_ && begin_ < text_.size() ? text_.size() : text_.npos;
}

void RequestStream::add(std::string_view text, std::vector<Result<ParsedRequest>>& out) {
  out.push_back(parse_request(text));
  any_usable_ |= out.back().has_value();
  if (!out.back() && error_.ok()) {
    error_ = json_lines_ ? out.back().error().with_context(fmt::format("line {}", lines_))
                         : out.back().error();
  }
}

Result<std::vector<Result<ParsedRequest>>> RequestStream::next(size_t most) {
  std::vector<Result<ParsedRequest>> out;
  if (!json_lines_) {
    if (std::exchange(lines_, 1) == 0) add(text_, out);
    return out;
  }
  // Until one line is usable, all of them may be none, which is an error of the whole.
  size_t bytes = 0;
  while ((out.size() < most && bytes < kMostBytesAtOnce) || !any_usable_) {
    const size_t end = line_end();
    if (end != text_.npos) {
      ++lines_;
      const std::string_view line = std::string_view(text_).substr(begin_, end - begin_);
      if (!is_blank(line)) add(line, out);
      bytes += line.size();
      begin_ = searched_ = std::min(end + 1, text_.size());
    } else if (ended_ || (!out.empty() && idle())) {
      break;
    } else {
      VLR_RETURN_IF_ERROR(read_more());
    }
  }
  return out;
}

Status RequestStream::unusable() const {
  return any_usable_ ? Status() : error_.with_context(name_);
}

Result<RequestFile> read_requests(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(RequestStream stream, RequestStream::open(path));
  RequestFile out{.requests = {}, .json_lines = stream.json_lines()};
  while (true) {
    VLR_ASSIGN_OR_RETURN(std::vector<Result<ParsedRequest>> some, stream.next(SIZE_MAX));
    if (some.empty()) break;
    std::move(some.begin(), some.end(), std::back_inserter(out.requests));
  }
  VLR_RETURN_IF_ERROR(stream.unusable());
  return out;
}

}  // namespace vlr::tools
