/// Status and Result<T>: how vlr reports what fails. Nothing of vlr's own is thrown; what a callback
/// of the caller throws comes out as it is.
#ifndef VLR_STATUS_H_
#define VLR_STATUS_H_

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace vlr {

/// What went wrong, by who can mend it. The values are part of the C API (vlr.h).
enum class Code : int {
  kOk = 0,
  kInvalidArgument = 1,  ///< the caller's value
  kNotFound = 2,         ///< no such file or tensor
  kDataLoss = 3,         ///< a file is damaged
  kUnimplemented = 4,    ///< valid, but nobody does it
  kOutOfMemory = 5,      ///< an allocation failed, or a cap would be exceeded
  kDevice = 6,           ///< any other error of the device
  kCancelled = 7,        ///< the caller asked to stop
  kInternal = 8,         ///< a bug of ours
};

constexpr std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kDataLoss:
      return "data loss";
    case Code::kUnimplemented:
      return "unimplemented";
    case Code::kOutOfMemory:
      return "out of memory";
    case Code::kDevice:
      return "device";
    case Code::kCancelled:
      return "cancelled";
    case Code::kInternal:
      return "internal";
  }
  return "unknown";
}

/// Success, or a code and a message that says what was expected, what was found and where.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  /// The same error with `where: ` in front of its message; success stays success.
  Status with_context(std::string_view where) const {
    if (ok()) return *this;
    return {code_, std::string(where) + ": " + message_};
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

namespace detail {
[[noreturn]] inline void end_without_value(const Status& error) {
  std::fprintf(stderr, "vlr: value() of an error: %s\n", error.message().c_str());
  std::abort();
}
}  // namespace detail

/// A T, or the Status that says why there is none. Member names are those of std::expected.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}       // NOLINT: implicit by design
  Result(Status error) : error_(std::move(error)) {}  // NOLINT: implicit by design
  Result(Code code, std::string message) : error_(code, std::move(message)) {}

  bool has_value() const { return value_.has_value(); }
  explicit operator bool() const { return has_value(); }
  bool ok() const { return has_value(); }

  /// Of an error it ends the process, with the message on stderr; operator* and -> are not checked.
  T& value() & { return *checked(); }
  const T& value() const& { return *checked(); }
  T&& value() && { return std::move(*checked()); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

  /// The error; success for a Result that holds a value.
  const Status& error() const { return error_; }

 private:
  std::optional<T>& checked() {
    if (!value_) detail::end_without_value(error_);
    return value_;
  }
  const std::optional<T>& checked() const {
    if (!value_) detail::end_without_value(error_);
    return value_;
  }

  std::optional<T> value_;
  Status error_;
};

}  // namespace vlr

/// Leaves the function with the error of `expr` (a Status), if it is one.
#define VLR_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                             \
    if (::vlr::Status vlr_status_ = (expr); !vlr_status_.ok()) return vlr_status_; \
  } while (false)

/// Declares or assigns `lhs` from `expr` (a Result), or leaves the function with its error.
#define VLR_ASSIGN_OR_RETURN(lhs, expr) \
  VLR_ASSIGN_OR_RETURN_IMPL_(VLR_CONCAT_(vlr_result_, __LINE__), lhs, expr)
#define VLR_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                               \
  if (!tmp.has_value()) return tmp.error();        \
  lhs = std::move(tmp).value()
#define VLR_CONCAT_(a, b) VLR_CONCAT_IMPL_(a, b)
#define VLR_CONCAT_IMPL_(a, b) a##b

#endif  // VLR_STATUS_H_
