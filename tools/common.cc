#include "tools/common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "model/json.h"
#include "multimodal/image.h"
#include "multimodal/uri.h"
#include "multimodal/video.h"

namespace vlr::tools {

void add_repeatable(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                    const std::string& help) {
  app.add_option(name, values, help + " (repeatable)")->allow_extra_args(false);
}

void ModelOptions::add_to(CLI::App& app) {
  app.add_option("-m,--model", model, "Checkpoint folder: config.json, tokenizer.json, safetensors")
      ->required();
  add_execution_to(app);
  app.add_option("--preset", options.preset,
                 "Quantisation, batch and length for a card's size: auto | high (24 GB) | mid (16 "
                 "GB) | low (12 GB); other options come first");
  app.add_option("--max-length", options.max_length, "Tokens of a pair; longer text is cut")
      ->capture_default_str();
  app.add_option("--media-root", options.media_root, "Where relative media paths start");
  add_media_to(app);
  app.add_flag("--allow-special", options.allow_special, "Special tokens in user text act as such");
  app.add_flag("--compat-null", options.compat_null,
               "Score pairs whose media fail as the official pipeline does");
}

void ModelOptions::add_media_to(CLI::App& app) {
  const auto add = [&](const char* name, auto& option, const char* help) {
    return app.add_option(name, option, help)->capture_default_str();
  };
  add("--min-pixels", options.min_pixels, "Of an image, after resizing");
  add("--max-pixels", options.max_pixels, "Of an image, after resizing");
  add("--total-pixels", options.total_pixels, "Of all frames of a list of frames together");
  add("--max-decoded-pixels", options.max_decoded_pixels,
      "Of an image or a frame; larger ones are refused");
  app.add_flag("--exif", options.exif, "Turn images as their EXIF orientation says");
  add("--sampling", options.video_sampling,
      "Frames of a video file: official (--fps, --max-frames) | uniform+ends (--frames)")
      ->check(CLI::IsMember({"official", "uniform+ends"}));
  add("--fps", options.fps, "Frames taken from a second of a video file");
  add("--max-frames", options.max_frames, "Most frames of a video");
  add("--frames", options.num_frames, "Frames of a video file with --sampling uniform+ends");
  add("--frame-factor", options.frame_factor,
      "First resize of listed frames to multiples of 32, or of 64 as qwen-vl-utils 0.0.14 on PyPI");
  add("--max-media-bytes", options.max_media_bytes,
      "Of an encoded image, frame or video, as in 1GB")
      ->transform(CLI::AsSizeValue(true));
  app.add_flag("--allow-remote", options.allow_remote, "Media may be http: and https: URLs");
  app.add_flag("--allow-private-addresses", options.allow_private_addresses,
               "URLs may lead to loopback, private and link-local hosts");
  add("--remote-timeout", options.remote_timeout, "Seconds for a medium behind a URL");
}

void ModelOptions::add_execution_to(CLI::App& app) {
  const auto switch_off = [&](const char* name, bool& option, const char* help) {
    app.add_flag_callback(
        name, [&option] { option = false; }, help);
  };
  app.add_option("--device", options.device, "auto | cpu | cuda | cuda:N")->capture_default_str();
  app.add_option("--dtype", options.dtype, "auto | f32 (the CPU) | bf16 | f16 (a GPU)")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  app.add_option("--quant", options.quant,
                 "Linear layers of the decoder: none | nf4 | int8 | int8-weight | llm-int8 | "
                 "llm-int8-batch | fp8; as stored by default");
  add_repeatable(app, "--quant-rule", options.quant_rules,
                 "PATTERN=MODE for some layers, as in vision=nf4; the last match counts");
  app.add_flag("--host-embeddings", options.host_embeddings,
               "GPU: keep the embedding table in pinned memory of the host");
  app.add_option(
      "--device-map", options.device_map,
      "GPU: auto, or layers that stay in host memory or on disk, as in layers.18-35=cpu, or "
      "are computed on the CPU, as in layers.0-3=cpu-exec; or a JSON file");
  app.add_option("--offload-folder", options.offload_folder,
                 "GPU: folder for layers on disk, which other processes may share");
  switch_off("--no-self-check", options.self_check,
             "Do not hold quantised weights against what they were before");
  app.add_option("--threads", options.num_threads, "CPU threads; 0: one per core")
      ->capture_default_str();
  app.add_option("--row-chunk", options.row_chunk,
                 "Rows of products and activations at a time, a multiple of 64; 0: chosen")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--batch-tokens", options.batch_tokens,
                 "Token budget of a batch; 0: chosen for the device")
      ->capture_default_str();
  app.add_option("--gpu-memory", options.gpu_memory,
                 "Most GPU memory to take, as in 20GB; 0: nine tenths of what is free")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  switch_off("--fast", options.exact,
             "GPU: any library algorithm, so a score may depend on its batch");
  switch_off("--no-share-prefix", options.share_prefix, "Run every pair whole");
  switch_off("--no-graphs", options.record_small_batches,
             "GPU: never replay small batches as CUDA graphs");
  switch_off("--no-measure", options.measure_kernels,
             "GPU: take library algorithms unmeasured, which opens sooner");
  app.add_option("--no-fuse", options.no_fuse,
                 "GPU: leave a fusion out: residual | qk | gelu | quantize (repeatable)")
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"residual", "qk", "gelu", "quantize"}));
  app.add_option("--vision-cache-memory", options.vision_cache_bytes,
                 "Host memory for features of images and videos; 0: none")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  app.add_option("--vision-cache", options.vision_cache_dir,
                 "Folder that keeps features of images and videos");
  app.add_option("--vision-cache-size", options.vision_cache_dir_bytes, "Most bytes in that folder")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  add_repeatable(app, "--impl", impls, "Use an implementation: op=name");
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
  options.log = [](std::string_view line) { fmt::print(stderr, "vlr: {}\n", line); };
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
    fmt::print(stderr, "\r[{:<{}}] {:.2f} / {:.2f} GB {:<12}",
               std::string(static_cast<size_t>(filled), '='), kWidth,
               static_cast<double>(p.bytes_done) * 1e-9, static_cast<double>(p.bytes_total) * 1e-9,
               p.what);
    std::fflush(stderr);
  };
}

void clear_progress_line() {
  fmt::print(stderr, "\r{:70}\r", "");
  std::fflush(stderr);
}

std::string media_path(const std::string& argument) {
  if (argument.empty() || !media::scheme_of(argument).empty()) return argument;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(argument, error);
  return error ? argument : absolute.string();
}

Result<FileKind> kind_of(const std::string& path, const std::string& media_root) {
  const std::string scheme = media::scheme_of(path);
  if (scheme == "data")
    return path.starts_with("data:video/") ? FileKind::kVideo : FileKind::kPicture;
  if (scheme.empty()) {
    std::ifstream in(std::filesystem::path(media_root) / path, std::ios::binary);
    if (!in) return {Code::kNotFound, fmt::format("{}: cannot be opened", path)};
    char head[4096];
    in.read(head, sizeof head);
    const auto bytes = std::as_bytes(std::span(head).first(static_cast<size_t>(in.gcount())));
    if (looks_like_video(bytes)) return FileKind::kVideo;
    if (looks_like_image(bytes)) return FileKind::kPicture;
  }
  // A damaged picture is not a text to be scored.
  std::string suffix = std::filesystem::path(path).extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto is_one_of = [&](std::initializer_list<std::string_view> known) {
    return std::find(known.begin(), known.end(), suffix) != known.end();
  };
  if (is_one_of({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".flv"}))
    return FileKind::kVideo;
  if (is_one_of({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"}))
    return FileKind::kPicture;
  return scheme.empty() ? FileKind::kText : FileKind::kPicture;
}

int fail(const Status& status) {
  fmt::print(stderr, "vlr: {}\n", status.message());
  return kUnusable;
}

Result<std::string> read_input(const std::string& path) {
  constexpr int64_t kMaxBytes = int64_t{1} << 30;
  if (path != "-") return read_text_file(path, kMaxBytes);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

Result<RequestFile> read_requests(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const std::string text, read_input(path));
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back(line);
    begin = end + 1;
  }
  const std::string name = path == "-" ? "standard input" : path;
  RequestFile out;
  if (parse_json(text) || lines.size() < 2) {
    out.requests.push_back(parse_request(text));
    if (!out.requests.front()) return out.requests.front().error().with_context(name);
    return out;
  }
  // No JSON as a whole: one request a line, if any line is one.
  out.json_lines = true;
  for (std::string_view line : lines) out.requests.push_back(parse_request(line));
  if (std::any_of(out.requests.begin(), out.requests.end(),
                  [](const auto& r) { return r.has_value(); }))
    return out;
  if (parse_json(lines.front()))
    return out.requests.front().error().with_context(name + ": line 1");
  return parse_request(text).error().with_context(name);
}

Progress::Progress(int64_t total, std::string_view unit)
    : total_(total), unit_(unit), on_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (on_ && shown_ >= 0) fmt::print(stderr, "\r{:60}\r", "");
  shown_ = -1;
}

void Progress::step() {
  ++done_;
  const int64_t percent = 100 * done_ / std::max<int64_t>(total_, 1);
  if (!on_ || percent == shown_) return;
  shown_ = percent;
  fmt::print(stderr, "\r{} / {} {}", done_, total_, unit_);
  std::fflush(stderr);
}

}  // namespace vlr::tools
