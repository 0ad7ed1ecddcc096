#include "tools/common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <type_traits>
#include <variant>

#include "kernels/core/format_bytes.h"
#include "model/json.h"
#include "multimodal/source.h"
#include "multimodal/uri.h"

namespace vlr::tools {

CLI::Option* add_repeatable(CLI::App& app, const std::string& name,
                            std::vector<std::string>& values, const std::string& help) {
  return app.add_option(name, values, help + " (repeatable)")->allow_extra_args(false);
}

void ModelOptions::add_to(CLI::App& app, unsigned uses, unsigned unused) {
  app.add_option("-m,--model", model, "Checkpoint folder: config.json, tokenizer.json, safetensors")
      ->type_name("PATH")
      ->required();
  add_options_to(app, uses, unused);
}

CLI::Validator whole_number(int64_t least) {
  CLI::Validator out;
  out.operation([least](std::string& text) -> std::string {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least)
      return fmt::format(
          "must be a whole number{}, got '{}'",
          least > std::numeric_limits<int64_t>::min() ? fmt::format(" of at least {}", least) : "",
          printable(text));
    text = std::to_string(value);
    return {};
  });
  return out;
}

namespace {

/// Numbers mean what they mean to set_option(): "20GB" is bytes, 010 is ten, and what is no number,
/// or beyond 64 bits, is an error. CLI11 gets them in plain digits.
CLI::Validator as_in_the_table(const OptionInfo& info) {
  CLI::Validator out;
  out.operation([&info](std::string& text) -> std::string {
    Options parsed;
    const Status status = parse_option(info, text, parsed);
    if (!status.ok()) return status.message();
    std::visit(
        [&](auto member) {
          using T = std::remove_cvref_t<decltype(parsed.*member)>;
          if constexpr (std::is_arithmetic_v<T>) text = fmt::format("{}", parsed.*member);
        },
        info.member);
    return {};
  });
  return out;
}

bool is_number(const OptionInfo& info) {
  return std::holds_alternative<int Options::*>(info.member) ||
         std::holds_alternative<int64_t Options::*>(info.member) ||
         std::holds_alternative<double Options::*>(info.member);
}

CLI::Option* add_flag_of(CLI::App& app, const OptionInfo& info, bool& value) {
  const std::string flag(info.flag);
  if (info.flag_doc.empty()) return app.add_flag(flag, value, std::string(info.doc));
  return app.add_flag_callback(
      flag, [&value] { value = false; }, std::string(info.flag_doc));
}

CLI::Option* add_value_of(CLI::App& app, const OptionInfo& info, ModelOptions& m) {
  const std::string flag(info.flag), doc(info.doc);
  const auto add = [&](auto& value) {
    CLI::Option* option = app.add_option(flag, value, doc);
    if (const std::string text = format_option(info, m.options); !text.empty())
      option->default_str(text);
    return option;
  };
  const auto* list = std::get_if<std::vector<std::string> Options::*>(&info.member);
  if (list) return add_repeatable(app, flag, m.options.**list, doc);
  if (std::holds_alternative<std::map<std::string, std::string> Options::*>(info.member))
    return add_repeatable(app, flag, m.impls, doc);
  if (const auto* member = std::get_if<int Options::*>(&info.member))
    return add(m.options.**member);
  if (const auto* member = std::get_if<int64_t Options::*>(&info.member))
    return add(m.options.**member);
  if (const auto* member = std::get_if<double Options::*>(&info.member))
    return add(m.options.**member);
  return add(m.options.*std::get<std::string Options::*>(info.member));
}

}  // namespace

void ModelOptions::add_options_to(CLI::App& app, unsigned uses, unsigned unused) {
  for (const OptionInfo& info : option_table()) {
    const bool shown = (info.uses & uses) != 0;
    if (!shown && (info.uses & unused) == 0) continue;
    const auto* flag = std::get_if<bool Options::*>(&info.member);
    CLI::Option* option =
        flag ? add_flag_of(app, info, options.**flag) : add_value_of(app, info, *this);
    option->group(shown ? std::string(option_group_name(info.group)) : "");
    if (!info.value.empty()) option->type_name(std::string(info.value));
    if (is_number(info)) option->transform(as_in_the_table(info));
    if (!info.choices.empty()) {
      option->check(CLI::Validator(
          CLI::IsMember(std::vector<std::string>(info.choices.begin(), info.choices.end()))
              .description("")));
    }
  }
}

Status ModelOptions::finish() {
  for (const std::string& choice : impls) {
    const size_t equals = choice.find('=');
    if (equals == std::string::npos)
      return {Code::kInvalidArgument, fmt::format("--impl must be op=name, got '{}'", choice)};
    options.impls[choice.substr(0, equals)] = choice.substr(equals + 1);
  }
  return {};
}

Result<Reranker> ModelOptions::open() {
  VLR_RETURN_IF_ERROR(finish());
  options.log = [](std::string_view line) { tell("vlr: {}\n", printable(line)); };
  return open_with_bar(model, options);
}

Result<Reranker> open_with_bar(const std::string& folder, Options options) {
  options.on_progress = load_progress_bar();
  if (options.on_progress && options.log) {
    options.log = [log = std::move(options.log)](std::string_view line) {
      clear_progress_line();
      log(line);
    };
  }
  auto reranker = Reranker::open(folder, options);
  if (options.on_progress) clear_progress_line();
  return reranker;
}

std::function<void(const LoadProgress&)> load_progress_bar() {
  if (!isatty(STDERR_FILENO)) return nullptr;
  return [](const LoadProgress& p) {
    constexpr int64_t kWidth = 30;
    const int64_t filled = kWidth * p.bytes_done / std::max<int64_t>(p.bytes_total, 1);
    tell("\r[{:<{}}] {:>11} / {} {:<12}", std::string(static_cast<size_t>(filled), '='), kWidth,
         format_bytes(p.bytes_done), format_bytes(p.bytes_total), p.what);
  };
}

void clear_progress_line() { tell("\r{:76}\r", ""); }

std::string media_path(const std::string& argument) {
  if (argument.empty() || !media::scheme_of(argument).empty()) return argument;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(argument, error);
  return error ? argument : absolute.string();
}

Result<FileUse> kind_of(const std::string& path, const std::string& media_root) {
  const std::string scheme = media::scheme_of(path);
  if (scheme == "data")
    return path.starts_with("data:video/") ? FileUse::kVideo : FileUse::kPicture;
  if (scheme.empty()) {
    const std::filesystem::path file = std::filesystem::path(media_root) / path;
    std::error_code error;
    if (std::filesystem::is_regular_file(file, error)) {
      std::ifstream in(file, std::ios::binary);
      char head[4096];
      in.read(head, sizeof head);
      const auto bytes = std::as_bytes(std::span(head).first(static_cast<size_t>(in.gcount())));
      const FileUse use = file_kind(bytes).use;
      if (use == FileUse::kVideo || use == FileUse::kPicture) return use;
    }
    constexpr int64_t kMaxBytes = int64_t{1} << 30;
    VLR_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, read_file(file, kMaxBytes));
    if (const FileKind kind = file_kind(bytes); kind.use != FileUse::kText) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {}; expected a picture, a video or UTF-8 text", printable(path),
                          kind.name)};
    }
  }
  // A damaged picture is not a text to be scored.
  std::string suffix = std::filesystem::path(path).extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto is_one_of = [&](std::initializer_list<std::string_view> known) {
    return std::find(known.begin(), known.end(), suffix) != known.end();
  };
  if (is_one_of({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".flv"}))
    return FileUse::kVideo;
  if (is_one_of({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"}))
    return FileUse::kPicture;
  return scheme.empty() ? FileUse::kText : FileUse::kPicture;
}

void tell_text(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

int fail(const Status& status) {
  tell("vlr: {}\n", printable(status.message()));
  return kUnusable;
}

Status write_line(const std::string& path, std::string_view text) {
  return write_text_file(path, std::string(text) + "\n");
}

Progress::Progress(int64_t total, std::string_view unit)
    : total_(total), unit_(unit), on_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (on_ && shown_ >= 0) tell("\r{:60}\r", "");
  shown_ = -1;
}

void Progress::step() {
  ++done_;
  const int64_t percent = total_ > 0 ? 100 * done_ / total_ : done_;
  if (!on_ || percent == shown_) return;
  shown_ = percent;
  tell("\r{}{} {}", done_, total_ > 0 ? fmt::format(" / {}", total_) : "", unit_);
}

}  // namespace vlr::tools
