// tokenizer/<text>/<cache>: one thread, encoding MB/s (10^6 bytes of UTF-8) and tokens/s.
//   prose    the goldens' English texts: definitions and package descriptions, 55 KB, every text
//   once zipf     1 MB of English words out of the vocabulary, the n-th most frequent with
//   probability ~ 1/n;
//            one in ten is two words run together, so that it is rare and has to be merged
//   chinese  the same of Chinese words, without blanks
//   code     this project's own C++ sources
// warm: the Encoder has seen the text; cold: a new Encoder each time, its making included.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode_classes.h"

namespace vlr {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string prose() {
  std::ifstream file(VLR_TEST_DATA_DIR "/tokenizer/qwen3.jsonl");
  std::string out;
  for (std::string line; std::getline(file, line);) {
    const auto text = nlohmann::json::parse(line)[0].get<std::string>();
    const auto words = std::count_if(text.begin(), text.end(), [](char c) {
      return c == ' ' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    });
    if (text.size() > 40 && words * 10 > static_cast<std::ptrdiff_t>(text.size()) * 9)
      out += text + "\n";
  }
  return out;
}

std::string code() {
  std::string out;
  for (const char* folder : {"engine", "include", "kernels", "model", "multimodal", "tokenizer"}) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(VLR_SOURCE_DIR "/" + std::string(folder))) {
      const auto extension = entry.path().extension();
      if (extension == ".cc" || extension == ".h" || extension == ".cu")
        files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) out += read(file);
  }
  return out;
}

/// The vocabulary's words, in order of their ids, which is roughly that of their frequency.
template <class IsWord>
std::vector<std::string> words(const Tokenizer& tokenizer, IsWord is_word) {
  std::vector<std::string> out;
  for (int32_t id = 0; id < tokenizer.num_ids(); ++id) {
    if (is_word(tokenizer.text(id))) out.emplace_back(tokenizer.text(id));
  }
  return out;
}

bool is_english_word(std::string_view text) {
  return text.size() > 2 && text[0] == ' ' &&
         std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

bool is_chinese_word(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = decode_utf8(text, pos);
    if (c.code_point < 0x4E00 || c.code_point > 0x9FFF) return false;
    pos += c.size;
  }
  return !text.empty();
}

std::string zipf(const std::vector<std::string>& vocabulary,
                 const std::vector<std::string>& punctuation) {
  std::mt19937 rng(1);
  const auto uniform = [&] { return static_cast<double>(rng()) / 4294967296.0; };
  const auto draw = [&] {  // the inverse of Zipf's distribution, continuously
    const auto n = static_cast<double>(vocabulary.size());
    return vocabulary[std::min(vocabulary.size() - 1, static_cast<size_t>(std::pow(n, uniform())))];
  };
  std::string out;
  while (out.size() < 1'000'000) {
    out += draw();
    if (uniform() < 0.1) out += draw().substr(out.back() < 0 ? 0 : 1);
    if (uniform() < 0.12) out += punctuation[rng() % punctuation.size()];
  }
  return out;
}

void bench(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text,
           bool is_cold) {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  Encoder encoder(tokenizer);
  encoder.encode(text, ids);
  const auto num_tokens = static_cast<double>(ids.size());
  if (tokenizer.decode(ids) != text)
    return state.SkipWithError("decoding does not give the text back");
  for (auto _ : state) {
    ids.clear();
    if (is_cold) {
      Encoder fresh(tokenizer);
      fresh.encode(text, ids);
    } else {
      encoder.encode(text, ids);
    }
    benchmark::DoNotOptimize(ids.data());
  }
  const auto n = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["MB/s"] = Counter(n * static_cast<double>(text.size()) * 1e-6, Counter::kIsRate);
  state.counters["tokens/s"] = Counter(n * num_tokens, Counter::kIsRate);
}

int run(int argc, char** argv) {
  const std::string path = VLR_TEST_DATA_DIR "/tokenizer/qwen3_tokenizer.json";
  const auto tokenizer = Tokenizer::open(path);
  if (!tokenizer) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message().c_str());
    return 1;
  }
  const std::pair<const char*, std::string> texts[] = {
      {"prose", prose()},
      {"zipf", zipf(words(*tokenizer, is_english_word), {",", ".\n", ".", " -", "?"})},
      {"chinese", zipf(words(*tokenizer, is_chinese_word), {"，", "。", "、", "？"})},
      {"code", code()},
  };
  for (const auto& [name, text] : texts) {
    for (const bool is_cold : {false, true}) {
      benchmark::RegisterBenchmark(
          ("tokenizer/" + std::string(name) + (is_cold ? "/cold" : "/warm")).c_str(),
          [&, is_cold](benchmark::State& state) { bench(state, *tokenizer, text, is_cold); });
    }
  }
  benchmark::RegisterBenchmark("tokenizer/load", [&](benchmark::State& state) {
    const std::string json = read(path);
    for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::from_json(json));
  })->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace vlr

int main(int argc, char** argv) { return vlr::run(argc, argv); }
