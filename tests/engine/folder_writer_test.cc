// What FolderWriter leaves in a folder, whatever fails or ends it: every step of putting files in
// place is made to fail once, and to be the last of its process.
#include "engine/weights/folder_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <map>

#include "tests/support/temp_folder.h"

namespace {

/// Of the renames of this process, counted from 0: which fail, and before which one it ends.
struct Renames {
  int count = 0, first_to_fail = -1, to_fail = 0, last = -1;
} renames;

}  // namespace

/// In place of libc's, which std::filesystem calls.
extern "C" __attribute__((visibility("default"))) int rename(const char* from, const char* to) {
  const int n = renames.count++;
  if (n == renames.last) ::_exit(9);
  if (renames.first_to_fail >= 0 && n >= renames.first_to_fail &&
      n - renames.first_to_fail < renames.to_fail) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

namespace vlr {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::read_file;
using ::testing::StartsWith;
using testing::TempFolder;
using testing::write_file;

/// Files of a folder with their contents, folders among them with "/".
using Contents = std::map<std::string, std::string>;
Contents contents_of(const fs::path& folder) {
  Contents out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    out[entry.path().filename().string()] =
        entry.is_directory() ? "/" : read_file(entry.path().string());
  }
  return out;
}
void write_all(const fs::path& folder, const Contents& files) {
  for (const auto& [name, text] : files) write_file((folder / name).string(), text);
}

const auto kAny = [](std::string_view) { return true; };

/// Why the files were not put into the folder; "": they were.
std::string put(const std::string& folder, const Contents& files,
                const FolderWriter::Replace& replace, const std::function<void()>& meanwhile = {}) {
  auto writer = FolderWriter::begin(folder, replace);
  if (!writer) return writer.error().message();
  write_all(writer->path(), files);
  if (meanwhile) meanwhile();
  return writer->commit().message();
}

TEST(FolderWriter, ReplacesWhatItMay) {
  const TempFolder folder;
  const std::string out = folder / "out";
  const auto write = [&](const FolderWriter::Replace& replace, const char* config) {
    return put(out, {{"config.json", config}, {"model.safetensors", config}}, replace);
  };
  const auto like_1 = [](std::string_view config) { return config == "1"; };
  EXPECT_EQ(write({}, "1"), "");
  EXPECT_EQ(contents_of(out), (Contents{{"config.json", "1"}, {"model.safetensors", "1"}}));
  const std::string other =
      out + ": has another checkpoint (config.json), which only --force replaces";
  EXPECT_EQ(write({}, "2"), other);
  EXPECT_EQ(write({.like_it = like_1}, "3"), "");
  EXPECT_EQ(write({.like_it = like_1}, "4"), other);

  // Shards of another checkpoint go, other files stay; links are replaced, not written through.
  write_file(folder / "victim", "safe");
  write_file(out + "/model-00001-of-00002.safetensors", "old");
  write_file(out + "/model.safetensors.index.json", "old");
  write_file(out + "/model-mine.safetensors", "mine");
  write_file(out + "/notes.txt", "mine");
  fs::remove(out + "/model.safetensors");
  fs::create_symlink(folder / "victim", out + "/model.safetensors");
  fs::create_directory(out + "/.vlr-part-killed");
  EXPECT_EQ(write({.anything = true}, "5"), "");
  EXPECT_EQ(contents_of(out), (Contents{{"config.json", "5"},
                                        {"model.safetensors", "5"},
                                        {"model-mine.safetensors", "mine"},
                                        {"notes.txt", "mine"}}));
  EXPECT_EQ(read_file(folder / "victim"), "safe");
}

TEST(FolderWriter, WritesWhereALinkPoints) {
  const TempFolder folder;
  const std::string real = folder / "real", link = folder / "link";
  fs::create_directory(real);
  fs::create_directory_symlink("real", link);
  EXPECT_EQ(put(link, {{"config.json", "1"}}, {}), "");
  EXPECT_EQ(put(link, {{"config.json", "2"}}, {.like_it = kAny}), "");
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(contents_of(real), (Contents{{"config.json", "2"}}));
}

TEST(FolderWriter, WithoutForceAFolderHasNoneOfTheFiles) {
  const Contents files = {{"config.json", "new"}, {"README.md", "new"}, {"tokenizer.json", "new"}};
  for (const auto& [name, message] : std::map<std::string, std::string>{
           {"README.md", "has a README.md"},
           {"tokenizer.json", "has a tokenizer.json"},
           {"config.json", "has another checkpoint (config.json)"},
           {"model.safetensors", "has another checkpoint (model.safetensors)"},
           {"consolidated.safetensors", "has another checkpoint (consolidated.safetensors)"},
           {"pytorch_model-00001-of-00002.bin", "has another checkpoint (pytorch_model-"},
           {"x.gguf", "has another checkpoint (x.gguf)"}}) {
    const TempFolder folder;
    const FolderWriter::Replace replace = {.names = {"README.md", "tokenizer.json"}};
    const Contents mine = {{name, "mine"}, {"notes.txt", "mine"}};
    write_all(folder.path(), mine);
    EXPECT_THAT(put(folder.path(), files, replace),
                AllOf(StartsWith(folder.path() + ": " + message),
                      HasSubstr(", which only --force replaces")));
    EXPECT_EQ(contents_of(folder.path()), mine);
    // One that comes while the others are written.
    fs::remove(folder / name);
    if (!files.contains(name)) continue;
    EXPECT_EQ(
        put(folder.path(), files, replace, [&] { write_file(folder / name, "mine"); }),
        (folder / name) + ": was put there while the checkpoint was written, and is not replaced");
    EXPECT_EQ(contents_of(folder.path()), mine);
  }
  const TempFolder folder;
  write_file(folder / "adapter_config.json", "{}");
  EXPECT_EQ(put(folder.path(), files, {.anything = true}),
            folder.path() + ": has an adapter_config.json, beside which no checkpoint opens");
}

TEST(FolderWriter, AFolderInTheWayIsSeenBeforeAnythingIsMoved) {
  const TempFolder folder;
  const std::string out = folder / "out", readme = out + "/README.md";
  const Contents old = {{"config.json", "old"}, {"model.safetensors", "old"}};
  ASSERT_EQ(put(out, old, {}), "");
  Contents with_folder = old;
  with_folder["README.md"] = "/";
  const Contents files = {{"config.json", "new"}, {"README.md", "new"}};
  const auto in_the_way = [&] { fs::create_directories(readme + "/x"); };
  const std::string message = readme +
                              ": expected a file or nothing, in whose place a file of the "
                              "checkpoint goes, found a folder";
  EXPECT_EQ(put(out, files, {.like_it = kAny}, in_the_way), message);
  EXPECT_EQ(contents_of(out), with_folder);
  EXPECT_EQ(put(out, files, {.anything = true, .names = {"README.md"}}), message);
  EXPECT_EQ(contents_of(out), with_folder);
}

TEST(FolderWriter, OneWritesAtATimeAndLeavesNothingBehind) {
  const TempFolder folder;
  const std::string out = folder / "new/out";
  {
    const auto first = FolderWriter::begin(out, {});
    ASSERT_TRUE(first) << first.error().message();
    const auto second = FolderWriter::begin(out, {.anything = true});
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().message(), out + ": another process is writing a checkpoint there");
    EXPECT_TRUE(fs::exists(first->path()));
  }
  EXPECT_FALSE(fs::exists(out));
}

/// One shard becomes two with an index, or the other way round: a mixture would be seen.
void each_way(const std::function<void(const std::string& out, const Contents& old,
                                       const Contents& now)>& body) {
  const Contents one = {{"config.json", "one"}, {"model.safetensors", "one"}, {"README.md", "one"}};
  const Contents two = {{"config.json", "two"},
                        {"model.safetensors.index.json", "two"},
                        {"model-00001-of-00002.safetensors", "two"},
                        {"model-00002-of-00002.safetensors", "two"},
                        {"README.md", "two"}};
  const TempFolder folder;
  body(folder / "a", one, two);
  body(folder / "b", two, one);
}
constexpr int kSteps = 9;  // the files of both, and the folder between

void make_folder(const std::string& path, const Contents& files) {
  fs::remove_all(path);
  fs::create_directory(path);
  write_all(path, files);
}

TEST(FolderWriter, AStepThatFailsIsUndone) {
  each_way([](const std::string& out, const Contents& old, const Contents& now) {
    make_folder(out, old);
    for (int step = 0; step < kSteps; ++step) {
      renames = {.first_to_fail = step, .to_fail = 1};
      EXPECT_THAT(put(out, now, {.like_it = kAny}), HasSubstr("Input/output error")) << step;
      EXPECT_EQ(contents_of(out), old) << step;
    }
    renames = {};
    EXPECT_EQ(put(out, now, {.like_it = kAny}), "");
    EXPECT_EQ(contents_of(out), now);
    EXPECT_EQ(renames.count, kSteps);
  });
}

TEST(FolderWriter, WhatCannotBeUndoneIsPutInOrderByTheNextWriter) {
  each_way([](const std::string& out, const Contents& old, const Contents& now) {
    for (int step = 0; step < kSteps; ++step) {
      for (const int failing : {2, 3, 100}) {
        SCOPED_TRACE(fmt::format("step {}, {} fail", step, failing));
        make_folder(out, old);
        renames = {.first_to_fail = step, .to_fail = failing};
        const std::string message = put(out, now, {.like_it = kAny});
        renames = {};
        EXPECT_THAT(message, HasSubstr("Input/output error"));
        const Contents left = contents_of(out);
        if (left != old) {
          EXPECT_FALSE(left.contains("config.json"));
          EXPECT_THAT(message, HasSubstr("which the next writer puts"));
          EXPECT_THAT(unfinished_write(out), HasSubstr("its writer was killed"));
        }
        ASSERT_TRUE(FolderWriter::begin(out, {.like_it = kAny}));
        const Contents finished = contents_of(out);
        EXPECT_TRUE(finished == old || finished == now) << ::testing::PrintToString(finished);
      }
    }
  });
}

TEST(FolderWriter, KilledBeforeAnyStepItLeavesTheOldCheckpointOrTheNewOne) {
  each_way([](const std::string& out, const Contents& old, const Contents& now) {
    int kept = 0, renewed = 0;
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE(step);
      make_folder(out, old);
      const ::pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        renames = {.last = step};
        ::_exit(put(out, now, {.like_it = kAny}).empty() ? 0 : 1);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      ASSERT_EQ(WEXITSTATUS(status), 9);
      // Who reads now: the config is there with all that is its own, or it is not there.
      Contents left = contents_of(out);
      std::erase_if(left, [](const auto& file) { return file.second == "/"; });
      EXPECT_TRUE(left == old || left == now || !left.contains("config.json"));
      EXPECT_EQ(unfinished_write(out).empty(), left.contains("config.json"));
      // Who writes then, without force.
      ASSERT_TRUE(FolderWriter::begin(out, {.like_it = kAny}));
      const Contents finished = contents_of(out);
      EXPECT_TRUE(finished == old || finished == now) << ::testing::PrintToString(finished);
      kept += finished == old;
      renewed += finished == now;
      EXPECT_EQ(put(out, now, {.like_it = kAny}), "");
      EXPECT_EQ(contents_of(out), now);
    }
    EXPECT_EQ(kept, std::ssize(old) + 1);  // up to the renaming of the folder
    EXPECT_EQ(renewed, std::ssize(now));
  });
}

/// A user's repair of what a killed process left is not undone.
TEST(FolderWriter, WhatAKilledProcessLeftDoesNotReplaceWhatCameSince) {
  for (const char* left : {"/.vlr-new-x", "/.vlr-old-x"}) {
    const TempFolder folder;
    const std::string out = folder / "out";
    fs::create_directories(out + left);
    const Contents mine = {{"config.json", "mine"}, {"model.safetensors", "mine"}};
    write_all(out + left, {{"config.json", "left"}, {"a.txt", "left"}});
    write_all(out, mine);
    EXPECT_THAT(put(out, {{"config.json", "new"}}, {.like_it = kAny}),
                AllOf(HasSubstr(left), HasSubstr("what a writer that was killed left"),
                      HasSubstr("config.json: File exists")));
    EXPECT_EQ(read_file(out + "/config.json"), "mine");
    EXPECT_EQ(contents_of(out + left), (Contents{{"config.json", "left"}, {"a.txt", "left"}}));
    EXPECT_EQ(put(out, {{"config.json", "new"}}, {.anything = true}), "");
    EXPECT_EQ(contents_of(out), (Contents{{"config.json", "new"}}));
  }
}

}  // namespace
}  // namespace vlr
