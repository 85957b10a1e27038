#include "kernels/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

namespace blas_engine {

namespace {

constexpr int index_bits = 20;
constexpr uint64_t index_mask = (uint64_t{1} << index_bits) - 1;
constexpr int max_chunks = static_cast<int>(index_mask) / 2;  // leaves room for threads that overshoot

// About 100 us of spinning: longer than the gaps inside a step, shorter than what an idle engine would be blamed for.
constexpr int spins_before_sleep = 3000;

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

long futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
    return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, nullptr, nullptr, 0);
}

std::vector<int> read_affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
        }
    }
    return cpus;
}

// Read once, before any thread is pinned: pinning narrows what the system reports to the pinned thread.
const std::vector<int>& affinity_cpus() {
    static const std::vector<int> cpus = read_affinity();
    return cpus;
}

// CPUs granted by the cgroup quota of this process, or 0 for no quota.
int quota_cpus() {
    const auto from = [](double quota, double period) {
        return quota > 0 && period > 0 ? std::max(1, static_cast<int>((quota + period - 1) / period)) : 0;
    };
    // Version 2: the quota may sit at any level between our group and the root, and the tightest one counts.
    std::ifstream groups("/proc/self/cgroup");
    std::string line, path;
    while (std::getline(groups, line)) {
        if (line.rfind("0::", 0) == 0) path = line.substr(3);
    }
    int best = 0;
    for (;;) {
        std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
        std::string quota;
        double period = 0;
        if (file >> quota >> period && quota != "max") {
            const int cpus = from(std::strtod(quota.c_str(), nullptr), period);
            if (cpus > 0 && (best == 0 || cpus < best)) best = cpus;
        }
        if (path.empty() || path == "/") break;
        path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
    std::ifstream quota_v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period_v1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (quota_v1 >> quota && period_v1 >> period) {
        const int cpus = from(quota, period);
        if (cpus > 0 && (best == 0 || cpus < best)) best = cpus;
    }
    return best;
}

}  // namespace

int usable_cpus() {
    const int affinity = std::max<int>(1, static_cast<int>(affinity_cpus().size()));
    const int quota = quota_cpus();
    return quota > 0 ? std::min(affinity, quota) : affinity;
}

ThreadPool::ThreadPool(int threads) {
    const int count = std::clamp(threads > 0 ? threads : usable_cpus(), 1, 1024);
    std::vector<int> cpus = affinity_cpus();
    if (static_cast<int>(cpus.size()) == count && count > 1) cpus_ = std::move(cpus);
    workers_.reserve(static_cast<size_t>(count) - 1);
    for (int thread = 1; thread < count; ++thread) workers_.emplace_back([this, thread] { worker(thread); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    wake_.fetch_add(1);
    futex(&wake_, FUTEX_WAKE_PRIVATE, INT32_MAX);
    for (std::thread& thread : workers_) thread.join();
}

void ThreadPool::pin(int thread) const {
    if (cpus_.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus_[static_cast<size_t>(thread)], &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void ThreadPool::execute(uint64_t ticket, int thread) {
    try {
        call_(context_, static_cast<int>(ticket & index_mask), thread);
    } catch (...) {
        if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
    done_.fetch_add(1, std::memory_order_acq_rel);
}

bool ThreadPool::take_chunk(int thread) {
    const auto open = [](uint64_t ticket) { return (ticket & index_mask) < ((ticket >> index_bits) & index_mask); };
    if (!open(ticket_.load(std::memory_order_acquire))) return false;
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    if (!open(ticket)) return false;
    execute(ticket, thread);
    return true;
}

void ThreadPool::publish(int chunks, Call call, void* context) {
    call_ = call;
    context_ = context;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t job = (ticket_.load(std::memory_order_relaxed) >> (2 * index_bits)) + 1;
    ticket_.store(job << (2 * index_bits) | static_cast<uint64_t>(chunks) << index_bits, std::memory_order_release);
    wake_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) futex(&wake_, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void ThreadPool::run_erased(int chunks, Call call, void* context) {
    if (chunks <= 0) return;
    if (workers_.empty() || chunks == 1) {
        for (int chunk = 0; chunk < chunks; ++chunk) call(context, chunk, 0);
        return;
    }
    if (chunks > max_chunks) {  // more than a ticket can count: several chunks per ticket
        const int group = (chunks + max_chunks - 1) / max_chunks;
        run((chunks + group - 1) / group, [&](int index, int thread) {
            const int end = std::min(chunks, (index + 1) * group);
            for (int chunk = index * group; chunk < end; ++chunk) call(context, chunk, thread);
        });
        return;
    }
    // The caller may be another thread than the one that made the pool: pin whoever computes, once per pool.
    static thread_local const ThreadPool* pinned_by = nullptr;
    if (pinned_by != this) {
        pin(0);
        pinned_by = this;
    }
    publish(chunks, call, context);
    while (take_chunk(0)) {
    }
    for (int spins = 0; done_.load(std::memory_order_acquire) < chunks; ++spins) {
        // A worker that lost its CPU to another process holds the last chunk: let the system run it.
        spins < spins_before_sleep ? pause() : static_cast<void>(sched_yield());
    }
    if (failed_.load()) {
        failed_.store(false);
        std::rethrow_exception(std::exchange(failure_, nullptr));
    }
}

void ThreadPool::worker(int thread) {
    pin(thread);
    const std::string name = "blas-" + std::to_string(thread);
    pthread_setname_np(pthread_self(), name.c_str());
    int spins = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
        const uint32_t seen = wake_.load(std::memory_order_seq_cst);
        if (take_chunk(thread)) {
            spins = 0;
            continue;
        }
        if (++spins < spins_before_sleep) {
            pause();
            continue;
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        // Returns at once if a job was published after `seen` was read.
        if (!stop_.load()) futex(&wake_, FUTEX_WAIT_PRIVATE, seen);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        spins = 0;
    }
}

}  // namespace blas_engine
