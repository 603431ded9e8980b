#include "session.h"

#include <memory>
#include <numeric>

namespace recur {

namespace {

// Bytes of weights from which one row's products are shared out: what stays in one core's second-level cache is read
// faster than another core can be told of it.
constexpr size_t kCrewWeights = size_t{1} << 20;

}  // namespace

Session::Session(const Decoder& chosen, const Items& items, int first, int last, int threads)
    : decoder(chosen), begin(first), count(last - first), now_(chosen.network().state()),
      next_(chosen.network().state()) {
    const Network& net = decoder.network();
    const Stack& stack = net.stack();
    const int hidden = stack.hidden();
    if (threads > 1 && decoder.bytes() >= kCrewWeights) {
        crew_ = std::make_unique<Crew>(threads);
        room.crew = crew_.get();
        room.helpers.resize(threads - 1);
    }
    now_.need(count), next_.need(count);
    for (int layer = 0; layer < stack.layers(); ++layer) {
        for (int r = 0; r < count; ++r) {
            const size_t at = (static_cast<size_t>(layer) * items.batch + begin + r) * hidden;
            if (items.h) std::copy_n(items.h + at, hidden, now_.h(layer, r));
            if (items.h && stack.cell == Cell::lstm) std::copy_n(items.c + at, hidden, now_.c(layer, r));
        }
    }
    std::vector<int> all(count);
    std::iota(all.begin(), all.end(), 0);
    const size_t each = static_cast<size_t>(items.regions) * net.features();
    std::vector<const float*> features(count);
    std::vector<int> regions(count, items.regions);
    for (int i = 0; i < count; ++i) {
        features[i] = items.features + each * (begin + i);
        if (items.memory_lengths) regions[i] = static_cast<int>(items.memory_lengths[begin + i]);
    }
    if (net.attends()) {
        memories_.resize(count);
        for (int i = 0; i < count; ++i) net.read(features[i], regions[i], memories_[i], room.work);
    }
    if (net.starts()) {
        net.gates(count, room);
        net.start(count, features.data(), regions.data(), room.gate_rows.data(), room.work);
        step(count, all.data(), all.data());
        if (items.prompt == 0) decoder.score(count, now_, room);
    }
    std::vector<int64_t> ids(count);
    for (int p = 0; p < items.prompt; ++p) {
        for (int i = 0; i < count; ++i) ids[i] = items.tokens[static_cast<size_t>(begin + i) * items.prompt + p];
        feed(count, ids.data(), all.data(), all.data(), p == items.prompt - 1);
    }
}

void Session::step(int n, const int* before, const int* items) {
    read_.resize(n);
    for (int r = 0; r < n && decoder.network().attends(); ++r) read_[r] = &memories_[items[r]];
    decoder.network().step(n, before, now_, next_, read_.data(), room);
    std::swap(now_, next_);
}

void Session::feed(int n, const int64_t* ids, const int* before, const int* items, bool score) {
    const Network& net = decoder.network();
    net.gates(n, room);
    for (int r = 0; r < n; ++r) room.first[r] = net.token(ids[r]);
    step(n, before, items);
    if (score) decoder.score(n, now_, room);
}

Seen& Record::see(const Session& session, int rows, int keep) {
    const Kernels& kernels = *decoder_.network().stack().kernels;
    const int words = decoder_.words(), stride = session.room.logit_stride;
    const int runners = std::min(kRunnersUp + 1, words);
    steps_.emplace_back();
    Seen& seen = steps_.back();
    seen.rows = rows;
    seen.kept = std::min(std::max(keep, runners), words);
    seen.shift.resize(rows), seen.log_total.resize(rows), seen.entropy.resize(rows);
    seen.ids.resize(static_cast<size_t>(rows) * seen.kept), seen.values.resize(seen.ids.size());
    for (int r = 0; r < rows; ++r) {
        const float* logits = session.logits(r);
        float total, moment;
        kernels.spread(logits, stride, &seen.shift[r], &total, &moment);
        if (!std::isfinite(seen.shift[r]) || !possible(seen.shift[r]) || !std::isfinite(total)) {
            throw std::domain_error(
                "the network gave a score that is not finite; expected finite ones; look for weights that are too large");
        }
        seen.log_total[r] = std::log(total);
        seen.entropy[r] = seen.log_total[r] - moment / total;
        const size_t at = static_cast<size_t>(r) * seen.kept;
        kernels.top(logits, stride, seen.kept, &seen.ids[at], &seen.values[at]);
        for (int k = 0; k < seen.kept; ++k) {
            seen.values[at + k] = (seen.values[at + k] - seen.shift[r]) - seen.log_total[r];
        }
    }
    if (const float* alpha = session.alpha(0)) {
        seen.attention.resize(static_cast<size_t>(rows) * regions_, 0.0f);
        const int known = std::min(regions_, session.room.alpha_stride);
        for (int r = 0; r < rows; ++r) {
            std::copy_n(alpha + static_cast<size_t>(r) * session.room.alpha_stride, known,
                        seen.attention.data() + static_cast<size_t>(r) * regions_);
        }
    }
    return seen;
}

Found Record::found(int step, int row, float end_log_prob, double length_penalty) const {
    const int others = std::min(kRunnersUp, decoder_.words() - 1);
    Found out;
    const int length = step;
    out.tokens.resize(length), out.log_probs.resize(length), out.entropies.resize(length + 1);
    out.others.resize(static_cast<size_t>(length) * others), out.other_probs.resize(out.others.size());
    const bool looks = !steps_[0].attention.empty();
    if (looks) out.attention.resize(static_cast<size_t>(length) * regions_);
    out.entropies[length] = steps_[step].entropy[row];
    while (step) {
        const Seen& seen = steps_[--step];
        const int token = seen.tokens[row];
        out.tokens[step] = token;
        out.log_probs[step] = seen.gained[row];
        row = seen.before[row];
        out.entropies[step] = seen.entropy[row];
        const size_t from = static_cast<size_t>(row) * seen.kept, to = static_cast<size_t>(step) * others;
        for (int k = 0, n = 0; k < seen.kept && n < others; ++k) {
            if (seen.ids[from + k] == token) continue;
            out.others[to + n] = seen.ids[from + k];
            out.other_probs[to + n++] = std::exp(seen.values[from + k]);
        }
        if (looks) {
            std::copy_n(seen.attention.data() + static_cast<size_t>(row) * regions_, regions_,
                        out.attention.data() + static_cast<size_t>(step) * regions_);
        }
    }
    double sum = 0;
    for (float each : out.log_probs) sum += each;
    out.end_log_prob = end_log_prob;
    out.log_prob = sum + end_log_prob;
    out.score = out.log_prob / std::pow(length + 1, length_penalty);
    return out;
}

bool bar(const Rules& rules, float* logits, int words, const int* history, int length) {
    const float kept = logits[rules.end];
    if (length >= rules.max_length) {
        std::fill(logits, logits + words, kBarred);
        logits[rules.end] = kept;
        return true;
    }
    const bool active = !rules.forbidden.empty() || rules.no_repeat_ngram || !rules.no_end_after.empty();
    if (!active && length >= rules.min_length) return false;
    for (int token : rules.forbidden) logits[token] = kBarred;
    if (length < rules.min_length) {
        logits[rules.end] = kBarred;
    } else if (length && std::find(rules.no_end_after.begin(), rules.no_end_after.end(), history[length - 1]) !=
                             rules.no_end_after.end()) {
        logits[rules.end] = kBarred;
    }
    const int n = rules.no_repeat_ngram;
    if (n && length >= n) {
        const int* last = history + length - n + 1;  // the n - 1 tokens that the next one would complete
        for (int start = 0; start + n <= length; ++start) {
            if (std::equal(last, last + n - 1, history + start)) logits[history[start + n - 1]] = kBarred;
        }
    }
    // Where nothing at all may follow, END may: a short sentence is better than none.
    if (std::none_of(logits, logits + words, possible)) logits[rules.end] = kept;
    return true;
}

}  // namespace recur
