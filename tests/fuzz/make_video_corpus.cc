// Writes the files of corpus/video: make_video_corpus FOLDER. One a container and family of codecs,
// 64 x 48 pixels, a few frames, below 20 kB each.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/support/make_video.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  using vlr::test::VideoRecipe;
  const std::string no_logo = "x264-params=threads=1\\:b-pyramid=2\\:open-gop=1";
  const std::pair<const char*, VideoRecipe> kFiles[] = {
      {"mp4_mpeg4",
       {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .gop = 4, .b_frames = 2}},
      {"mp4_h264_open",
       {.muxer = "mp4",
        .encoder = "libx264",
        .pixels = "yuv420p",
        .gop = 4,
        .b_frames = 2,
        .encoder_options = no_logo}},
      {"mp4_edit",
       {.muxer = "mp4",
        .encoder = "mpeg4",
        .pixels = "yuv420p",
        .pts = {-3, -2, -1, 0, 1, 2, 3, 4},
        .rotation = 90}},
      {"mp4_fragments",
       {.muxer = "mp4",
        .encoder = "mpeg4",
        .pixels = "yuv420p",
        .gop = 4,
        .muxer_options = "movflags=frag_keyframe+empty_moov"}},
      {"mp4_audio", {.muxer = "mp4", .with_video = false, .with_audio = true}},
      {"mov_png", {.muxer = "mov", .encoder = "png", .pixels = "rgb24"}},
      {"mkv_ffv1", {}},
      {"mkv_live",
       {.muxer = "matroska", .encoder = "mpeg4", .pixels = "yuv420p", .muxer_options = "live=1"}},
      {"webm_vp8",
       {.muxer = "webm",
        .encoder = "libvpx",
        .pixels = "yuv420p",
        .encoder_options = "auto-alt-ref=1:lag-in-frames=8"}},
      {"webm_vp9", {.muxer = "webm", .encoder = "libvpx-vp9", .pixels = "yuv420p"}},
      {"avi_mpeg4", {.muxer = "avi", .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2}},
      {"ts_mpeg2",
       {.muxer = "mpegts", .encoder = "mpeg2video", .pixels = "yuv420p", .gop = 4, .b_frames = 2}},
      {"ps_mpeg2",
       {.muxer = "vob", .encoder = "mpeg2video", .pixels = "yuv420p", .gop = 4, .b_frames = 2}},
      {"flv", {.muxer = "flv", .encoder = "flv", .pixels = "yuv420p"}},
      {"ogg_theora", {.muxer = "ogg", .encoder = "libtheora", .pixels = "yuv420p"}},
      {"asf_wmv2", {.muxer = "asf", .encoder = "wmv2", .pixels = "yuv420p"}},
      {"ivf_vp8", {.muxer = "ivf", .encoder = "libvpx", .pixels = "yuv420p"}},
      {"gif", {.muxer = "gif", .encoder = "gif", .pixels = "rgb8"}},
      {"h264",
       {.muxer = "h264",
        .encoder = "libx264",
        .pixels = "yuv420p",
        .b_frames = 2,
        .encoder_options = no_logo}},
      {"hevc",
       {.muxer = "hevc",
        .encoder = "libx265",
        .pixels = "yuv420p",
        .b_frames = 2,
        .encoder_options = "x265-params=log-level=-1\\:pools=none\\:frame-threads=1"}},
      {"m4v", {.muxer = "m4v", .encoder = "mpeg4", .pixels = "yuv420p"}},
      {"mpegvideo",
       {.muxer = "mpeg2video", .encoder = "mpeg2video", .pixels = "yuv420p", .b_frames = 2}},
  };
  for (const auto& [name, recipe] : kFiles) {
    const auto bytes = vlr::test::make_video(recipe, vlr::test::numbered_frames(8));
    if (!bytes) {
      std::fprintf(stderr, "%s: %s\n", name, bytes.error().message().c_str());
      return 1;
    }
    std::ofstream out(std::filesystem::path(argv[1]) / name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes->data()),
              static_cast<std::streamsize>(bytes->size()));
    if (!out || bytes->size() > 20'000) return 1;
  }
  return 0;
}
