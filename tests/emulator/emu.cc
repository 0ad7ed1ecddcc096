// Blocks as fibers, and what runs beside them: named barriers, mbarriers, tensor copies, products.
#include "emu.h"

#include <cstdarg>
#include <deque>
#include <link.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the registers that calls preserve, and goes on with another stack.
extern "C" void emu_switch(void** save, void* to);
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");

namespace emu {
long map_copies = 0;
namespace {

constexpr uint32_t kDynamic = 1024, kMaxDynamic = 232448, kArena = kDynamic + kMaxDynamic;
constexpr uint32_t kStatic = 0x3c000, kMaxStatic = 0x4000;
constexpr size_t kStack = 256 << 10, kGuard = 4096;
constexpr uint64_t kMagic = 0xba44ba44ba44ba44;

alignas(4096) char arena[kArena];   // as threads see it; index: shared address
alignas(4096) char shadow[kArena];  // as TMA and wgmma see it
char* tls = nullptr;                // static __shared__ variables, in the launch's thread
size_t tls_bytes = 0;

Config the_config;
long report_count = 0;
std::set<std::string> said;  // each report once
std::map<const void*, int> shared_limits;

struct Slot {  // of the collectives of some lanes of a warp
  uint32_t mask = 0, arrived = 0;
  uint64_t generation = 0;
  const char* kind = "";
  uint64_t values[2][32] = {};
};
struct Named {
  int expected = 0, arrived = 0;
  uint64_t generation = 0;
  std::vector<bool> seen;
};
struct Mbarrier {
  bool made = false, fenced = false;
  int expected = 0, pending = 0, maker = 0;
  int64_t bytes = 0;
  uint64_t phase = 0;
};
struct Copy {
  CUtensorMap map;
  uint32_t shared, barrier;
  int x, y, z;
};
struct Op {
  Product p;
  int warps = 0;  // that have issued it
  float* d[128] = {};
  const uint32_t* a[128] = {};
  uint64_t operands = 0;  // a hash of what the first warp saw in shared memory
};
struct Group {  // four warps
  std::deque<Op> ops;
  size_t issued[4] = {}, executed[4] = {};
  std::vector<size_t> commits[4];
  bool fenced[4] = {};
};
enum class Wait { kNone, kSlot, kNamed, kMbarrier, kIssue };
struct Fiber {
  void* sp = nullptr;
  int tid = 0;
  bool done = false;
  Wait wait = Wait::kNone;
  Slot* slot = nullptr;
  uint32_t id = 0;     // of the barrier or group
  uint64_t value = 0;  // generation, parity or number of products
  long copies = 0;     // of tensor maps
};
struct Block {
  uint3 index;
  std::vector<Fiber> fibers;
  std::vector<std::deque<Slot>> slots;  // by warp
  Named named[16];
  std::map<uint32_t, Mbarrier> barriers;
  std::vector<Copy> copies;
  std::vector<Group> groups;
  std::vector<double> speeds;
  double copy_chance = 0, preempt = 0;
  bool joint = true;  // wgmma_wait needs all four warps to have issued
  int live = 0;
  char* stacks = nullptr;
  std::vector<char> saved_arena, saved_shadow, saved_tls;
};
const Launch* current_launch = nullptr;
Block* block = nullptr;
Fiber* fiber = nullptr;
void* scheduler_sp = nullptr;
uint64_t random_state = 1;

uint64_t random_bits() {
  uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}
bool chance(double p) { return p > 0 && static_cast<double>(random_bits() >> 11) * 0x1p-53 < p; }
size_t below(size_t n) { return random_bits() % n; }
template <class T> void shuffle(std::vector<T>& v) {
  for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[below(i)]);
}

std::string where() {
  char text[96] = "";
  if (block && fiber) std::snprintf(text, sizeof(text), "block (%u, %u) thread %d: ", block->index.x, block->index.y, fiber->tid);
  else if (block) std::snprintf(text, sizeof(text), "block (%u, %u): ", block->index.x, block->index.y);
  return text;
}
void poison(char* p, size_t n) {
  for (size_t i = 0; i < n; ++i) p[i] = static_cast<char>((reinterpret_cast<uintptr_t>(p) + i) % 2 ? 0x7f : 0xc0);
}

// --- fibers --------------------------------------------------------------------------------------
bool ready(const Fiber& f) {
  switch (f.wait) {
    case Wait::kNone: return true;
    case Wait::kSlot: return f.slot->generation != f.value;
    case Wait::kNamed: return block->named[f.id].generation != f.value;
    case Wait::kMbarrier: return (block->barriers[f.id].phase & 1) != f.value;
    case Wait::kIssue:
      for (const size_t n : block->groups[f.id].issued) if (n < f.value) return false;
      return true;
  }
  return true;
}
void give_way() { emu_switch(&fiber->sp, scheduler_sp); }
void wait_until(Wait wait, uint32_t id, uint64_t value, Slot* slot = nullptr) {
  fiber->wait = wait, fiber->id = id, fiber->value = value, fiber->slot = slot;
  if (!ready(*fiber)) give_way();
  fiber->wait = Wait::kNone;
}
void fiber_main() {
  current_launch->run();
  if (fiber->copies > current_launch->map_copies)
    report("the kernel made a copy of a CUtensorMap: TMA cannot read local memory");
  fiber->done = true;
  --block->live;
  give_way();
  std::abort();
}
void run_fiber(Fiber& f) {
  fiber = &f;
  const unsigned t = static_cast<unsigned>(f.tid);
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
  emu_switch(&scheduler_sp, f.sp);
  fiber = nullptr;
}

std::string describe(const Fiber& f) {
  char text[200];
  if (f.done) return "exited";
  switch (f.wait) {
    case Wait::kSlot: {
      uint32_t gone = 0;
      for (int l = 0; l < 32; ++l) gone |= (block->fibers[f.tid / 32 * 32 + l].done ? 1u : 0u) << l;
      std::snprintf(text, sizeof(text), "%s of mask %08x: lanes %08x are missing (%08x of them exited)", f.slot->kind,
                    f.slot->mask, f.slot->mask & ~f.slot->arrived, f.slot->mask & ~f.slot->arrived & gone);
      break;
    }
    case Wait::kNamed:
      std::snprintf(text, sizeof(text), "named barrier %u: %d of %d threads are there", f.id, block->named[f.id].arrived, block->named[f.id].expected);
      break;
    case Wait::kMbarrier: {
      const Mbarrier& b = block->barriers[f.id];
      std::snprintf(text, sizeof(text), "mbarrier 0x%x (dynamic + %d), parity %d: in phase %ld, %d of %d arrivals and %ld bytes to come", f.id,
                    static_cast<int>(f.id - kDynamic), static_cast<int>(f.value), static_cast<long>(b.phase), b.pending, b.expected, static_cast<long>(b.bytes));
      break;
    }
    case Wait::kIssue: {
      const Group& g = block->groups[f.id];
      std::snprintf(text, sizeof(text), "wgmma_wait: product %ld, issued by the warps: %ld %ld %ld %ld", static_cast<long>(f.value),
                    static_cast<long>(g.issued[0]), static_cast<long>(g.issued[1]), static_cast<long>(g.issued[2]), static_cast<long>(g.issued[3]));
      break;
    }
    default: return "could run";
  }
  return text;
}
[[noreturn]] void deadlock() {
  std::fprintf(stderr, "emu: DEADLOCK in %s\n", where().c_str());
  for (size_t w = 0; w < block->fibers.size() / 32; ++w) {
    for (int l = 0; l < 32;) {
      const std::string text = describe(block->fibers[w * 32 + l]);
      int end = l + 1;
      while (end < 32 && describe(block->fibers[w * 32 + end]) == text) ++end;
      std::fprintf(stderr, "  warp %2zu lanes %2d-%2d: %s\n", w, l, end - 1, text.c_str());
      l = end;
    }
  }
  std::abort();
}

// --- mbarriers and copies ------------------------------------------------------------------------
Mbarrier& barrier_at(uint32_t address) {
  const auto it = block->barriers.find(address);
  if (it == block->barriers.end()) fail("0x%x is no mbarrier (or not yet)", address);
  uint64_t word;
  std::memcpy(&word, shared_bytes(address, 8), 8);
  if (word != kMagic) fail("the bytes of mbarrier 0x%x were overwritten", address);
  return it->second;
}
void end_phase_if_done(Mbarrier& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  b.pending = b.expected;
  ++b.phase;
}
int box_bytes(const CUtensorMap& m) { return m.box[0] * m.box[1] * m.box[2] * m.element; }
uint32_t swizzled(uint32_t address, int mode) {
  static constexpr uint32_t kMask[] = {0, 7, 3, 1};
  return address ^ (address >> 7 & kMask[mode]) << 4;
}
void do_copy(const Copy& c) {
  const CUtensorMap& m = c.map;
  uint32_t line = c.shared;
  for (int r = 0; r < m.box[2]; ++r)
    for (int h = 0; h < m.box[1]; ++h, line += static_cast<uint32_t>(m.box[0] * m.element)) {
      const int64_t row = int64_t{c.z} + r, head = int64_t{c.y} + h;
      const bool inside = row >= 0 && row < m.dims[2] && head >= 0 && head < m.dims[1];
      for (int x = 0; x < m.box[0]; ++x) {
        const int64_t column = int64_t{c.x} + x;
        const uint32_t to = swizzled(line + static_cast<uint32_t>(x * m.element), m.swizzle);
        if (inside && column >= 0 && column < m.dims[0])
          std::memcpy(arena + to, m.base + row * m.strides[1] + head * m.strides[0] + column * m.element, static_cast<size_t>(m.element));
        else
          std::memset(arena + to, 0, static_cast<size_t>(m.element));
      }
    }
  const auto bytes = static_cast<size_t>(box_bytes(m));
  std::memcpy(shadow + c.shared, arena + c.shared, bytes);  // swizzles stay within a line
  Mbarrier& b = barrier_at(c.barrier);
  b.bytes -= static_cast<int64_t>(bytes);
  end_phase_if_done(b);
}
void finish_some_copy() {
  const size_t i = below(block->copies.size());
  const Copy c = block->copies[i];
  block->copies.erase(block->copies.begin() + static_cast<long>(i));
  do_copy(c);
}

// --- products ------------------------------------------------------------------------------------
float widen(uint16_t bits, bool bf16) {
  static const std::vector<float> halves = [] {
    std::vector<float> all(65536);
    for (uint32_t i = 0; i < 65536; ++i) all[i] = static_cast<float>(from_bits<_Float16>(i));
    return all;
  }();
  return bf16 ? from_bits<float>(uint64_t{bits} << 16) : halves[bits];
}
struct Operand {
  uint32_t start, leading, stride, line;
  int mode;
  bool bf16, columns, complained = false;

  Operand(uint64_t d, bool is_bf16, bool mn_major) : bf16(is_bf16), columns(mn_major) {
    start = static_cast<uint32_t>(d & 0x3fff) << 4, leading = static_cast<uint32_t>(d >> 16 & 0x3fff) << 4;
    stride = static_cast<uint32_t>(d >> 32 & 0x3fff) << 4, mode = static_cast<int>(d >> 62);
    if (mode == 0) fail("wgmma descriptor %016lx without a swizzle", static_cast<unsigned long>(d));
    if (columns && mode != 1) fail("wgmma descriptor %016lx: MN-major operands only with lines of 128 bytes", static_cast<unsigned long>(d));
    line = 256u >> mode;
    if (d & 0x3fffc000c000c000ull) report("wgmma descriptor %016lx: bits outside of the fields are set", static_cast<unsigned long>(d));
    if (start % (8 * line) >= line) report("wgmma descriptor %016lx: starts at 0x%x, not in the first line of a swizzle pattern", static_cast<unsigned long>(d), start);
    if (columns && start % 128) report("wgmma descriptor %016lx: columns start within a line", static_cast<unsigned long>(d));
    if (!columns && start % line + 32 > line) report("wgmma descriptor %016lx: 16 k go past the end of the lines", static_cast<unsigned long>(d));
  }
  float at(uint32_t mn, uint32_t k) {
    const uint32_t plain = columns ? start + mn / 64 * leading + k / 8 * stride + k % 8 * 128 + mn % 64 * 2
                                   : start + mn / 8 * stride + mn % 8 * line + k * 2;
    const uint32_t address = swizzled(plain, mode);
    if (address < kDynamic || address >= kDynamic + current_launch->dynamic_bytes)
      fail("wgmma reads 0x%x, outside of the dynamic shared memory", address);
    uint16_t bits, seen;
    std::memcpy(&bits, arena + address, 2);
    std::memcpy(&seen, shadow + address, 2);
    if (bits != seen && the_config.check_proxy && !complained) {
      complained = true;
      report("wgmma reads 0x%x, written by a thread without a proxy fence since", address);
    }
    return widen(bits, bf16);
  }
};
void execute(Group& g, int warp) {
  Op& op = g.ops[g.executed[warp]++];
  const Product& p = op.p;
  const int n_dim = 8 * p.frags;
  static float a[16][16], b[16][256], sum[16][256];
  uint64_t hash = 0xcbf29ce484222325;
  if (p.rs) {
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i)
        for (int e = 0; e < 2; ++e)
          a[l / 4 + i % 2 * 8][l % 4 * 2 + i / 2 * 8 + e] = widen(static_cast<uint16_t>(op.a[warp * 32 + l][i] >> 16 * e), p.bf16);
  } else {
    Operand from(p.a_lines, p.bf16, false);
    for (uint32_t i = 0; i < 64; ++i)
      for (uint32_t k = 0; k < 16; ++k) {
        const float v = from.at(i, k);
        hash = (hash ^ to_bits(v)) * 0x100000001b3;
        if (i / 16 == static_cast<uint32_t>(warp)) a[i % 16][k] = v;
      }
  }
  Operand from(p.b_lines, p.bf16, p.rs && p.a_lines == 1);
  for (uint32_t k = 0; k < 16; ++k)
    for (uint32_t n = 0; n < static_cast<uint32_t>(n_dim); ++n) {
      b[k][n] = from.at(n, k);
      hash = (hash ^ to_bits(b[k][n])) * 0x100000001b3;
    }
  if (op.operands == 0) op.operands = hash;
  else if (op.operands != hash) report("operands of a wgmma changed before all four warps were done with it");
  for (int i = 0; i < 16; ++i) {
    std::fill(sum[i], sum[i] + n_dim, 0.0f);
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < n_dim; ++n) sum[i][n] += a[i][k] * b[k][n];
  }
  for (int l = 0; l < 32; ++l)
    for (int f = 0; f < p.frags; ++f)
      for (int e = 0; e < 4; ++e) {
        float& d = op.d[warp * 32 + l][f * 4 + e];
        const float s = sum[l / 4 + e / 2 * 8][8 * f + l % 4 * 2 + e % 2];
        d = p.accumulate ? d + s : s;
      }
}

// --- blocks --------------------------------------------------------------------------------------
char* stack_pool(size_t threads) {
  static std::map<size_t, std::vector<char*>> unused;
  static std::vector<std::pair<size_t, char*>> used;
  if (threads == 0) {  // all are free again
    for (const auto& [n, p] : used) unused[n].push_back(p);
    used.clear();
    return nullptr;
  }
  char* p;
  if (!unused[threads].empty()) {
    p = unused[threads].back();
    unused[threads].pop_back();
  } else {
    p = static_cast<char*>(mmap(nullptr, threads * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (p == MAP_FAILED) fail("no memory for stacks");
    for (size_t i = 0; i < threads; ++i) mprotect(p + i * kStack, kGuard, PROT_NONE);
  }
  used.emplace_back(threads, p);
  return p;
}
void begin_block(Block& b, uint3 index, size_t threads, char* stacks) {
  b.index = index;
  b.fibers.resize(threads);
  b.slots.resize(threads / 32);
  b.groups.resize((threads + 127) / 128);
  b.live = static_cast<int>(threads);
  b.stacks = stacks;
  for (size_t i = 0; i < threads; ++i) {
    b.fibers[i].tid = static_cast<int>(i);
    auto** top = reinterpret_cast<void**>(stacks + (i + 1) * kStack - 64);
    top[0] = reinterpret_cast<void*>(&fiber_main);
    b.fibers[i].sp = top - 6;
    std::fill(top - 6, top, nullptr);
  }
  const bool random = the_config.seed != 0;
  static constexpr double kSpeeds[] = {1, 1, 0.5, 0.1, 0.02}, kChances[] = {0, 0.5, 0.1, 0.02, 0.005}, kPreempt[] = {0, 0.2, 0.02};
  for (size_t w = 0; w < threads / 32; ++w) b.speeds.push_back(random ? kSpeeds[below(5)] : 1);
  b.copy_chance = random ? kChances[below(5)] : 0;
  b.preempt = random ? kPreempt[below(3)] : 0;
  if (!the_config.split_warps) b.preempt = 0;
  b.joint = !random || chance(0.5);
  poison(arena, kArena);
  poison(shadow, kArena);
  if (tls) poison(tls, tls_bytes);
}
void end_block() {
  for (const Copy& c : block->copies) report("the block ends with a copy of %d bytes to 0x%x under way", box_bytes(c.map), c.shared);
  for (const auto& [address, b] : block->barriers)
    if (b.bytes != 0) report("the block ends with %ld bytes outstanding at mbarrier 0x%x", static_cast<long>(b.bytes), address);
  for (int i = 0; i < 16; ++i)
    if (the_config.check_named_end && block->named[i].arrived) report("the block ends with %d of %d threads at named barrier %d", block->named[i].arrived, block->named[i].expected, i);
  for (Group& g : block->groups)
    for (int w = 0; w < 4; ++w)
      if (g.executed[w] != g.ops.size()) { report("the block ends with products that nobody has waited for"); break; }
  const size_t end = kDynamic + current_launch->dynamic_bytes;
  for (size_t i = 0; i < kArena; i == kDynamic - 1 ? i = end : ++i)
    if (static_cast<uint8_t>(arena[i]) != (i % 2 ? 0x7f : 0xc0)) {
      report("somebody wrote at 0x%zx, outside of the %zu bytes of dynamic shared memory", i, current_launch->dynamic_bytes);
      break;
    }
}
/// Some rounds over the warps; whether the block has ended.
bool run_rounds(size_t rounds) {
  std::vector<int> order(block->fibers.size() / 32);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  const bool random = the_config.seed != 0;
  for (bool everybody = false; block->live > 0 && rounds > 0; --rounds) {
    bool progress = false, skipped = false;
    if (random) shuffle(order);
    for (const int w : order) {
      if (!everybody && random && !chance(block->speeds[w])) {
        skipped = true;
        continue;
      }
      const int flip = random && chance(0.5) ? 31 : 0;
      for (int l = 0; l < 32; ++l) {
        Fiber& f = block->fibers[w * 32 + (l ^ flip)];
        if (f.done || !ready(f)) continue;
        progress = true;
        run_fiber(f);
      }
      if (!block->copies.empty() && chance(block->copy_chance)) finish_some_copy(), progress = true;
      if (the_config.products == Products::kRandom) {
        const size_t warp = below(order.size());
        Group& g = block->groups[warp / 4];
        if (g.executed[warp % 4] < g.issued[warp % 4] && chance(0.3)) execute(g, static_cast<int>(warp % 4));
      }
    }
    everybody = false;
    if (progress) continue;
    if (skipped) everybody = true;
    else if (!block->copies.empty()) finish_some_copy();
    else deadlock();
  }
  return block->live == 0;
}
int tls_of_program(dl_phdr_info* info, size_t, void*) {  // the first one is the program itself
  for (int i = 0; i < info->dlpi_phnum; ++i)
    if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data) {
      tls = static_cast<char*>(info->dlpi_tls_data);
      tls_bytes = info->dlpi_phdr[i].p_memsz;
    }
  return 1;
}
void use(Block* next) {
  if (block == next) return;
  const auto keep = [](std::vector<char>& v, const char* p, size_t n) { v.assign(p, p + n); };
  const auto bring = [](const std::vector<char>& v, char* p) { if (!v.empty()) std::memcpy(p, v.data(), v.size()); };
  if (block) {
    keep(block->saved_arena, arena, kArena);
    keep(block->saved_shadow, shadow, kArena);
    keep(block->saved_tls, tls, tls_bytes);
  }
  block = next;
  if (!block) return;
  bring(block->saved_arena, arena);
  bring(block->saved_shadow, shadow);
  bring(block->saved_tls, tls);
  blockIdx = block->index;
}
void run_grid() {
  tls = nullptr, tls_bytes = 0;
  dl_iterate_phdr(tls_of_program, nullptr);
  const Launch& l = *current_launch;
  gridDim = l.grid, blockDim = l.block;
  const size_t threads = size_t{l.block.x} * l.block.y * l.block.z;
  std::vector<uint3> todo;
  for (unsigned z = 0; z < l.grid.z; ++z)
    for (unsigned y = 0; y < l.grid.y; ++y)
      for (unsigned x = 0; x < l.grid.x; ++x) todo.push_back({x, y, z});
  random_state = the_config.seed * 0x1234567 + 1;
  if (the_config.seed) shuffle(todo);
  std::reverse(todo.begin(), todo.end());
  std::vector<std::unique_ptr<Block>> resident;
  std::vector<char*> stacks;
  while (!todo.empty() || !resident.empty()) {
    while (!todo.empty() && resident.size() < static_cast<size_t>(std::max(1, the_config.resident))) {
      resident.push_back(std::make_unique<Block>());
      if (stacks.empty()) stacks.push_back(stack_pool(threads));
      use(resident.back().get());
      begin_block(*block, todo.back(), threads, stacks.back());
      blockIdx = block->index;
      stacks.pop_back();
      todo.pop_back();
    }
    const size_t i = below(resident.size());
    use(resident[i].get());
    if (!run_rounds(resident.size() == 1 ? ~size_t{0} : 1 + below(chance(0.5) ? 20 : 1000))) continue;
    end_block();
    stacks.push_back(block->stacks);
    block = nullptr;
    resident.erase(resident.begin() + static_cast<long>(i));
  }
  stack_pool(0);
}

}  // namespace

// --- what emu.h declares -------------------------------------------------------------------------
Config& config() { return the_config; }
long reports() { return report_count; }
void reset_reports() { report_count = 0, said.clear(); }
void fail(const char* format, ...) {
  std::fprintf(stderr, "emu: FATAL: %s", where().c_str());
  va_list list;
  va_start(list, format);
  std::vfprintf(stderr, format, list);
  va_end(list);
  std::fputc('\n', stderr);
  std::abort();
}
void report(const char* format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  std::vsnprintf(text, sizeof(text), format, list);
  va_end(list);
  ++report_count;
  if (said.size() < 20 && said.insert(text).second) std::fprintf(stderr, "emu: REPORT: %s%s\n", where().c_str(), text);
  if (the_config.abort_on_report) std::abort();
}
char* dynamic_shared() { return arena + kDynamic; }
uint32_t shared_address(const void* p) {
  const auto* c = static_cast<const char*>(p);
  if (c >= arena && c <= arena + kArena) return static_cast<uint32_t>(c - arena);
  const auto offset = reinterpret_cast<uintptr_t>(c) - (reinterpret_cast<uintptr_t>(tls) & ~uintptr_t{1023});
  if (!tls || c < tls || c > tls + tls_bytes || offset >= kMaxStatic) fail("shared_address of %p, which is not in shared memory", p);
  return kStatic + static_cast<uint32_t>(offset);
}
char* shared_bytes(uint32_t address, uint32_t bytes) {
  if (address >= kStatic && address + bytes <= kStatic + kMaxStatic)
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(tls) & ~uintptr_t{1023}) + (address - kStatic));
  if (address < kDynamic || address + bytes > kDynamic + current_launch->dynamic_bytes)
    fail("shared address 0x%x, %u bytes: outside of the %zu bytes of dynamic shared memory", address, bytes, current_launch->dynamic_bytes);
  return arena + address;
}
void maybe_yield() {
  if (fiber && chance(block->preempt)) give_way();
}
int lane() { return fiber->tid % 32; }

const uint64_t* exchange(uint32_t mask, const char* kind, uint64_t value) {
  const int l = lane();
  if (!(mask >> l & 1)) fail("%s: lane %d is not in its own mask %08x", kind, l, mask);
  auto& slots = block->slots[fiber->tid / 32];
  Slot* slot = nullptr;
  for (Slot& s : slots) if (s.mask == mask) slot = &s;
  if (!slot) {
    slots.emplace_back();
    slot = &slots.back();
    slot->mask = mask;
  }
  if (slot->arrived == 0) slot->kind = kind;
  else if (std::strcmp(slot->kind, kind) != 0) fail("lanes of one warp are at %s and at %s", slot->kind, kind);
  const uint64_t generation = slot->generation;
  slot->values[generation % 2][l] = value;
  slot->arrived |= 1u << l;
  if (slot->arrived == mask) {
    slot->arrived = 0;
    ++slot->generation;
    if (!the_config.split_warps) give_way();  // so that all lanes go on in one pass over the warp
  } else {
    wait_until(Wait::kSlot, 0, generation, slot);
  }
  return slot->values[generation % 2];
}

void named_barrier(int id, int threads, bool wait) {
  const int all = static_cast<int>(block->fibers.size());
  if (threads < 0) threads = all;
  else maybe_yield();
  if (id < 0 || id > 15) fail("named barrier %d", id);
  if (threads == 0 || threads % 32 || threads > all) fail("named barrier %d for %d threads", id, threads);
  Named& b = block->named[id];
  if (b.arrived == 0) {
    b.expected = threads;
    b.seen.assign(static_cast<size_t>(all), false);
  } else if (b.expected != threads) {
    fail("named barrier %d for %d threads, and others come for %d", id, threads, b.expected);
  }
  if (b.seen[static_cast<size_t>(fiber->tid)]) report("named barrier %d: a thread arrives twice in one phase", id);
  b.seen[static_cast<size_t>(fiber->tid)] = true;
  const uint64_t generation = b.generation;
  if (++b.arrived == b.expected) {
    for (size_t w = 0; w < b.seen.size(); w += 32) {
      const long n = std::count(b.seen.begin() + static_cast<long>(w), b.seen.begin() + static_cast<long>(w) + 32, true);
      if (n != 0 && n != 32) report("named barrier %d: %ld lanes of warp %zu", id, n, w / 32);
    }
    b.arrived = 0;
    ++b.generation;
    if (wait && !the_config.split_warps) give_way();
  } else if (wait) {
    wait_until(Wait::kNamed, static_cast<uint32_t>(id), generation);
  }
}

void make_barrier(uint32_t address, int arrivals) {
  if (address % 8 || arrivals < 1 || arrivals >= 1 << 20) fail("make_barrier(0x%x, %d)", address, arrivals);
  if (block->barriers.contains(address)) report("mbarrier 0x%x is made again", address);
  std::memcpy(shared_bytes(address, 8), &kMagic, 8);
  block->barriers[address] = {true, false, arrivals, arrivals, fiber->tid, 0, 0};
  maybe_yield();
}
void barriers_made() {
  for (auto& [address, b] : block->barriers) b.fenced |= b.maker == fiber->tid;
}
void arrive(uint32_t address, int bytes) {
  maybe_yield();
  Mbarrier& b = barrier_at(address);
  if (b.pending == 0) fail("mbarrier 0x%x: more than its %d arrivals in a phase (%ld bytes to come)", address, b.expected, static_cast<long>(b.bytes));
  if (bytes < 0 || bytes >= 1 << 20) fail("expect_bytes(0x%x, %d)", address, bytes);
  b.bytes += bytes;
  --b.pending;
  end_phase_if_done(b);
}
void wait_for_phase(uint32_t address, uint32_t parity) {
  maybe_yield();
  barrier_at(address);
  if (parity > 1) fail("wait_for_phase(0x%x, %u): the parity is 0 or 1", address, parity);
  wait_until(Wait::kMbarrier, address, parity);
}
void fence_async_proxy() {
  std::memcpy(shadow + kDynamic, arena + kDynamic, current_launch->dynamic_bytes);
}
void copy_box(uint32_t shared, const CUtensorMap& map, int x, int y, int z, uint32_t barrier) {
  maybe_yield();
  if (map.magic != 0x7e50a11e) fail("copy_box: not a tensor map (or one in memory that nobody wrote)");
  if (shared % 128) fail("copy_box to 0x%x: not a multiple of 128", shared);
  const auto bytes = static_cast<uint32_t>(box_bytes(map));
  if (shared_bytes(shared, bytes) != arena + shared) fail("copy_box to static shared memory");
  if (!barrier_at(barrier).fenced) report("copy_box on mbarrier 0x%x before barriers_made()", barrier);
  for (const Copy& c : block->copies)
    if (shared < c.shared + static_cast<uint32_t>(box_bytes(c.map)) && c.shared < shared + bytes)
      report("copy_box to 0x%x, %u bytes, while one to 0x%x is under way", shared, bytes, c.shared);
  if (the_config.check_proxy && std::memcmp(arena + shared, shadow + shared, bytes) != 0)
    report("copy_box to 0x%x over what threads wrote without a proxy fence since", shared);
  const long copies = fiber->copies;
  Copy c{map, shared, barrier, x, y, z};
  fiber->copies = copies;  // our own do not count
  if (!the_config.late_copies) return do_copy(c);
  poison(arena + shared, bytes);
  poison(shadow + shared, bytes);
  block->copies.push_back(c);
  fiber->copies = copies;
  maybe_yield();
}
void note_map_copy() {
  ++map_copies;
  if (fiber) ++fiber->copies;
}

void product(const Product& p) {
  maybe_yield();
  const int thread = fiber->tid % 128, w = thread / 32;
  if (fiber->tid / 128 * 128 + 128 > static_cast<int>(block->fibers.size())) fail("wgmma needs four warps");
  Group& g = block->groups[fiber->tid / 128];
  if (!g.fenced[w]) report("wgmma without a wgmma_fence since the last wgmma_wait");
  const size_t i = g.issued[w];
  if (g.ops.size() == i) {
    g.ops.emplace_back();
    g.ops.back().p = p;
  }
  Op& op = g.ops[i];  // a deque: stays where it is
  const Product& q = op.p;
  if (p.rs != q.rs || p.bf16 != q.bf16 || p.accumulate != q.accumulate || p.frags != q.frags || p.a_lines != q.a_lines || p.b_lines != q.b_lines)
    fail("wgmma: threads of a group differ in shape or descriptors: A %016lx %016lx, B %016lx %016lx", static_cast<unsigned long>(p.a_lines),
         static_cast<unsigned long>(q.a_lines), static_cast<unsigned long>(p.b_lines), static_cast<unsigned long>(q.b_lines));
  op.d[thread] = p.d;
  op.a[thread] = p.a;
  exchange(~0u, "wgmma", 0);
  if (g.issued[w] == i) {  // the first lane behind the rendezvous
    ++g.issued[w];
    if (the_config.products == Products::kEarly || (the_config.products == Products::kRandom && g.executed[w] == i && chance(0.3))) execute(g, w);
  }
}
void products_fence() {
  exchange(~0u, "wgmma_fence", 0);
  block->groups[fiber->tid / 128].fenced[fiber->tid % 128 / 32] = true;
}
void products_commit() {
  exchange(~0u, "wgmma_commit", 0);
  if (lane() == 0) {
    Group& g = block->groups[fiber->tid / 128];
    const int w = fiber->tid % 128 / 32;
    g.commits[w].push_back(g.issued[w]);
  }
  exchange(~0u, "wgmma_commit", 0);
}
void products_wait(int pending) {
  exchange(~0u, "wgmma_wait", static_cast<uint64_t>(pending));
  Group& g = block->groups[fiber->tid / 128];
  const int w = fiber->tid % 128 / 32;
  const auto n = static_cast<long>(g.commits[w].size()) - 1 - pending;
  const size_t target = n >= 0 ? g.commits[w][static_cast<size_t>(n)] : 0;
  if (block->joint) wait_until(Wait::kIssue, static_cast<uint32_t>(fiber->tid / 128), target);
  while (g.executed[w] < target) execute(g, w);
  g.fenced[w] = false;
  exchange(~0u, "wgmma_wait", 0);
  maybe_yield();
}

int set_shared_bytes(const void* function, int bytes) {
  if (bytes < 0 || bytes > static_cast<int>(kMaxDynamic)) return cudaErrorInvalidValue;
  shared_limits[function] = bytes;
  return cudaSuccess;
}
int launch(const Launch& l) {
  const auto limit = shared_limits.find(l.function);
  const size_t threads = size_t{l.block.x} * l.block.y * l.block.z;
  if (l.dynamic_bytes > static_cast<size_t>(limit == shared_limits.end() ? 48 << 10 : limit->second)) return cudaErrorInvalidValue;
  if (threads == 0 || threads > 1024 || l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0 || l.grid.y > 65535) return cudaErrorInvalidConfiguration;
  if (threads % 32) fail("blocks of %zu threads: only whole warps here", threads);
  const long before = report_count;
  current_launch = &l;
  std::thread(run_grid).join();
  current_launch = nullptr;
  return report_count == before ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace emu
