// A few threads for one call. They are made for it and end with it: tens of microseconds, spent only on work that takes
// far longer, and nothing is left running in a process that forks or waits.
#pragma once

#include <atomic>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__GLIBC__)
#include <pthread.h>
#include <sched.h>
#endif

namespace recur {

// Sends new threads to other processors than this thread's, where there are as many as `count` threads. Linux may start
// them where their maker runs, above all after it has slept, and leave them there for milliseconds: longer than a call
// takes, in which both would spend their turns waiting for each other.
class Elsewhere {
public:
#if defined(__linux__) && defined(__GLIBC__)
    explicit Elsewhere(int count) {
        const int here = sched_getcpu();
        wanted_ = here >= 0 && sched_getaffinity(0, sizeof others_, &others_) == 0 && CPU_COUNT(&others_) >= count &&
                  CPU_ISSET(here, &others_);
        if (wanted_) CPU_CLR(here, &others_);
    }
    void send(std::thread& thread) const {
        if (wanted_) pthread_setaffinity_np(thread.native_handle(), sizeof others_, &others_);
    }

private:
    cpu_set_t others_;
    bool wanted_ = false;
#else
    explicit Elsewhere(int) {}
    void send(std::thread&) const {}
#endif
};

// Where threads meet after every step of a sequence. They spin, since a step takes microseconds; one that has waited
// long gives its processor to whoever the others wait for.
class Barrier {
public:
    explicit Barrier(int count) : count_(count), left_(count) {}
    // Errors: bad_alloc once a thread that the others wait for has given up.
    void wait() {
        if (count_ == 1) return;
        const unsigned round = round_.load(std::memory_order_acquire);
        if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            left_.store(count_, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (abandoned_.load(std::memory_order_relaxed)) throw std::bad_alloc();
            if (spins > 4000) {
                std::this_thread::yield();
                continue;
            }
#if defined(__x86_64__) || defined(_M_X64)
            _mm_pause();
#endif
        }
    }

    // Nobody is to wait for this thread any more.
    void abandon() { abandoned_.store(true, std::memory_order_relaxed); }

private:
    const int count_;
    alignas(64) std::atomic<int> left_;
    alignas(64) std::atomic<unsigned> round_{0};
    std::atomic<bool> abandoned_{false};  // beside round_: whoever waits reads both
};

// Threads that stay at hand through one call and share out one product after another: they spin between two, so a
// share costs less than a microsecond. For the few rows of one item, when there is nothing else to divide.
class Crew {
public:
    // `count` threads with this one, or as many as the system gives.
    explicit Crew(int count) : count_(1) {
        threads_.reserve(static_cast<size_t>(count));
        const Elsewhere elsewhere(count);
        try {
            for (; count_ < count; ++count_) elsewhere.send(threads_.emplace_back([this, i = count_] { serve(i); }));
        } catch (const std::exception&) {  // no thread, or no memory for one
        }
    }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    ~Crew() {
        over_.store(true, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        for (auto& each : threads_) each.join();
    }
    int count() const { return count_; }

    // job(thread, begin, end) on a share of 0..parts for each thread, this one included. Errors: bad_alloc when one
    // threw.
    template <class Job>
    void share(int parts, const Job& job) {
        job_ = [](const void* context, int thread, int begin, int end) {
            (*static_cast<const Job*>(context))(thread, begin, end);
        };
        context_ = &job;
        parts_ = parts;
        left_.store(count_ - 1, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        guarded(0);
        for (int spins = 0; left_.load(std::memory_order_acquire) > 0; ++spins) rest(spins);
        if (failed_.load(std::memory_order_relaxed)) {
            failed_.store(false, std::memory_order_relaxed);
            throw std::bad_alloc();
        }
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
    // What a job can run out of is memory.
    void guarded(int thread) {
        try {
            job_(context_, thread, part(thread), part(thread + 1));
        } catch (...) {
            failed_.store(true, std::memory_order_relaxed);
        }
    }
    void serve(int thread) {
        for (unsigned seen = 0;;) {
            for (int spins = 0; round_.load(std::memory_order_acquire) == seen; ++spins) rest(spins);
            ++seen;
            if (over_.load(std::memory_order_relaxed)) return;
            guarded(thread);
            left_.fetch_sub(1, std::memory_order_release);
        }
    }

    int count_;
    int parts_ = 0;
    void (*job_)(const void*, int, int, int) = nullptr;
    const void* context_ = nullptr;
    std::atomic<bool> over_{false}, failed_{false};
    alignas(64) std::atomic<unsigned> round_{0};
    alignas(64) std::atomic<int> left_{0};
    std::vector<std::thread> threads_;
};

// work(i) for i < count, each in a thread of its own, the first in this one. The first exception is thrown on, after
// `give_up()` has told whoever waits for the thread that failed (or could not be made: bad_alloc).
template <class Work, class GiveUp>
void together(int count, const Work& work, const GiveUp& give_up) {
    if (count <= 1) {
        work(0);
        return;
    }
    std::exception_ptr failure;
    std::atomic_flag failed;
    auto fail = [&] {
        if (!failed.test_and_set()) failure = std::current_exception();
        give_up();
    };
    auto guarded = [&](int i) {
        try {
            work(i);
        } catch (...) {
            fail();
        }
    };
    std::vector<std::thread> threads;
    bool complete = true;
    try {
        threads.reserve(static_cast<size_t>(count));
        const Elsewhere elsewhere(count);
        for (int i = 1; i < count; ++i) elsewhere.send(threads.emplace_back(guarded, i));
    } catch (...) {
        complete = false;
        fail();
    }
    if (complete) guarded(0);
    for (auto& each : threads) each.join();
    if (!complete) throw std::bad_alloc();
    if (failure) std::rethrow_exception(failure);
}

template <class Work>
void together(int count, const Work& work) {
    together(count, work, [] {});
}

}  // namespace recur
