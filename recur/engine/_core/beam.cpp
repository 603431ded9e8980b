// Beam search over a batch: every item's hypotheses are rows of one product, and an item leaves when it is settled.
#include "session.h"

namespace recur {
namespace {

struct Finish {
    double score;
    int step, row;
    float end_log_prob;
};

struct Candidate {
    double score;
    int row, token;
    float gained;
};

struct Hypothesis {
    double total = 0;
    std::vector<int> history;
};

// Whether no live hypothesis, none of which can score above `bound`, gets among the n_best any more.
bool settled(const std::vector<Finish>& finished, int n_best, double bound) {
    if (static_cast<int>(finished.size()) < n_best) return false;
    std::vector<double> scores;
    for (const Finish& each : finished) scores.push_back(each.score);
    std::nth_element(scores.begin(), scores.begin() + n_best - 1, scores.end(), std::greater<>());
    return scores[n_best - 1] >= bound;
}

void search(const Decoder& decoder, const Items& items, const Rules& rules, const Beam& beam, int begin, int end,
            int threads, Results& results) {
    const Kernels& kernels = *decoder.network().stack().kernels;
    const int words = decoder.words();
    const double longest = std::pow(rules.max_length + 1, beam.length_penalty);
    Session session(decoder, items, begin, end, threads);
    Record record(decoder, items.regions);
    std::vector<std::vector<Finish>> finished(session.count);
    // Rows of the same item lie together; `owner` names the item of each.
    std::vector<Hypothesis> rows(session.count), next;
    std::vector<int> owner(session.count), next_owner, before;
    for (int i = 0; i < session.count; ++i) owner[i] = i;
    std::vector<int> places(beam.width);
    std::vector<float> values(beam.width);
    std::vector<int64_t> ids;
    std::vector<Candidate> candidates;

    for (int length = 0; length <= rules.max_length && !rows.empty(); ++length) {
        Seen& seen = record.see(session, static_cast<int>(rows.size()), beam.width);
        next.clear(), next_owner.clear(), before.clear(), ids.clear();
        for (size_t row = 0; row < rows.size();) {
            const int item = owner[row];
            candidates.clear();
            for (; row < rows.size() && owner[row] == item; ++row) {
                const int r = static_cast<int>(row);
                const size_t at = row * seen.kept;
                int each = std::min(beam.width, words);
                if (bar(rules, session.logits(r), words, rows[row].history.data(), length)) {
                    kernels.top(session.logits(r), session.room.logit_stride, each, places.data(), values.data());
                    for (int k = 0; k < each; ++k) {
                        const float own = (values[k] - seen.shift[row]) - seen.log_total[row];
                        values[k] = possible(values[k]) ? own : kBarred;
                    }
                } else {
                    std::copy_n(&seen.ids[at], each, places.data());
                    std::copy_n(&seen.values[at], each, values.data());
                }
                for (int k = 0; k < each && possible(values[k]); ++k) {
                    candidates.push_back({rows[row].total + values[k], r, places[k], values[k]});
                }
            }
            std::stable_sort(candidates.begin(), candidates.end(),
                             [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
            const int free = beam.width - static_cast<int>(finished[item].size());
            const int taken = std::min(static_cast<int>(candidates.size()), free);
            double best = kBarred;
            int live = 0;
            for (int k = 0; k < taken; ++k) {
                const Candidate& c = candidates[k];
                if (c.token == rules.end) {
                    const double score = c.score / std::pow(length + 1, beam.length_penalty);
                    finished[item].push_back({score, length, c.row, c.gained});
                } else if (!live++) {
                    best = c.score;
                }
            }
            if (!live || settled(finished[item], beam.n_best, best / longest)) continue;
            for (int k = 0; k < taken; ++k) {
                const Candidate& c = candidates[k];
                if (c.token == rules.end) continue;
                next.push_back({c.score, rows[c.row].history});
                next.back().history.push_back(c.token);
                next_owner.push_back(item);
                before.push_back(c.row);
                ids.push_back(decoder.id(c.token));
                seen.tokens.push_back(c.token);
                seen.gained.push_back(c.gained);
            }
        }
        seen.before = before;
        rows.swap(next);
        owner.swap(next_owner);
        if (rows.empty()) break;
        session.feed(static_cast<int>(rows.size()), ids.data(), before.data(), owner.data(), true);
    }
    for (int i = 0; i < session.count; ++i) {
        std::stable_sort(finished[i].begin(), finished[i].end(),
                         [](const Finish& a, const Finish& b) { return a.score > b.score; });
        for (int k = 0; k < static_cast<int>(finished[i].size()) && k < beam.n_best; ++k) {
            const Finish& each = finished[i][k];
            results[begin + i].push_back(record.found(each.step, each.row, each.end_log_prob, beam.length_penalty));
        }
    }
}

}  // namespace

Results beam_search(const Decoder& decoder, const Items& items, const Rules& rules, const Beam& beam, int threads) {
    Results results(items.batch);
    share(items.batch, threads,
          [&](int begin, int end, int each) { search(decoder, items, rules, beam, begin, end, each, results); });
    return results;
}

}  // namespace recur
