/// vlr cache: features of images and videos on disk, shown, made ahead, cleared.
#include <fmt/format.h>

#include "engine/scheduling/vision_cache_folder.h"
#include "kernels/core/format_bytes.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

struct CacheCommand {
  ModelOptions model;
  std::string folder;
  std::vector<std::string> files;

  int show() const;
  int clear() const;
  int add();
};

int CacheCommand::show() const {
  const auto contents = VisionCacheFolder::list(folder);
  if (!contents) return fail(contents.error());
  fmt::print("{:<32}  {:>8}  {:>8}  {:>11}\n", "model", "media", "features", "size");
  int64_t bytes = 0;
  for (const auto& m : contents->models) {
    fmt::print("{:<32}  {:>8}  {:>8}  {:>11}\n", m.name, m.media, m.features,
               format_bytes(m.bytes));
    bytes += m.bytes;
  }
  fmt::print("{} in {}\n", format_bytes(bytes), printable(folder));
  return kServed;
}

int CacheCommand::clear() const {
  const auto bytes = VisionCacheFolder::clear(folder);
  if (!bytes) return fail(bytes.error());
  fmt::print("{} removed from {}\n", format_bytes(*bytes), printable(folder));
  return kServed;
}

/// Bad files are named, and cost themselves; the exit code says that there are some.
int CacheCommand::add() {
  if (model.options.vision_cache_dir.empty())
    return fail({Code::kInvalidArgument, "--vision-cache: which folder is to be filled?"});
  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  int64_t added = 0, known = 0, bad = 0, tokens = 0;
  Progress progress(std::ssize(files), "files");
  constexpr size_t kFiles = 64;  // between two steps of the progress
  for (size_t begin = 0; begin < files.size(); begin += kFiles) {
    Request request;
    Content& media = request.documents.emplace_back();
    const size_t end = std::min(begin + kFiles, files.size());
    for (size_t i = begin; i < end; ++i) {
      const auto kind = kind_of(files[i], model.options.media_root);
      if (kind && *kind == FileUse::kVideo)
        media.videos.push_back({.frames = {}, .file = Media{.path = files[i]}});
      else
        media.images.push_back({.path = files[i]});  // which says what is wrong with it
    }
    const auto fetched = reranker->prefetch(request);
    if (!fetched) return fail(fetched.error());
    for (const MediaResult& r : fetched->media) {
      progress.step();
      if (r.status != DocumentStatus::kOk) {
        progress.clear();
        tell("vlr: {}\n", r.message);
        ++bad;
        continue;
      }
      ++(r.was_cached ? known : added);
      tokens += r.tokens;
    }
  }
  progress.clear();
  fmt::print("{} added, {} were there, {} could not be used; {} visual tokens\n", added, known, bad,
             tokens);
  return bad > 0 ? kUnusable : kServed;
}

}  // namespace

void add_cache(CLI::App& app, Run& run) {
  auto command = std::make_shared<CacheCommand>();
  app.require_subcommand(1);
  const auto folder = [&](CLI::App& s) {
    s.add_option("--vision-cache", command->folder, "The cache's folder")->required();
  };
  CLI::App& show = *app.add_subcommand("show", "What lies in it, model by model");
  folder(show);
  show.callback([command, &run] { run = [command] { return command->show(); }; });
  CLI::App& clear = *app.add_subcommand("clear", "Remove all of it");
  folder(clear);
  clear.callback([command, &run] { run = [command] { return command->clear(); }; });
  CLI::App& add = *app.add_subcommand("add", "Decode images and videos and run the vision tower");
  command->model.add_to(add, kRunsModel | kTakesPairs | kReadsMedia | kVisionCache, kReadsTexts);
  add.add_option("files", command->files, "Image and video files")->required();
  add.callback([command, &run] { run = [command] { return command->add(); }; });
}

}  // namespace vlr::tools
