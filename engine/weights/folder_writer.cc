#include "engine/weights/folder_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "kernels/core/text.h"
#include "model/json.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

constexpr std::string_view kPart = ".vlr-part-", kOld = ".vlr-old-", kNew = ".vlr-new-";
constexpr std::string_view kConfig = "config.json", kIndex = "model.safetensors.index.json",
                           kSingle = "model.safetensors", kAdapter = "adapter_config.json";
constexpr int64_t kConfigBytes = int64_t{4} << 20;

Status failed(const fs::path& path, const std::error_code& error) {
  return {Code::kInvalidArgument, fmt::format("{}: {}", path.string(), error.message())};
}
Status failed(const fs::path& path) { return failed(path, {errno, std::generic_category()}); }

/// What a reader takes for the checkpoint's weights: model.safetensors, or an index and
/// model-00001-of-00002.safetensors.
bool is_shard(std::string_view name) {
  if (name == kIndex || name == kSingle) return true;
  std::string form;
  for (const char c : name) form += c >= '0' && c <= '9' ? '0' : c;
  return form == "model-00000-of-00000.safetensors";
}

/// Whatever a tool may take for weights.
bool is_weights(std::string_view name) {
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
         name.ends_with(".gguf") || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
}

/// In their order.
Result<Names> names_in(const fs::path& folder) {
  Names out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    out.push_back(it->path().filename().string());
  if (error) return failed(folder, error);
  std::ranges::sort(out);
  return out;
}

/// Links are not followed.
bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}
bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

Status sync(const fs::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return failed(path);
  return {};
}

Status check_no_folder(const fs::path& folder, const std::string& name) {
  if (!is_folder(folder / name)) return {};
  return {Code::kInvalidArgument,
          fmt::format("{}: expected a file or nothing, in whose place a file of the checkpoint "
                      "goes, found a folder",
                      (folder / name).string())};
}

/// Moves files, none of which may be in `to`; one that cannot be moved takes those before it back.
Status move_all(const fs::path& from, const fs::path& to, const Names& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    std::error_code error;
    if (is_there(to / names[i])) error = {EEXIST, std::generic_category()};
    if (!error) fs::rename(from / names[i], to / names[i], error);
    if (!error) continue;
    Status status = failed(to / names[i], error);
    while (i-- > 0) {
      fs::rename(to / names[i], from / names[i], error);
      if (error)
        return status.with_context(fmt::format("{} could not be moved back to {}",
                                               (to / names[i]).string(), from.string()));
    }
    return status;
  }
  return {};
}

/// A folder, and where the files of a new checkpoint and of the one that was there are on the way.
struct Places {
  fs::path folder, part, old, fresh;
  Places(const fs::path& in, std::string_view id)
      : folder(in),
        part(in / fmt::format("{}{}", kPart, id)),
        old(in / fmt::format("{}{}", kOld, id)),
        fresh(in / fmt::format("{}{}", kNew, id)) {}

  /// Undoes the first step. A second call goes on where one was killed.
  Status put_back() const {
    VLR_ASSIGN_OR_RETURN(Names names, names_in(old));
    config_last(names);
    VLR_RETURN_IF_ERROR(move_all(old, folder, names));
    VLR_RETURN_IF_ERROR(sync(folder));
    std::error_code error;
    fs::remove(old, error);
    return error ? failed(old, error) : Status();
  }
  /// The third step and the fourth. A second call goes on where one was killed.
  Status put_in_place() const {
    VLR_ASSIGN_OR_RETURN(Names names, names_in(fresh));
    const bool has_config = config_last(names);
    const Names config(names.end() - has_config, names.end());
    names.resize(names.size() - config.size());
    VLR_RETURN_IF_ERROR(move_all(fresh, folder, names));
    Status status = sync(folder);  // before the config, with which it can be opened
    if (status.ok()) status = move_all(fresh, folder, config);
    if (!status.ok()) {
      VLR_RETURN_IF_ERROR(move_all(folder, fresh, names));
      return status;
    }
    // It is there: what is not removed now, the next writer removes.
    if (!sync(folder).ok()) return {};
    std::error_code error;
    fs::remove_all(old, error);
    if (!error) fs::remove(fresh, error);
    return {};
  }

 private:
  static bool config_last(Names& names) {
    const auto config = std::ranges::find(names, kConfig);
    if (config == names.end()) return false;
    std::rotate(config, config + 1, names.end());
    return true;
  }
};

/// Finishes what a process that was killed has left; `discard`s it where something was put in the
/// folder since.
Status finish(const fs::path& folder, bool discard) {
  VLR_ASSIGN_OR_RETURN(const Names names, names_in(folder));
  std::error_code error;
  const auto discarded = [&](const fs::path& path) {
    fs::remove_all(path, error);
    return error ? failed(path, error) : Status();
  };
  const auto finished = [&](const Places& p, const fs::path& left, const Status& status) -> Status {
    if (status.ok()) return {};
    if (discard) {
      VLR_RETURN_IF_ERROR(discarded(p.old));
      return discarded(p.fresh);
    }
    return status.with_context(fmt::format(
        "{} has what a writer that was killed left, and it cannot be put in place; move one of "
        "them away, or use --force, which removes it",
        left.string()));
  };
  const auto of_kind = [&](std::string_view kind, const auto& each) -> Status {
    for (const std::string& name : names) {
      if (!name.starts_with(kind) || !is_folder(folder / name)) continue;
      VLR_RETURN_IF_ERROR(each(Places(folder, name.substr(kind.size()))));
    }
    return {};
  };
  VLR_RETURN_IF_ERROR(
      of_kind(kNew, [&](const Places& p) { return finished(p, p.fresh, p.put_in_place()); }));
  VLR_RETURN_IF_ERROR(
      of_kind(kOld, [&](const Places& p) { return finished(p, p.old, p.put_back()); }));
  return of_kind(kPart, [&](const Places& p) { return discarded(p.part); });
}

/// kInvalidArgument: something is there that must not be replaced. Whether files may be.
Result<bool> check_may_replace(const fs::path& folder, const std::string& shown,
                               const FolderWriter::Replace& replace) {
  if (is_there(folder / kAdapter)) {
    return {Code::kInvalidArgument,
            fmt::format("{}: has an {}, beside which no checkpoint opens", shown, kAdapter)};
  }
  VLR_ASSIGN_OR_RETURN(const Names names, names_in(folder));
  const auto is_written = [&](const std::string& name) {
    return name == kConfig || is_shard(name) || std::ranges::count(replace.names, name) > 0;
  };
  for (const std::string& name : names)
    if (is_written(name)) VLR_RETURN_IF_ERROR(check_no_folder(folder, name));
  if (replace.anything) return true;
  const auto only_force = [&](std::string_view what) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: has {}, which only --force replaces", shown, what));
  };
  if (std::ranges::count(names, kConfig) > 0) {
    const auto config = read_text_file((folder / kConfig).string(), kConfigBytes);
    if (config && replace.like_it && replace.like_it(*config)) return true;
    return only_force(fmt::format("another checkpoint ({})", kConfig));
  }
  for (const std::string& name : names)
    if (is_weights(name))
      return only_force(fmt::format("another checkpoint ({})", printable(name)));
  for (const std::string& name : names)
    if (is_written(name)) return only_force("a " + printable(name));
  return false;
}

}  // namespace

Result<FolderWriter> FolderWriter::begin(const std::string& folder, const Replace& replace) {
  FolderWriter w;
  std::error_code error;
  w.made_ = fs::create_directories(folder, error);
  if (!error) w.folder_ = fs::canonical(folder, error);
  if (error) return failed(folder, error);
  w.lock_ = Descriptor(::open(w.folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (w.lock_.get() < 0) return failed(folder);
  const bool locked = ::flock(w.lock_.get(), LOCK_EX | LOCK_NB) == 0;
  if (!locked && errno == EWOULDBLOCK) {
    w.made_ = false;
    return {Code::kInvalidArgument, folder + ": another process is writing a checkpoint there"};
  }
  if (locked) VLR_RETURN_IF_ERROR(finish(w.folder_, replace.anything));
  VLR_ASSIGN_OR_RETURN(w.replaces_, check_may_replace(w.folder_, folder, replace));
  std::string part = (w.folder_ / (std::string(kPart) + "XXXXXX")).string();
  if (!::mkdtemp(part.data())) return failed(part);
  w.path_ = part;
  return w;
}

FolderWriter::~FolderWriter() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
  if (made_) fs::remove(folder_, ignored);  // if nothing is in it
}

Status FolderWriter::commit() {
  VLR_ASSIGN_OR_RETURN(const Names names, names_in(path_));
  for (const std::string& name : names) VLR_RETURN_IF_ERROR(sync(path_ / name));
  VLR_RETURN_IF_ERROR(sync(path_));

  Names replaced;
  VLR_ASSIGN_OR_RETURN(const Names there, names_in(folder_));
  for (const std::string& name : there) {
    if (!is_shard(name) && !std::ranges::binary_search(names, name)) continue;
    VLR_RETURN_IF_ERROR(check_no_folder(folder_, name));
    if (!replaces_) {
      return {Code::kInvalidArgument,
              fmt::format("{}: was put there while the checkpoint was written, and is not replaced",
                          (folder_ / name).string())};
    }
    // A reader that finds the config finds all the rest.
    replaced.insert(name == kConfig ? replaced.begin() : replaced.end(), name);
  }

  const Places places(folder_, path_.filename().string().substr(kPart.size()));
  std::error_code error;
  if (!fs::create_directory(places.old, error)) {
    return error ? failed(places.old, error)
                 : failed(places.old, {EEXIST, std::generic_category()});
  }
  Status status = sync(folder_);
  if (status.ok()) status = move_all(folder_, places.old, replaced);
  if (status.ok()) status = sync(places.old);
  if (status.ok()) status = sync(folder_);
  if (status.ok()) {
    fs::rename(path_, places.fresh, error);
    if (error) status = failed(path_, error);
  }
  if (status.ok()) status = sync(folder_);
  if (status.ok()) status = places.put_in_place();
  if (status.ok()) {
    path_.clear();
    made_ = false;
    return {};
  }
  if (is_folder(places.fresh)) {
    const auto back =
        names_in(places.fresh);  // what came into the folder has to be out of it again
    if (back && *back == names) fs::rename(places.fresh, path_, error);
    if (!back || *back != names || error) {
      return status.with_context(
          fmt::format("{} has the new checkpoint and {} the one that was there, which the next "
                      "writer puts in order",
                      places.fresh.string(), places.old.string()));
    }
  }
  if (const Status back = places.put_back(); !back.ok()) {
    path_.clear();
    return status.with_context(
        fmt::format("{} has the checkpoint that was there, which the next writer puts back ({})",
                    places.old.string(), back.message()));
  }
  return status;
}

std::string unfinished_write(const fs::path& folder) {
  const auto names = names_in(folder);
  if (!names || std::ranges::count(*names, kConfig) > 0) return "";
  for (const std::string& name : *names) {
    if ((name.starts_with(kOld) || name.starts_with(kNew)) && is_folder(folder / name)) {
      return fmt::format(
          "{}: no config.json, and {}: a checkpoint is being put there, or its writer was killed; "
          "`vlr quantize` and `vlr checkpoint make` into this folder finish that first",
          folder.string(), printable(name));
    }
  }
  return "";
}

}  // namespace vlr
