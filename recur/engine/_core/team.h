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
