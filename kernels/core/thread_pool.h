/// A fixed set of worker threads for parallel loops.
#ifndef VLR_KERNELS_CORE_THREAD_POOL_H_
#define VLR_KERNELS_CORE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace vlr {

/// Runs loops on `num_threads` threads, the caller's among them. One loop at a time: parallel_for
/// may be called from any thread, and callers queue up; a body must not call it again.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;  // each takes megabytes of stack and scratch

  /// 0 or less: one thread per CPU that the process may use. More than kMaxThreads are not started,
  /// and where the system refuses a thread, those before it do the work; shortage() says so.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  /// Why there are fewer threads than were asked for, for a log; empty: there are not.
  const std::string& shortage() const { return shortage_; }

  /// Calls body(index, thread) once for every index in [0, count), thread in [0, num_threads()).
  /// Indices are handed out one by one in ascending order. Returns when all are done; what
  /// a body throws, the first of it, is thrown then.
  void parallel_for(int64_t count, const std::function<void(int64_t index, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int num_threads_ = 1;
  std::string shortage_;
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_THREAD_POOL_H_
