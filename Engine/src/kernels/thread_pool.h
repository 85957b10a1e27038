// Fork-join over a few pinned threads, made for joins that come every few microseconds.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace blas_engine {

// The number of CPUs this process may really use: affinity mask, limited by the cgroup CPU quota (rounded up).
int usable_cpus();

// The caller is thread 0 and works too; the others spin for a moment after each job and then sleep on a futex, so that
// an idle engine uses no CPU. Chunks are handed out one by one, so a worker that the system has put aside delays
// nothing but the chunk it holds. Threads are pinned only if the pool has exactly as many as the affinity mask has
// CPUs: a smaller pool shares the CPUs with others and would be pinned on top of them. One caller at a time.
class ThreadPool {
  public:
    explicit ThreadPool(int threads);  // 0 = usable_cpus()
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls body(chunk, thread) for every chunk in [0, chunks); `thread` is in [0, threads()) and names the executing
    // thread (for scratch memory). Returns when all are done. The first exception of a body is rethrown here.
    template <typename Body>
    void run(int chunks, Body&& body) {
        using Callable = std::remove_reference_t<Body>;
        run_erased(
            chunks, [](void* context, int chunk, int thread) { (*static_cast<Callable*>(context))(chunk, thread); },
            const_cast<void*>(static_cast<const void*>(&body)));
    }

  private:
    using Call = void (*)(void* context, int chunk, int thread);
    void run_erased(int chunks, Call call, void* context);
    void publish(int chunks, Call call, void* context);
    bool take_chunk(int thread);
    void execute(uint64_t ticket, int thread);
    void worker(int thread);
    void pin(int thread) const;

    // Job number (24 bits), chunk count (20 bits), next chunk (20 bits) in one word: a thread that comes late can
    // never take a chunk of one job with the data of another.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<uint32_t> wake_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    Call call_ = nullptr;
    void* context_ = nullptr;
    std::atomic<bool> failed_{false};
    std::exception_ptr failure_;
    std::vector<int> cpus_;  // empty = not pinned
    std::vector<std::thread> workers_;
};

}  // namespace blas_engine
