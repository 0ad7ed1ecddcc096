/// Threads of vlr's own beside the host's: named, and none of its signal handlers runs on them.
#ifndef VLR_KERNELS_CORE_THREAD_START_H_
#define VLR_KERNELS_CORE_THREAD_START_H_

#include <pthread.h>

#include <csignal>
#include <initializer_list>

namespace vlr {

/// While it lives, threads that this one starts are born with every signal blocked but those that a
/// fault of their own raises.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS})
      sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t before_;
};

/// Of the thread that calls it; at most 15 characters.
inline void name_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_THREAD_START_H_
