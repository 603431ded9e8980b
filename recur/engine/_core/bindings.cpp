// The door between NumPy and the core. `engine/native.py` converts and explains; what could still make the core read
// beyond an array is checked here again, so that no call crashes whatever it is given.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "cpu.h"
#include "decoder.h"
#include "search.h"
#include "stack.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Weight = std::optional<In<float>>;

std::string told(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

template <class A>
void expect(const A& array, const char* name, const std::vector<int64_t>& shape) {
    std::vector<int64_t> found;
    for (size_t i = 0; i < array.ndim(); ++i) found.push_back(static_cast<int64_t>(array.shape(i)));
    if (found != shape) {
        throw std::invalid_argument(std::string(name) + " has shape " + told(found) + "; expected " + told(shape) +
                                    "; give arrays that fit together");
    }
}

const float* given(const Weight& array, const char* name, const std::vector<int64_t>& shape) {
    if (!array) return nullptr;
    expect(*array, name, shape);
    return array->data();
}

template <class T>
nb::object owned(std::vector<T>&& values, const std::vector<size_t>& shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner));
}

int whole(int64_t value, const char* name, int64_t least, int64_t most) {
    if (value < least || value > most) {
        throw std::invalid_argument(std::string(name) + " " + std::to_string(value) + "; expected " +
                                    std::to_string(least) + " to " + std::to_string(most) + "; give another");
    }
    return static_cast<int>(value);
}

// The weights of one layer and direction, in the order of `LayerWeights`.
using LayerArrays = std::vector<Weight>;

std::shared_ptr<recur::Stack> make_stack(int cell, int precision, int64_t hidden, int64_t directions,
                                         const std::vector<LayerArrays>& arrays,
                                         const std::vector<std::vector<int>>& inputs, bool exact_first,
                                         const std::string& isa) {
    whole(cell, "cell", 0, 3), whole(precision, "precision", 0, 2), whole(directions, "directions", 1, 2);
    whole(hidden, "hidden", 1, 1 << 20);
    if (arrays.empty() || arrays.size() != inputs.size() || arrays.size() % static_cast<size_t>(directions)) {
        throw std::invalid_argument("no whole number of layers; expected weights for each; give them all");
    }
    const int64_t rows = static_cast<int64_t>(recur::gates_of(static_cast<recur::Cell>(cell))) * hidden;
    std::vector<recur::LayerWeights> layers;
    for (size_t i = 0; i < arrays.size(); ++i) {
        const LayerArrays& a = arrays[i];
        if (a.size() != 8 || !a[0] || !a[1] || inputs[i].empty()) {
            throw std::invalid_argument("a layer without weights; expected weight_ih and weight_hh; give both");
        }
        int64_t width = 0;
        for (int piece : inputs[i]) width += whole(piece, "inputs", 1, 1 << 24);
        layers.push_back({
            given(a[0], "weight_ih", {rows, width}), given(a[1], "weight_hh", {rows, hidden}),
            given(a[2], "bias_ih", {rows}), given(a[3], "bias_hh", {rows}), given(a[4], "norm_ih", {rows}),
            given(a[5], "norm_hh", {rows}), given(a[6], "norm_c", {hidden}), given(a[7], "norm_c_bias", {hidden}),
            inputs[i],
        });
        const recur::LayerWeights& made = layers.back();
        const bool lstm = static_cast<recur::Cell>(cell) == recur::Cell::lstm;
        if ((made.norm_ih == nullptr) != (made.norm_hh == nullptr) ||
            (made.norm_ih && lstm && (!made.norm_c || !made.norm_c_bias)) ||
            (made.norm_ih == nullptr) != (layers.front().norm_ih == nullptr)) {
            throw std::invalid_argument("a part of layer normalisation is missing; expected all of it, in every layer");
        }
    }
    return std::make_shared<recur::Stack>(recur::find_kernels(isa), static_cast<recur::Cell>(cell),
                                          static_cast<int>(hidden), static_cast<int>(directions), layers,
                                          static_cast<recur::Precision>(precision), exact_first);
}

void run_scan(const recur::Stack& stack, const In<float>& x, const In<int64_t>& lengths,
              const std::optional<In<uint8_t>>& resets, const Out<float>& h, const std::optional<Out<float>>& c,
              const Out<float>& out, const std::optional<Out<float>>& trace_h,
              const std::optional<Out<float>>& trace_c, const std::optional<Out<float>>& trace_gates, int threads) {
    if (x.ndim() != 3) throw std::invalid_argument("x has no three axes; expected [B, T, D]");
    const int64_t batch = whole(static_cast<int64_t>(x.shape(0)), "B", 0, 1 << 24);
    const int64_t time = whole(static_cast<int64_t>(x.shape(1)), "T", 0, 1 << 28);
    const int64_t hidden = stack.hidden(), all = stack.layers() * stack.directions;
    const int64_t g = recur::gates_of(stack.cell);
    int64_t inputs = 0;
    for (const auto& piece : stack.layer(0).inputs) inputs += piece.depth();
    const bool lstm = stack.cell == recur::Cell::lstm;
    expect(x, "x", {batch, time, inputs});
    expect(lengths, "lengths", {batch});
    for (int64_t b = 0; b < batch; ++b) whole(lengths.data()[b], "a length", 0, time);
    if (resets) expect(*resets, "resets", {batch, time});
    expect(h, "h", {all, batch, hidden});
    if (lstm != c.has_value()) throw std::invalid_argument("c where there is none, or none; expected it for an lstm");
    if (c) expect(*c, "c", {all, batch, hidden});
    expect(out, "out", {batch, time, stack.directions * hidden});
    if (trace_h.has_value() != trace_gates.has_value() || trace_c.has_value() != (lstm && trace_h.has_value())) {
        throw std::invalid_argument("a part of the trace is missing; expected all of it");
    }
    if (trace_h) {
        expect(*trace_h, "hidden", {all, batch, time, hidden});
        expect(*trace_gates, "gates", {all, batch, time, g * hidden});
    }
    if (trace_c) expect(*trace_c, "cells", {all, batch, time, hidden});
    const recur::ScanCall call{
        x.data(), static_cast<int>(batch), static_cast<int>(time), static_cast<int>(inputs), lengths.data(),
        resets ? resets->data() : nullptr, h.data(), c ? c->data() : nullptr, out.data(),
        trace_h ? trace_h->data() : nullptr, trace_c ? trace_c->data() : nullptr,
        trace_gates ? trace_gates->data() : nullptr, std::max(1, std::min(threads, 256)),
    };
    nb::gil_scoped_release free;
    recur::scan(stack, call);
}

// Arrays by name, as the Python side has them; absent ones are left out.
using Named = nb::dict;

const float* named(const Named& weights, const char* name, const std::vector<int64_t>& shape, bool needed = false) {
    if (!weights.contains(name)) {
        if (needed) throw std::invalid_argument(std::string(name) + " is missing; expected it; give it");
        return nullptr;
    }
    // The dictionary keeps the array alive for as long as the caller of this needs it.
    const auto array = nb::cast<In<float>>(weights[name], false);
    expect(array, name, shape);
    return array.data();
}

std::shared_ptr<recur::Network> make_network(std::shared_ptr<recur::Stack> stack, const Named& weights,
                                             int64_t vocabulary, int64_t embedding, int64_t features, int64_t memory,
                                             int64_t attention, int64_t output, int precision) {
    constexpr int64_t most = 1 << 24;
    recur::NetworkWeights w{};
    w.vocabulary = whole(vocabulary, "V", 1, most), w.embedding = whole(embedding, "E", 1, most);
    w.features = whole(features, "F", 0, most), w.memory = whole(memory, "M", 0, most);
    w.attention = whole(attention, "A", 0, most), w.output = whole(output, "output", 0, most);
    whole(precision, "precision", 0, 2);
    const int64_t hidden = stack->hidden(), top = hidden + (attention ? memory : 0);
    const auto& first = stack->layer(0).inputs;
    if (stack->directions != 1 || first.size() != 1 || first[0].depth() != embedding) {
        throw std::invalid_argument("the first layer does not read the embedding; expected one direction and E inputs");
    }
    for (int layer = 1; layer < stack->layers(); ++layer) {
        const auto& in = stack->layer(layer).inputs;
        const bool two = layer == 1 && attention;
        if (in.size() != (two ? 2u : 1u) || in[0].depth() != hidden || (two && in[1].depth() != memory)) {
            throw std::invalid_argument("a layer does not read the one below (and the second one the context)");
        }
    }
    w.table = named(weights, "embedding.weight", {vocabulary, embedding}, true);
    if (weights.contains("start.weight")) {
        w.start = named(weights, "start.weight", {embedding, features});
        w.start_bias = named(weights, "start.bias", {embedding});
    }
    if (attention) {
        if (memory < 1) throw std::invalid_argument("attention without a memory; expected M of 1 or more");
        if (weights.contains("memory.weight")) {
            w.project = named(weights, "memory.weight", {memory, features});
            w.project_bias = named(weights, "memory.bias", {memory});
        } else if (memory != features) {
            throw std::invalid_argument("features that are no memory, and no memory.weight; expected either");
        }
        w.key = named(weights, "attention.key.weight", {attention, memory}, true);
        w.query = named(weights, "attention.query.weight", {attention, hidden}, true);
        w.query_bias = named(weights, "attention.query.bias", {attention});
        w.score = named(weights, "attention.score.weight", {1, attention});
    }
    if (output) {
        w.out = named(weights, "output.weight", {output, top}, true);
        w.out_bias = named(weights, "output.bias", {output});
    }
    if ((w.start || w.project) && features < 1) throw std::invalid_argument("F is 0; expected 1 or more");
    return std::make_shared<recur::Network>(stack, w, static_cast<recur::Precision>(precision));
}

std::shared_ptr<recur::Decoder> make_decoder(std::shared_ptr<recur::Network> network, const In<int64_t>& words,
                                             const In<float>& head, const Weight& bias, int precision) {
    if (words.ndim() != 1 || words.shape(0) < 1) throw std::invalid_argument("no words; expected ids [W]; give some");
    const auto count = static_cast<int64_t>(words.shape(0));
    std::vector<int64_t> ids(words.data(), words.data() + count);
    for (int64_t id : ids) whole(id, "a word", 0, network->vocabulary() - 1);
    expect(head, "head.weight", {count, network->top_width()});
    const float* offset = given(bias, "head.bias", {count});
    whole(precision, "precision", 0, 2);
    return std::make_shared<recur::Decoder>(network, ids, head.data(), offset, static_cast<recur::Precision>(precision));
}

// The items of one call, checked against the decoder.
struct Call {
    std::optional<In<float>> features;
    std::optional<In<int64_t>> memory_lengths;
    In<int64_t> prompt;
    std::optional<In<float>> h, c;
};

recur::Items items_of(const recur::Decoder& decoder, const Call& call) {
    const recur::Network& net = decoder.network();
    recur::Items items;
    if (call.prompt.ndim() != 2) throw std::invalid_argument("the prompt has no two axes; expected [B, P]");
    items.batch = whole(static_cast<int64_t>(call.prompt.shape(0)), "B", 0, 1 << 24);
    items.prompt = whole(static_cast<int64_t>(call.prompt.shape(1)), "P", net.starts() ? 0 : 1, 1 << 28);
    items.tokens = call.prompt.data();
    for (int64_t i = 0; i < int64_t{items.batch} * items.prompt; ++i) {
        whole(items.tokens[i], "a token", 0, net.vocabulary() - 1);
    }
    if (net.starts() || net.attends()) {
        if (!call.features || call.features->ndim() != 3) {
            throw std::invalid_argument("no features with three axes; expected [B, R, F], which this network reads");
        }
        items.regions = whole(static_cast<int64_t>(call.features->shape(1)), "R", 1, 1 << 24);
        expect(*call.features, "features", {items.batch, items.regions, net.features()});
        items.features = call.features->data();
        if (call.memory_lengths) {
            expect(*call.memory_lengths, "memory_lengths", {items.batch});
            items.memory_lengths = call.memory_lengths->data();
            for (int b = 0; b < items.batch; ++b) whole(items.memory_lengths[b], "a memory length", 1, items.regions);
        }
    }
    const bool lstm = net.stack().cell == recur::Cell::lstm;
    const std::vector<int64_t> shape = {net.stack().layers(), items.batch, net.stack().hidden()};
    if (call.h) {
        expect(*call.h, "h", shape);
        items.h = call.h->data();
        if (lstm != call.c.has_value()) throw std::invalid_argument("c where there is none, or none; expected for lstm");
        if (lstm) {
            expect(*call.c, "c", shape);
            items.c = call.c->data();
        }
    }
    return items;
}

recur::Rules rules_of(const recur::Decoder& decoder, int64_t end, int64_t min_length, int64_t max_length,
                      int64_t no_repeat_ngram, const std::vector<int64_t>& forbidden,
                      const std::vector<int64_t>& no_end_after) {
    recur::Rules rules;
    const int last = decoder.words() - 1;
    rules.end = whole(end, "END", 0, last);
    rules.max_length = whole(max_length, "max_length", 0, 1 << 24);
    rules.min_length = whole(min_length, "min_length", 0, max_length);
    rules.no_repeat_ngram = whole(no_repeat_ngram, "no_repeat_ngram", 0, 1 << 24);
    for (int64_t id : forbidden) rules.forbidden.push_back(whole(id, "a forbidden word", 0, last));
    for (int64_t id : no_end_after) rules.no_end_after.push_back(whole(id, "a word of no_end_after", 0, last));
    return rules;
}

template <class T, class Get>
nb::object gathered(const recur::Results& results, const Get& get) {
    std::vector<T> all;
    for (const auto& item : results) {
        for (const recur::Found& each : item) {
            const auto& part = get(each);
            all.insert(all.end(), part.begin(), part.end());
        }
    }
    const size_t size = all.size();
    return owned<T>(std::move(all), {size});
}

// Everything flat; Python cuts it up: items' counts, hypotheses' lengths, then one array for each field.
nb::tuple told_results(const recur::Results& results) {
    std::vector<int64_t> counts, lengths;
    std::vector<double> totals;  // END's log-probability, log-probability, score
    for (const auto& item : results) {
        counts.push_back(static_cast<int64_t>(item.size()));
        for (const recur::Found& each : item) {
            lengths.push_back(static_cast<int64_t>(each.tokens.size()));
            totals.insert(totals.end(), {each.end_log_prob, each.log_prob, each.score});
        }
    }
    const size_t items = counts.size(), found = lengths.size();
    return nb::make_tuple(
        owned<int64_t>(std::move(counts), {items}), owned<int64_t>(std::move(lengths), {found}),
        owned<double>(std::move(totals), {found, 3}),
        gathered<int64_t>(results, [](const recur::Found& f) -> const auto& { return f.tokens; }),
        gathered<double>(results, [](const recur::Found& f) -> const auto& { return f.log_probs; }),
        gathered<int64_t>(results, [](const recur::Found& f) -> const auto& { return f.others; }),
        gathered<double>(results, [](const recur::Found& f) -> const auto& { return f.other_probs; }),
        gathered<double>(results, [](const recur::Found& f) -> const auto& { return f.entropies; }),
        gathered<float>(results, [](const recur::Found& f) -> const auto& { return f.attention; }));
}

int team_of(int threads) { return std::max(1, std::min(threads, 256)); }

nb::tuple run_beam(const recur::Decoder& decoder, const std::optional<In<float>>& features,
                   const std::optional<In<int64_t>>& memory_lengths, const In<int64_t>& prompt,
                   const std::optional<In<float>>& h, const std::optional<In<float>>& c, int64_t end,
                   int64_t min_length, int64_t max_length, int64_t no_repeat_ngram,
                   const std::vector<int64_t>& forbidden, const std::vector<int64_t>& no_end_after, int64_t width,
                   int64_t n_best, double length_penalty, int threads) {
    const recur::Items items = items_of(decoder, {features, memory_lengths, prompt, h, c});
    const recur::Rules rules =
        rules_of(decoder, end, min_length, max_length, no_repeat_ngram, forbidden, no_end_after);
    recur::Beam beam;
    beam.width = whole(width, "beam", 1, 1 << 16);
    beam.n_best = whole(n_best, "n_best", 1, width);
    if (!(length_penalty >= 0 && length_penalty < 1e6)) throw std::invalid_argument("length_penalty; expected 0 or more");
    beam.length_penalty = length_penalty;
    recur::Results results;
    {
        nb::gil_scoped_release free;
        results = recur::beam_search(decoder, items, rules, beam, team_of(threads));
    }
    return told_results(results);
}

recur::Sampling sampling_of(int64_t samples, double temperature, int64_t top_k, double top_p,
                            const std::optional<In<double>>& draws, int64_t batch, int64_t places) {
    recur::Sampling sampling;
    sampling.samples = whole(samples, "samples", 1, 1 << 20);
    sampling.top_k = whole(top_k, "top_k", 0, 1 << 30);
    if (!(temperature >= 0 && temperature < 1e30)) throw std::invalid_argument("temperature; expected 0 or more");
    if (!(top_p > 0 && top_p <= 1)) throw std::invalid_argument("top_p; expected above 0, at most 1");
    sampling.temperature = temperature, sampling.top_p = top_p;
    if (temperature > 0) {
        if (!draws) throw std::invalid_argument("no draws; expected [B, samples, places]");
        expect(*draws, "draws", {batch, samples, places});
        sampling.draws = draws->data();
    }
    return sampling;
}

nb::tuple run_roll(const recur::Decoder& decoder, const std::optional<In<float>>& features,
                   const std::optional<In<int64_t>>& memory_lengths, const In<int64_t>& prompt,
                   const std::optional<In<float>>& h, const std::optional<In<float>>& c, int64_t end,
                   int64_t min_length, int64_t max_length, int64_t no_repeat_ngram,
                   const std::vector<int64_t>& forbidden, const std::vector<int64_t>& no_end_after, int64_t samples,
                   double temperature, int64_t top_k, double top_p, const std::optional<In<double>>& draws,
                   int threads) {
    const recur::Items items = items_of(decoder, {features, memory_lengths, prompt, h, c});
    const recur::Rules rules =
        rules_of(decoder, end, min_length, max_length, no_repeat_ngram, forbidden, no_end_after);
    const recur::Sampling sampling =
        sampling_of(samples, temperature, top_k, top_p, draws, items.batch, int64_t{rules.max_length} + 1);
    recur::Results results;
    {
        nb::gil_scoped_release free;
        results = recur::roll(decoder, items, rules, sampling, team_of(threads));
    }
    return told_results(results);
}

void run_generate(const recur::Decoder& decoder, const In<int64_t>& prompt, const std::optional<In<float>>& h,
                  const std::optional<In<float>>& c, double temperature, int64_t top_k, double top_p,
                  const std::optional<In<double>>& draws, const Out<int64_t>& tokens, const Out<float>& log_probs,
                  const Out<float>& h_out, const std::optional<Out<float>>& c_out, int threads) {
    const recur::Items items = items_of(decoder, {std::nullopt, std::nullopt, prompt, h, c});
    const recur::Stack& stack = decoder.network().stack();
    if (tokens.ndim() != 2) throw std::invalid_argument("tokens; expected [B, length]");
    const int length = whole(static_cast<int64_t>(tokens.shape(1)), "length", 0, 1 << 28);
    expect(tokens, "tokens", {items.batch, length});
    expect(log_probs, "log_probs", {items.batch, length});
    const std::vector<int64_t> shape = {stack.layers(), items.batch, stack.hidden()};
    expect(h_out, "h_out", shape);
    if (c_out.has_value() != (stack.cell == recur::Cell::lstm)) throw std::invalid_argument("c_out; expected for lstm");
    if (c_out) expect(*c_out, "c_out", shape);
    const recur::Sampling sampling = sampling_of(1, temperature, top_k, top_p, draws, items.batch, length);
    nb::gil_scoped_release free;
    recur::generate(decoder, items, length, sampling, tokens.data(), log_probs.data(), h_out.data(),
                    c_out ? c_out->data() : nullptr, team_of(threads));
}

void run_read(const recur::Decoder& decoder, const std::optional<In<float>>& features,
              const std::optional<In<int64_t>>& memory_lengths, const In<int64_t>& tokens,
              const std::optional<In<float>>& h, const std::optional<In<float>>& c, const Out<float>& logits,
              const std::optional<Out<float>>& attention, const Out<float>& h_out,
              const std::optional<Out<float>>& c_out, const std::optional<Out<float>>& trace_h,
              const std::optional<Out<float>>& trace_c, const std::optional<Out<float>>& trace_gates, int threads) {
    const recur::Items items = items_of(decoder, {features, memory_lengths, tokens, h, c});
    const recur::Stack& stack = decoder.network().stack();
    const int64_t batch = items.batch, time = items.prompt, layers = stack.layers(), hidden = stack.hidden();
    const bool lstm = stack.cell == recur::Cell::lstm;
    expect(logits, "logits", {batch, time, decoder.words()});
    if (attention.has_value() != decoder.network().attends()) throw std::invalid_argument("attention; expected as had");
    if (attention) expect(*attention, "attention", {batch, time, items.regions});
    expect(h_out, "h_out", {layers, batch, hidden});
    if (c_out.has_value() != lstm) throw std::invalid_argument("c_out; expected for lstm");
    if (c_out) expect(*c_out, "c_out", {layers, batch, hidden});
    if (trace_h.has_value() != trace_gates.has_value() || trace_c.has_value() != (lstm && trace_h.has_value())) {
        throw std::invalid_argument("a part of the trace is missing; expected all of it");
    }
    if (trace_h) {
        expect(*trace_h, "hidden", {layers, batch, time, hidden});
        expect(*trace_gates, "gates", {layers, batch, time, recur::gates_of(stack.cell) * hidden});
    }
    if (trace_c) expect(*trace_c, "cells", {layers, batch, time, hidden});
    const recur::Reading out{logits.data(),
                             attention ? attention->data() : nullptr,
                             h_out.data(),
                             c_out ? c_out->data() : nullptr,
                             trace_h ? trace_h->data() : nullptr,
                             trace_c ? trace_c->data() : nullptr,
                             trace_gates ? trace_gates->data() : nullptr};
    nb::gil_scoped_release free;
    recur::read(decoder, items, out, team_of(threads));
}

void apply(const std::string& isa, int function, const Out<float>& x) {
    const recur::Kernels* kernels = recur::find_kernels(isa);
    whole(function, "function", 0, 2);
    if (x.ndim() != 1 || x.shape(0) % recur::kLanes) throw std::invalid_argument("expected a multiple of 16 numbers");
    const auto run = function == 0 ? kernels->tanh : function == 1 ? kernels->sigmoid : kernels->exp;
    run(x.data(), static_cast<int>(x.shape(0)));
}

bool all_finite(const In<float>& x) {
    const recur::Kernels* kernels = recur::find_kernels("");
    size_t count = 1;
    for (size_t i = 0; i < x.ndim(); ++i) count *= x.shape(i);
    nb::gil_scoped_release free;
    return kernels->finite(x.data(), count);
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const recur::Kernels* each : recur::usable_kernels()) names.emplace_back(each->name);
    return names;
}

}  // namespace

NB_MODULE(_recurrent, m) {
    m.attr("compiler") = RECUR_COMPILER;
    m.def("isas", &isas);
    m.def("apply", &apply, "isa"_a, "function"_a, "x"_a.noconvert());
    m.def("finite", &all_finite, "x"_a.noconvert());
    nb::class_<recur::Stack>(m, "Stack")
        .def("scan", &run_scan, "x"_a.noconvert(), "lengths"_a.noconvert(), "resets"_a.noconvert().none(),
             "h"_a.noconvert(), "c"_a.noconvert().none(), "out"_a.noconvert(), "trace_h"_a.noconvert().none(),
             "trace_c"_a.noconvert().none(), "trace_gates"_a.noconvert().none(), "threads"_a)
        .def_prop_ro("isa", [](const recur::Stack& stack) { return std::string(stack.kernels->name); });
    m.def("make_stack", &make_stack, "cell"_a, "precision"_a, "hidden"_a, "directions"_a, "arrays"_a, "inputs"_a,
          "exact_first"_a, "isa"_a);
    nb::class_<recur::Network>(m, "Network");
    m.def("make_network", &make_network, "stack"_a, "weights"_a, "vocabulary"_a, "embedding"_a, "features"_a,
          "memory"_a, "attention"_a, "output"_a, "precision"_a);
    nb::class_<recur::Decoder>(m, "Decoder")
        .def("beam_search", &run_beam, "features"_a.noconvert().none(), "memory_lengths"_a.noconvert().none(),
             "prompt"_a.noconvert(), "h"_a.noconvert().none(), "c"_a.noconvert().none(), "end"_a, "min_length"_a,
             "max_length"_a, "no_repeat_ngram"_a, "forbidden"_a, "no_end_after"_a, "beam"_a, "n_best"_a,
             "length_penalty"_a, "threads"_a)
        .def("roll", &run_roll, "features"_a.noconvert().none(), "memory_lengths"_a.noconvert().none(),
             "prompt"_a.noconvert(), "h"_a.noconvert().none(), "c"_a.noconvert().none(), "end"_a, "min_length"_a,
             "max_length"_a, "no_repeat_ngram"_a, "forbidden"_a, "no_end_after"_a, "samples"_a, "temperature"_a,
             "top_k"_a, "top_p"_a, "draws"_a.noconvert().none(), "threads"_a)
        .def("generate", &run_generate, "prompt"_a.noconvert(), "h"_a.noconvert().none(), "c"_a.noconvert().none(),
             "temperature"_a, "top_k"_a, "top_p"_a, "draws"_a.noconvert().none(), "tokens"_a.noconvert(),
             "log_probs"_a.noconvert(), "h_out"_a.noconvert(), "c_out"_a.noconvert().none(), "threads"_a)
        .def("read", &run_read, "features"_a.noconvert().none(), "memory_lengths"_a.noconvert().none(),
             "tokens"_a.noconvert(), "h"_a.noconvert().none(), "c"_a.noconvert().none(), "logits"_a.noconvert(),
             "attention"_a.noconvert().none(), "h_out"_a.noconvert(), "c_out"_a.noconvert().none(),
             "trace_h"_a.noconvert().none(), "trace_c"_a.noconvert().none(), "trace_gates"_a.noconvert().none(),
             "threads"_a);
    m.def("make_decoder", &make_decoder, "network"_a, "words"_a.noconvert(), "head"_a.noconvert(),
          "bias"_a.noconvert().none(), "precision"_a);
}
