/// A fixed set of worker threads for parallel loops.
#ifndef VLR_KERNELS_CORE_THREAD_POOL_H_
#define VLR_KERNELS_CORE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace vlr {

/// Runs loops on `num_threads` threads, the caller's among them. One loop at a time: parallel_for
/// may be called from any thread, and callers queue up; a body must not call it again.
class ThreadPool {
 public:
  /// 0 or less: one thread per core.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  /// Calls body(index, thread) once for every index in [0, count), thread in [0, num_threads()).
  /// Indices are handed out one by one in ascending order. Returns when all are done; what
  /// a body throws, the first of it, is thrown then.
  void parallel_for(int64_t count, const std::function<void(int64_t index, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int num_threads_;
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_THREAD_POOL_H_
