// Choosing a token: the most probable, or the one that a number in [0, 1) falls on when all are laid side by side, most
// probable first.
//
// Nothing is sorted. One pass makes the probabilities and finds what share lies above a few thresholds; others follow
// between the two that matter. What is left between two is picked out as soon as it is little, and in the end a handful of
// candidates remain, of which the first that reaches far enough is taken. Top-k and nucleus sampling keep the front of the
// same order, so all that they change is how much there is to fall on.
//
// Rows are taken in blocks of kBlock, whose sums are added in their order: a crew that shares them out changes no bit.
#include <algorithm>
#include <vector>

#include "session.h"

namespace recur {
namespace {

constexpr int kFew = 8;              // candidates that are worth sorting
constexpr int kSharedScores = 4096;  // from which a crew shares out a row
// How far below the greatest the thresholds lie, in units of the temperature. The last one is below all that can come.
constexpr float kDepths[kThresholds - 1] = {1.0f, 3.0f, 7.0f, 15.0f};

struct Share {
    double mass;
    int count;
};

struct Entry {
    float value, p;
    int place;
};

struct Place {
    int place;
    double mass;  // of all up to it, itself included
};

// What one thread keeps from row to row, for itself and for whoever helps it.
struct Tables {
    Buffer<float> p, x[2], weights[2];  // x, weights, places: picked out of a row, and out of those again
    Buffer<int> places[2];
    std::vector<float> greatest, least, masses;  // of each block (and threshold)
    std::vector<int> counts, found;  // of each block (and threshold)
    std::vector<Entry> entries;
};
thread_local Tables tables;

struct Row {
    const Kernels& kernels;
    Room& room;
    const float* values;
    int n, count;  // with what pads, and without
    Tables& all;

    int blocks() const { return (n + kBlock - 1) / kBlock; }
    int size(int block) const { return std::min(kBlock, n - block * kBlock); }
    // work(block) for every block, shared out where there is a crew.
    template <class Work>
    void each_block(const Work& work) const {
        room.share(n >= kSharedScores, blocks(), [&](Workspace&, int begin, int end) {
            for (int block = begin; block < end; ++block) work(block);
        });
    }

    // The greatest of the row. Errors: domain_error where a number is infinite.
    float greatest() const {
        all.greatest.resize(blocks()), all.least.resize(blocks());
        each_block([&](int block) {
            kernels.extremes(values + block * kBlock, size(block), &all.greatest[block], &all.least[block]);
        });
        const float most = *std::max_element(all.greatest.begin(), all.greatest.end());
        const float least = *std::min_element(all.least.begin(), all.least.end());
        check(std::isfinite(most) && std::isfinite(least) && possible(most));
        return most;
    }

    // The sum of exp(value - greatest). Errors: domain_error where it is not finite, as with a NaN.
    double mass(float greatest) const {
        all.masses.resize(blocks());
        each_block([&](int block) {
            all.masses[block] = kernels.mass(values + block * kBlock, size(block), greatest);
        });
        double total = 0;
        for (float each : all.masses) total += static_cast<double>(each);
        check(std::isfinite(total));
        return total;
    }

    static void check(bool finite) {
        if (finite) return;
        throw std::domain_error(
            "the network gave a score that is not finite; expected finite ones; look for weights that are too large");
    }
};

class Line {
public:
    Line(const Row& row, float greatest, const Sampling& sampling) : row_(row), greatest_(greatest), all_(row.all) {
        const float warmth = static_cast<float>(sampling.temperature);
        const float factor = static_cast<float>(1.0 / sampling.temperature);
        for (int t = 0; t < kThresholds - 1; ++t) {
            thresholds_[t] = std::max(greatest - kDepths[t] * warmth, kNever / 2);
        }
        thresholds_[kThresholds - 1] = kNever / 2;
        all_.p.need(static_cast<size_t>(row_.n));
        all_.masses.resize(static_cast<size_t>(row_.blocks()) * kThresholds);
        all_.counts.resize(all_.masses.size());
        row_.each_block([&](int block) {
            const int at = block * kBlock, t = block * kThresholds;
            row_.kernels.weigh(row_.values + at, row_.size(block), greatest_, factor, thresholds_, all_.p.data() + at,
                               &all_.masses[t], &all_.counts[t]);
        });
        add_blocks(shares_);
        Row::check(std::isfinite(total()));
    }
    double total() const { return shares_[kThresholds - 1].mass; }

    // The first place up to which the mass is above `target`, or reaches it.
    Place crossing(double target, bool reached) {
        return find([&](const Share& share) { return reached ? share.mass >= target : share.mass > target; });
    }
    // The k-th place.
    Place rank(int k) {
        return find([&](const Share& share) { return share.count >= k; });
    }

private:
    // What is known of where the place lies: enough is above `low`, not above `high`.
    struct Span {
        float low, high;
        Share all, front;  // of what is above `low`, and above `high`
        int left() const { return all.count - front.count; }
        // Thresholds within, greatest first. Where there is no bottom yet they go downhill in growing steps.
        bool cut(float greatest, float* thresholds) const {
            const bool open = low <= kNever / 2;
            const float step = open ? greatest - high + 1.0f : (high - low) / (kThresholds + 1);
            for (int t = 0; t < kThresholds; ++t) {
                thresholds[t] = high - step * static_cast<float>(open ? 1 << t : t + 1);
            }
            return thresholds[kThresholds - 1] > low && thresholds[0] < high;
        }
        template <class Enough>
        void close_in(const float* thresholds, const Share* shares, const Enough& enough) {
            for (int t = 0; t < kThresholds; ++t) {
                if (enough(shares[t])) {
                    low = thresholds[t], all = shares[t];
                    return;
                }
                high = thresholds[t], front = shares[t];
            }
        }
    };

    // The first place in order such that the share up to it is `enough`; the last one when none is.
    template <class Enough>
    Place find(const Enough& enough) {
        if (!enough(shares_[kThresholds - 1])) return last();
        Span span = {kNever / 2, greatest_, shares_[kThresholds - 1], {0.0, 0}};
        span.close_in(thresholds_, shares_, enough);
        float cuts[kThresholds];
        Share shares[kThresholds];
        while (span.left() > kBlock && span.cut(greatest_, cuts)) {
            row_.each_block([&](int block) {
                const int at = block * kBlock, t = block * kThresholds;
                row_.kernels.above(row_.values + at, all_.p.data() + at, row_.size(block), cuts, &all_.masses[t],
                                   &all_.counts[t]);
            });
            add_blocks(shares);
            span.close_in(cuts, shares, enough);
        }
        int now = 0, count = pick(span.low, span.high);
        Share before = span.front;  // of what is above all that was picked
        while (span.left() > kFew && span.cut(greatest_, cuts)) {
            if (span.left() < count / 4) {
                count = narrow(now, count, span.low, span.high);
                now = 1 - now;
                before = span.front;
            }
            std::fill_n(shares, kThresholds, before);
            for (int at = 0; at < padded(count); at += kBlock) {
                float masses[kThresholds];
                int counts[kThresholds];
                row_.kernels.above(all_.x[now].data() + at, all_.weights[now].data() + at,
                                   std::min(kBlock, padded(count) - at), cuts, masses, counts);
                add(shares, masses, counts);
            }
            span.close_in(cuts, shares, enough);
        }
        const float low = span.low, high = span.high;
        all_.entries.clear();
        Entry lowest = {greatest_, 0.0f, 0};
        for (int i = 0; i < count; ++i) {
            const Entry each = {all_.x[now][i], all_.weights[now][i], all_.places[now][i]};
            if (each.value > low && each.value <= high) all_.entries.push_back(each);
            if (each.value > low && each.value <= lowest.value) lowest = each;
        }
        // Sums in another order differ in their last bits: where the target lies between two of them, nothing is left.
        if (all_.entries.empty()) return {lowest.place, span.front.mass};
        std::sort(all_.entries.begin(), all_.entries.end(), [](const Entry& a, const Entry& b) {
            return a.value > b.value || (a.value == b.value && a.place < b.place);
        });
        Share sum = span.front;
        for (const Entry& each : all_.entries) {
            sum.mass += static_cast<double>(each.p);
            ++sum.count;
            if (enough(sum)) return {each.place, sum.mass};
        }
        return {all_.entries.back().place, sum.mass};
    }

    static void add(Share* shares, const float* masses, const int* counts) {
        for (int t = 0; t < kThresholds; ++t) {
            shares[t].mass += static_cast<double>(masses[t]);
            shares[t].count += counts[t];
        }
    }
    void add_blocks(Share* shares) const {
        std::fill_n(shares, kThresholds, Share{0.0, 0});
        for (int block = 0; block < row_.blocks(); ++block) {
            add(shares, &all_.masses[block * kThresholds], &all_.counts[block * kThresholds]);
        }
    }
    void need(int side, int n) {
        const size_t room = static_cast<size_t>(n);
        all_.x[side].need(room), all_.weights[side].need(room), all_.places[side].need(room);
    }
    // What lies between two thresholds, to the first list; how many they are.
    int pick(float low, float high) {
        constexpr int kStride = kBlock + kLanes;
        need(0, row_.blocks() * kStride);
        float *x = all_.x[0].data(), *weights = all_.weights[0].data();
        int* places = all_.places[0].data();
        all_.found.resize(row_.blocks());
        row_.each_block([&](int block) {
            const int at = block * kBlock, to = block * kStride;
            all_.found[block] = row_.kernels.pick(row_.values + at, all_.p.data() + at, nullptr, at, row_.size(block),
                                                  low, high, x + to, weights + to, places + to);
        });
        int count = all_.found[0];
        for (int block = 1; block < row_.blocks(); ++block) {
            const int from = block * kStride, found = all_.found[block];
            std::copy_n(x + from, found, x + count);
            std::copy_n(weights + from, found, weights + count);
            std::copy_n(places + from, found, places + count);
            count += found;
        }
        pad(0, count);
        return count;
    }
    // The same from one list to the other.
    int narrow(int side, int n, float low, float high) {
        need(1 - side, padded(n) + kLanes);
        const int count = row_.kernels.pick(all_.x[side].data(), all_.weights[side].data(), all_.places[side].data(), 0,
                                            padded(n), low, high, all_.x[1 - side].data(),
                                            all_.weights[1 - side].data(), all_.places[1 - side].data());
        pad(1 - side, count);
        return count;
    }
    void pad(int side, int count) {
        for (int i = count; i < padded(count); ++i) {
            all_.x[side][i] = kBarred, all_.weights[side][i] = 0.0f, all_.places[side][i] = 0;
        }
    }

    // The least probable of all: where rounding leaves a little at the end of the line.
    Place last() const {
        int place = -1;
        for (int i = 0; i < row_.count; ++i) {
            if (possible(row_.values[i]) && (place < 0 || row_.values[i] <= row_.values[place])) place = i;
        }
        return {std::max(place, 0), total()};
    }

    const Row& row_;
    const float greatest_;
    Tables& all_;
    float thresholds_[kThresholds];
    Share shares_[kThresholds] = {};  // of what is above each threshold
};

Place draw_from(Line& line, int count, const Sampling& sampling, double draw) {
    double mass = line.total();
    if (sampling.top_k && sampling.top_k < count) mass = line.rank(sampling.top_k).mass;
    if (sampling.top_p < 1) mass = line.crossing(sampling.top_p * mass, true).mass;
    return line.crossing(draw * mass, false);
}

}  // namespace

int drawn(const Kernels& kernels, Room& room, const float* values, int n, int count, const Sampling& sampling,
          double draw) {
    const Row row{kernels, room, values, n, count, tables};
    float greatest, least;
    kernels.extremes(values, n, &greatest, &least);
    Line line(row, greatest, sampling);
    return draw_from(line, count, sampling, draw).place;
}

Choice chosen(const Kernels& kernels, Room& room, const float* values, int n, int count, const Sampling& sampling,
              double draw) {
    const Row row{kernels, room, values, n, count, tables};
    const float greatest = row.greatest();
    if (sampling.temperature > 0) {
        Line line(row, greatest, sampling);
        const int place = draw_from(line, count, sampling, draw).place;
        const double total = sampling.temperature == 1 ? line.total() : row.mass(greatest);
        return {place, (values[place] - greatest) - std::log(static_cast<float>(total))};
    }
    int block = 0;
    while (row.all.greatest[block] < greatest) ++block;
    const int place = block * kBlock + kernels.place(values + block * kBlock, row.size(block), greatest);
    return {place, -std::log(static_cast<float>(row.mass(greatest)))};
}

}  // namespace recur
