// A few threads for one call. They are made for it and end with it: tens of microseconds, spent only on work that takes
// far longer, and nothing is left running in a process that forks or waits.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace recur {

// Where threads meet after every step of a sequence. They spin, since a step takes microseconds; one that has waited
// long gives its processor to whoever the others wait for.
class Barrier {
public:
    explicit Barrier(int count) : count_(count), left_(count) {}
    void wait() {
        if (count_ == 1) return;
        const unsigned round = round_.load(std::memory_order_acquire);
        if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            left_.store(count_, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins > 4000) {
                std::this_thread::yield();
                continue;
            }
#if defined(__x86_64__) || defined(_M_X64)
            _mm_pause();
#endif
        }
    }

private:
    const int count_;
    alignas(64) std::atomic<int> left_;
    alignas(64) std::atomic<unsigned> round_{0};
};

// Threads that stay at hand through one call and share out one product after another: they spin between two, so a
// share costs less than a microsecond. For the few rows of one item, when there is nothing else to divide.
class Crew {
public:
    explicit Crew(int count) : count_(count) {
        for (int i = 1; i < count; ++i) threads_.emplace_back([this, i] { serve(i); });
    }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    ~Crew() {
        over_.store(true, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        for (auto& each : threads_) each.join();
    }
    int count() const { return count_; }

    // job(thread, begin, end) on a share of 0..parts for each thread, this one included. It must not throw.
    template <class Job>
    void share(int parts, const Job& job) {
        job_ = [](const void* context, int thread, int begin, int end) {
            (*static_cast<const Job*>(context))(thread, begin, end);
        };
        context_ = &job;
        parts_ = parts;
        left_.store(count_ - 1, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        job(0, 0, part(1));
        for (int spins = 0; left_.load(std::memory_order_acquire) > 0; ++spins) rest(spins);
    }

private:
    int part(int thread) const { return static_cast<int>(static_cast<long long>(parts_) * thread / count_); }
    static void rest(int spins) {
        if (spins > 4000) {
            std::this_thread::yield();
            return;
        }
#if defined(__x86_64__) || defined(_M_X64)
        _mm_pause();
#endif
    }
    void serve(int thread) {
        for (unsigned seen = 0;;) {
            for (int spins = 0; round_.load(std::memory_order_acquire) == seen; ++spins) rest(spins);
            ++seen;
            if (over_.load(std::memory_order_relaxed)) return;
            job_(context_, thread, part(thread), part(thread + 1));
            left_.fetch_sub(1, std::memory_order_release);
        }
    }

    const int count_;
    int parts_ = 0;
    void (*job_)(const void*, int, int, int) = nullptr;
    const void* context_ = nullptr;
    std::atomic<bool> over_{false};
    alignas(64) std::atomic<unsigned> round_{0};
    alignas(64) std::atomic<int> left_{0};
    std::vector<std::thread> threads_;
};

// work(i) for i < count, each in a thread of its own, the first in this one. The first exception is thrown on.
template <class Work>
void together(int count, const Work& work) {
    if (count <= 1) {
        work(0);
        return;
    }
    std::vector<std::exception_ptr> failures(count);
    auto guarded = [&](int i) {
        try {
            work(i);
        } catch (...) {
            failures[i] = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < count; ++i) threads.emplace_back(guarded, i);
    guarded(0);
    for (auto& each : threads) each.join();
    for (auto& failure : failures) {
        if (failure) std::rethrow_exception(failure);
    }
}

}  // namespace recur
