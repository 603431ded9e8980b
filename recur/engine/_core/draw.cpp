// Drawing a token: which one a number in [0, 1) falls on when all are laid side by side, most probable first.
//
// Nothing is sorted. The place is found by bisection on the score: one pass over the probabilities tells what share lies
// above a threshold, and a few passes leave a handful of candidates, of which the first that reaches far enough is taken.
// Top-k and nucleus sampling keep the front of the same order, so all that they change is how much there is to fall on.
#include <algorithm>
#include <vector>

#include "session.h"

namespace recur {
namespace {

constexpr int kFew = 48;  // candidates that are worth sorting

struct Entry {
    float value, p;
    int place;
};

struct Place {
    int place;
    double mass;  // of all up to it, itself included
};

class Line {
public:
    Line(const Kernels& kernels, const float* values, int n, int count, double temperature)
        : kernels_(kernels), values_(values), n_(n), count_(count) {
        p_.need(static_cast<size_t>(n));
        greatest_ = values[kernels.best(values, n)];
        kernels.powers(values, n, greatest_, static_cast<float>(1.0 / temperature), p_.data());
        total_ = above(kNever / 2).mass;
    }
    double total() const { return total_; }
    float greatest() const { return greatest_; }

    // The first place up to which the mass is above `target`, or reaches it.
    Place crossing(double target, bool reached) {
        return find([&](const Share& share) { return reached ? share.mass >= target : share.mass > target; });
    }
    // The k-th place.
    Place rank(int k) {
        return find([&](const Share& share) { return share.count >= k; });
    }

private:
    struct Share {
        double mass;
        int count;
    };
    Share above(float threshold) const {
        double mass;
        int count;
        kernels_.above(values_, p_.data(), n_, threshold, &mass, &count);
        return {mass, count};
    }

    // The first place in order such that the share up to it is `enough`; the last one when none is.
    template <class Enough>
    Place find(const Enough& enough) {
        float high = greatest_, low = kNever / 2;  // enough above `low` (or never), not above `high`
        Share front = {0.0, 0};                    // of what is above `high`
        Share all = above(low);
        if (!enough(all)) return last(all.mass);
        float span = 1.0f;
        for (int rounds = 0; rounds < 200 && all.count - front.count > kFew; ++rounds) {
            // Downhill from the greatest in growing steps until it is enough, then halves.
            const float middle = low <= kNever / 2 ? high - span : low + (high - low) / 2;
            span *= 2;
            if (!(middle > low) || !(middle < high)) break;
            const Share share = above(middle);
            if (enough(share)) {
                low = middle;
                all = share;
            } else {
                high = middle;
                front = share;
            }
        }
        entries_.clear();
        places_.need(static_cast<size_t>(n_));
        const int found = kernels_.between(values_, n_, low, high, places_.data());
        for (int i = 0; i < found; ++i) entries_.push_back({values_[places_[i]], p_[places_[i]], places_[i]});
        std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
            return a.value > b.value || (a.value == b.value && a.place < b.place);
        });
        Share sum = front;
        for (const Entry& each : entries_) {
            sum.mass += each.p;
            ++sum.count;
            if (enough(sum)) return {each.place, sum.mass};
        }
        return {entries_.back().place, sum.mass};
    }

    // The least probable of all: where rounding leaves a little at the end of the line.
    Place last(double mass) const {
        int place = -1;
        for (int i = 0; i < count_; ++i) {
            if (possible(values_[i]) && (place < 0 || values_[i] <= values_[place])) place = i;
        }
        return {std::max(place, 0), mass};
    }

    const Kernels& kernels_;
    const float* values_;
    const int n_, count_;
    float greatest_ = 0;
    double total_ = 0;
    static thread_local Buffer<float> p_;
    static thread_local Buffer<int> places_;
    static thread_local std::vector<Entry> entries_;
};

thread_local Buffer<float> Line::p_;
thread_local Buffer<int> Line::places_;
thread_local std::vector<Entry> Line::entries_;

}  // namespace

Drawn drawn(const Kernels& kernels, const float* values, int n, int count, const Sampling& sampling, double draw) {
    Line line(kernels, values, n, count, sampling.temperature);
    double mass = line.total();
    if (sampling.top_k && sampling.top_k < count) mass = line.rank(sampling.top_k).mass;
    if (sampling.top_p < 1) mass = line.crossing(sampling.top_p * mass, true).mass;
    return {line.crossing(draw * mass, false).place, line.greatest(), static_cast<float>(line.total())};
}

}  // namespace recur
