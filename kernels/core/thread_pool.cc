#include "kernels/core/thread_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/cpus.h"
#include "kernels/core/thread_start.h"

namespace vlr {

struct ThreadPool::State {
  std::mutex callers;  // one loop at a time
  std::mutex mutex;    // guards everything below but `next`
  std::condition_variable start, done;
  const std::function<void(int64_t, int)>* body = nullptr;
  int64_t count = 0;
  std::atomic<int64_t> next{0};
  uint64_t generation = 0;  // counts loops; a worker waits for it to move
  int running = 0;          // workers inside the current loop
  bool stop = false;
  std::exception_ptr thrown;  // by a body, the first one
  std::vector<std::thread> workers;

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    start.notify_all();
    for (std::thread& t : workers) t.join();
  }

  /// Why the system gave fewer; empty: it did not.
  std::string start_workers(int wanted) {
    workers.reserve(static_cast<size_t>(wanted));
    try {
      const BlockSignals inherited;
      for (int thread = 1; thread <= wanted; ++thread) {
        workers.emplace_back([this, thread] {
          name_thread("vlr-worker");
          work(thread);
        });
      }
    } catch (const std::system_error& e) {  // of a limit on processes or on address space
      return e.code().message();
    } catch (const std::bad_alloc&) {
      return "host memory";
    }
    return {};
  }

  void drain(int thread) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        (*body)(i, thread);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!thrown) thrown = std::current_exception();
      }
    }
  }

  void work(int thread) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      start.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      lock.unlock();
      drain(thread);
      lock.lock();
      if (--running == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  const int wanted = num_threads > 0 ? num_threads : usable_cpus();
  std::string refusal = state_->start_workers(std::min(wanted, kMaxThreads) - 1);
  if (!refusal.empty()) {
    // The others of this process, who read files, find something left.
    const int half = static_cast<int>(state_->workers.size()) / 2;
    state_ = std::make_unique<State>();
    (void)state_->start_workers(half);
  } else if (wanted > kMaxThreads) {
    refusal = "the most that are started";
  }
  num_threads_ = static_cast<int>(state_->workers.size()) + 1;
  if (!refusal.empty())
    shortage_ = fmt::format("{} threads instead of {}: {}", num_threads_, wanted, refusal);
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (count <= 0) return;
  State& s = *state_;
  std::lock_guard caller(s.callers);
  if (count == 1 || s.workers.empty()) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  {
    std::lock_guard lock(s.mutex);
    s.body = &body;
    s.count = count;
    s.next.store(0, std::memory_order_relaxed);
    s.running = static_cast<int>(s.workers.size());
    ++s.generation;
  }
  s.start.notify_all();
  s.drain(0);
  std::unique_lock lock(s.mutex);
  s.done.wait(lock, [&] { return s.running == 0; });
  if (s.thrown) std::rethrow_exception(std::exchange(s.thrown, nullptr));
}

}  // namespace vlr
