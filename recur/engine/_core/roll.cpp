// One token after another: greedy search and sampling until END, plain generation, and reading given tokens.
#include <numeric>

#include "session.h"

namespace recur {
namespace {

void roll_part(const Decoder& decoder, const Items& items, const Rules& rules, const Sampling& sampling, int begin,
               int end, int threads, Results& results) {
    const Kernels& kernels = *decoder.network().stack().kernels;
    const int words = decoder.words(), samples = sampling.samples;
    Session session(decoder, items, begin, end, threads);
    Record record(decoder, items.regions);
    const int first = session.count;
    // After the prompt there is one row an item; its samples part ways with the first token.
    std::vector<int> owner(static_cast<size_t>(first) * samples), number(owner.size()), source(owner.size());
    for (size_t i = 0; i < owner.size(); ++i) {
        owner[i] = source[i] = static_cast<int>(i) / samples;
        number[i] = static_cast<int>(i) % samples;
    }
    std::vector<std::vector<int>> histories(owner.size());
    for (int i = begin; i < end; ++i) results[i].resize(samples);
    std::vector<int64_t> ids;
    std::vector<float> barred;
    int rows = first;
    for (int length = 0; length <= rules.max_length && !owner.empty(); ++length) {
        Seen& seen = record.see(session, rows, 0);
        ids.clear();
        std::vector<int> next_owner, next_number;
        std::vector<std::vector<int>> next_histories;
        for (size_t i = 0; i < owner.size(); ++i) {
            const int row = source[i];
            const float* logits = session.logits(row);
            barred.assign(logits, logits + session.room.logit_stride);
            bar(rules, barred.data(), words, histories[i].data(), length);
            int token;
            if (sampling.temperature > 0) {
                const size_t at = (static_cast<size_t>(begin + owner[i]) * samples + number[i]) *
                                      (static_cast<size_t>(rules.max_length) + 1) + length;
                token = drawn(kernels, session.room, barred.data(), session.room.logit_stride, words, sampling,
                              sampling.draws[at]);
            } else {
                token = static_cast<int>(std::max_element(barred.begin(), barred.begin() + words) - barred.begin());
            }
            const float gained = (logits[token] - seen.shift[row]) - seen.log_total[row];
            if (token == rules.end) {
                results[begin + owner[i]][number[i]] = record.found(length, row, gained, 0.0);
                continue;
            }
            seen.before.push_back(row);
            seen.tokens.push_back(token);
            seen.gained.push_back(gained);
            ids.push_back(decoder.id(token));
            next_owner.push_back(owner[i]);
            next_number.push_back(number[i]);
            next_histories.push_back(std::move(histories[i]));
            next_histories.back().push_back(token);
        }
        owner.swap(next_owner), number.swap(next_number), histories.swap(next_histories);
        if (owner.empty()) break;
        rows = static_cast<int>(owner.size());
        session.feed(rows, ids.data(), seen.before.data(), owner.data(), true);
        source.resize(rows);
        std::iota(source.begin(), source.end(), 0);
    }
}

void generate_part(const Decoder& decoder, const Items& items, int length, const Sampling& sampling, int begin, int end,
                   int threads, int64_t* tokens, float* log_probs, float* h, float* c) {
    const Kernels& kernels = *decoder.network().stack().kernels;
    const Stack& stack = decoder.network().stack();
    Session session(decoder, items, begin, end, threads);
    const int rows = session.count, hidden = stack.hidden();
    std::vector<int> all(rows);
    std::iota(all.begin(), all.end(), 0);
    std::vector<int64_t> ids(rows);
    for (int t = 0; t < length; ++t) {
        for (int r = 0; r < rows; ++r) {
            const float* logits = session.logits(r);
            const int stride = session.room.logit_stride;
            const size_t at = static_cast<size_t>(begin + r) * length + t;
            const double draw = sampling.draws ? sampling.draws[at] : 0.0;
            const Choice one = chosen(kernels, session.room, logits, stride, decoder.words(), sampling, draw);
            tokens[at] = one.place;
            log_probs[at] = one.log_prob;
            ids[r] = decoder.id(one.place);
        }
        if (t < length - 1) session.feed(rows, ids.data(), all.data(), all.data(), true);
    }
    for (int layer = 0; layer < stack.layers(); ++layer) {
        for (int r = 0; r < rows; ++r) {
            const size_t to = (static_cast<size_t>(layer) * items.batch + begin + r) * hidden;
            std::copy_n(session.state().h(layer, r), hidden, h + to);
            if (c) std::copy_n(session.state().c(layer, r), hidden, c + to);
        }
    }
}

void read_part(const Decoder& decoder, const Items& given, const Reading& out, int begin, int end, int threads) {
    const Network& net = decoder.network();
    const Stack& stack = net.stack();
    Items items = given;
    const size_t columns = static_cast<size_t>(stack.gate_columns());
    const int time = items.prompt, batch = items.batch, hidden = stack.hidden(), g = gates_of(stack.cell);
    items.prompt = 0;
    Session session(decoder, items, begin, end, threads);
    const int rows = session.count, words = decoder.words();
    session.room.keep_gates = out.trace_h != nullptr;
    std::vector<int> all(rows);
    std::iota(all.begin(), all.end(), 0);
    std::vector<int64_t> ids(rows);
    for (int t = 0; t < time; ++t) {
        for (int r = 0; r < rows; ++r) ids[r] = items.tokens[static_cast<size_t>(begin + r) * time + t];
        session.feed(rows, ids.data(), all.data(), all.data(), true);
        for (int r = 0; r < rows; ++r) {
            const size_t at = static_cast<size_t>(begin + r) * time + t;
            std::copy_n(session.logits(r), words, out.logits + at * words);
            if (out.attention) {
                std::copy_n(session.alpha(r), std::min(items.regions, session.room.alpha_stride),
                            out.attention + at * items.regions);
            }
            for (int layer = 0; out.trace_h && layer < stack.layers(); ++layer) {
                const size_t to = (static_cast<size_t>(layer) * batch * time + at) * hidden;
                std::copy_n(session.state().h(layer, r), hidden, out.trace_h + to);
                if (out.trace_c) std::copy_n(session.state().c(layer, r), hidden, out.trace_c + to);
                stack.plain_gates(session.room.kept_gates.data() + (static_cast<size_t>(layer) * rows + r) * columns, out.trace_gates + to * g);
            }
        }
    }
    for (int layer = 0; layer < stack.layers(); ++layer) {
        for (int r = 0; r < rows; ++r) {
            const size_t to = (static_cast<size_t>(layer) * batch + begin + r) * hidden;
            std::copy_n(session.state().h(layer, r), hidden, out.h + to);
            if (out.c) std::copy_n(session.state().c(layer, r), hidden, out.c + to);
        }
    }
}

}  // namespace

Results roll(const Decoder& decoder, const Items& items, const Rules& rules, const Sampling& sampling, int threads) {
    Results results(items.batch);
    share(items.batch, threads,
          [&](int begin, int end, int each) { roll_part(decoder, items, rules, sampling, begin, end, each, results); });
    return results;
}

void generate(const Decoder& decoder, const Items& items, int length, const Sampling& sampling, int64_t* tokens,
              float* log_probs, float* h, float* c, int threads) {
    share(items.batch, threads, [&](int begin, int end, int each) {
        generate_part(decoder, items, length, sampling, begin, end, each, tokens, log_probs, h, c);
    });
}

void read(const Decoder& decoder, const Items& items, const Reading& out, int threads) {
    share(items.batch, threads, [&](int begin, int end, int each) { read_part(decoder, items, out, begin, end, each); });
}

}  // namespace recur
