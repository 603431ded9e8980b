#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace recur {
namespace {

constexpr float kMostPower = 40.0f;  // of an exponent: two of them together stay below exp(88)
constexpr size_t kRowsTogether = 64;  // of the token table, allocated at once

Buffer<float> spread_out(const float* values, int n, int columns, float rest = 0.0f) {
    Buffer<float> out(columns, rest);
    for (int i = 0; i < n; ++i) out[i] = values ? values[i] : 0.0f;
    return out;
}

constexpr size_t kShared = size_t{128} << 10;  // bytes of a matrix from which a crew shares it out

// y[r] = base + W x[r] for n rows, y rows as far apart as w has columns.
void affine(const Kernels& kernels, const Linear& w, const Buffer<float>& base, const float* const* x, int n, float* y,
            Workspace& work) {
    const int columns = w.columns();
    std::vector<float*>& rows = work.rows;
    rows.resize(n);
    for (int r = 0; r < n; ++r) rows[r] = y + static_cast<size_t>(r) * columns;
    work.from.assign(static_cast<size_t>(n), base.data());
    kernels.multiply(w.view(), {n, x, nullptr, work.from.data(), rows.data()}, 0, w.panels(),
                     work.scratch(w.scratch()));
}

bool small_enough(const float* x, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        if (!(std::fabs(x[i]) <= kMostPower / 2)) return false;
    }
    return true;
}

}  // namespace

Network::Network(std::shared_ptr<const Stack> stack, const NetworkWeights& w, Precision precision)
    : stack_(std::move(stack)), vocabulary_(w.vocabulary), embedding_(w.embedding), features_(w.features),
      memory_(w.memory), attention_(w.attention), output_(w.output),
      table_(static_cast<size_t>(w.vocabulary) * w.embedding),
      rows_(new std::atomic<const float*>[static_cast<size_t>(w.vocabulary)]) {
    std::memcpy(table_.data(), w.table, table_.size() * sizeof(float));
    for (int i = 0; i < vocabulary_; ++i) rows_[i].store(nullptr, std::memory_order_relaxed);
    const int hidden = stack_->hidden();
    if (w.start) {
        // START is read once an item: in float32, since everything that follows rests on it.
        start_ = Linear::plain(w.start, embedding_, features_, Precision::float32);
        start_bias_ = spread_out(w.start_bias, embedding_, start_.columns());
    }
    if (attention_) {
        if (w.project) {
            project_ = Linear::plain(w.project, memory_, features_, precision);
            project_bias_ = spread_out(w.project_bias, memory_, project_.columns());
        }
        key_ = Linear::plain(w.key, attention_, memory_, precision);
        query_ = Linear::plain(w.query, attention_, hidden, precision);
        query_bias_ = spread_out(w.query_bias, attention_, query_.columns());
        additive_ = w.score != nullptr;
        if (additive_) score_ = spread_out(w.score, attention_, query_.columns());
        dot_scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention_)));
    }
    if (output_) {
        const int whole = hidden + (attention_ ? memory_ : 0), vectors = Linear::best_vectors(output_);
        out_ = Linear(w.out, whole, 0, hidden, plain_order(output_), vectors, precision, whole);
        if (attention_) {
            out_context_ = Linear(w.out, whole, hidden, memory_, plain_order(output_), vectors, precision, whole);
        }
        out_bias_ = spread_out(w.out_bias, output_, out_.columns());
    }
}

State Network::state() const {
    return State(stack_->layers(), stack_->state_columns(), stack_->cell == Cell::lstm);
}

void Network::read(const float* features, int length, Memory& memory, Workspace& work) const {
    const Kernels& kernels = *stack_->kernels;
    std::vector<const float*> rows(length);
    memory.regions = length;
    memory.value_stride = project_.present() ? project_.columns() : padded(memory_);
    memory.key_stride = key_.columns();
    memory.values = Buffer<float>(static_cast<size_t>(length) * memory.value_stride, 0.0f);
    memory.keys = Buffer<float>(static_cast<size_t>(length) * memory.key_stride);
    for (int r = 0; r < length; ++r) rows[r] = features + static_cast<size_t>(r) * features_;
    if (project_.present()) {
        affine(kernels, project_, project_bias_, rows.data(), length, memory.values.data(), work);
    } else {
        for (int r = 0; r < length; ++r) {
            std::memcpy(memory.values.data() + static_cast<size_t>(r) * memory.value_stride, rows[r],
                        static_cast<size_t>(memory_) * sizeof(float));
        }
    }
    for (int r = 0; r < length; ++r) rows[r] = memory.values.data() + static_cast<size_t>(r) * memory.value_stride;
    affine(kernels, key_, Buffer<float>(key_.columns(), 0.0f), rows.data(), length, memory.keys.data(), work);
    memory.powers = Buffer<float>();
    if (additive_ && small_enough(memory.keys.data(), memory.keys.size())) {
        memory.powers = Buffer<float>(memory.keys.size());
        const size_t count = memory.keys.size();
        kernels.powers(memory.keys.data(), static_cast<int>(count), 0.0f, 2.0f, memory.powers.data());
    }
}

void Network::start(int n, const float* const* features, const int* regions, float* const* gates,
                    Workspace& work) const {
    Buffer<float> means(static_cast<size_t>(n) * features_, 0.0f), x(static_cast<size_t>(n) * start_.columns());
    std::vector<const float*> rows(n);
    for (int i = 0; i < n; ++i) {
        float* mean = means.data() + static_cast<size_t>(i) * features_;
        for (int r = 0; r < regions[i]; ++r) {
            const float* row = features[i] + static_cast<size_t>(r) * features_;
            for (int f = 0; f < features_; ++f) mean[f] += row[f];
        }
        for (int f = 0; f < features_; ++f) mean[f] /= static_cast<float>(regions[i]);
        rows[i] = mean;
    }
    affine(*stack_->kernels, start_, start_bias_, rows.data(), n, x.data(), work);
    for (int i = 0; i < n; ++i) rows[i] = x.data() + static_cast<size_t>(i) * start_.columns();
    stack_->inputs(0, {rows.data()}, n, gates, 0, stack_->panels(), work);
}

const float* Network::token(int64_t id) const {
    const float* found = rows_[id].load(std::memory_order_acquire);
    if (found) return found;
    const std::lock_guard<std::mutex> lock(making_);
    found = rows_[id].load(std::memory_order_relaxed);
    if (found) return found;
    const size_t columns = static_cast<size_t>(stack_->gate_columns());
    if (made_.empty() || made_in_last_ == kRowsTogether) {
        made_.emplace_back(columns * kRowsTogether);
        made_in_last_ = 0;
    }
    float* gates = made_.back().data() + columns * made_in_last_;
    const float* row = table_.data() + static_cast<size_t>(id) * embedding_;
    const float* const* pieces = &row;
    stack_->inputs(0, {pieces}, 1, &gates, 0, stack_->panels(), making_work_);
    ++made_in_last_;
    rows_[id].store(gates, std::memory_order_release);
    return gates;
}

void Network::gates(int n, Room& room) const {
    const size_t columns = static_cast<size_t>(stack_->gate_columns());
    room.gates.need(columns * n);
    room.gate_rows.resize(n);
    room.first.resize(n);
    for (int r = 0; r < n; ++r) room.first[r] = room.gate_rows[r] = room.gates.data() + columns * r;
}

void Network::attend(int n, const float* const* h, const Memory* const* memory, Room& room) const {
    const Kernels& kernels = *stack_->kernels;
    const int units = query_.columns(), width = padded(memory_);
    room.query.need(static_cast<size_t>(n) * units);
    room.context.need(static_cast<size_t>(n) * width);
    int most = 0;
    for (int r = 0; r < n; ++r) most = std::max(most, memory[r]->regions);
    room.alpha_stride = padded(most);
    room.alpha.need(static_cast<size_t>(n) * room.alpha_stride);
    affine(kernels, query_, query_bias_, h, n, room.query.data(), room.work);
    room.contexts.resize(n), room.targets.resize(n), room.alphas.resize(n);
    for (int r = 0; r < n; ++r) {
        const Memory& m = *memory[r];
        float* query = room.query.data() + static_cast<size_t>(r) * units;
        float* alpha = room.alpha.data() + static_cast<size_t>(r) * room.alpha_stride;
        if (additive_) {
            const bool powers = m.powers.size() && small_enough(query, static_cast<size_t>(units));
            if (powers) kernels.powers(query, units, 0.0f, 2.0f, query);
            const float* keys = powers ? m.powers.data() : m.keys.data();
            kernels.additive(keys, m.regions, m.key_stride, query, score_.data(), units, powers, alpha);
        } else {
            kernels.dots(m.keys.data(), m.regions, m.key_stride, query, units, dot_scale_, alpha);
        }
        kernels.softmax(alpha, m.regions);
        for (int i = padded(m.regions); i < room.alpha_stride; ++i) alpha[i] = 0.0f;
        room.contexts[r] = room.targets[r] = room.context.data() + static_cast<size_t>(r) * width;
        room.alphas[r] = alpha;
    }
    for (int r = 0, next; r < n; r = next) {  // rows of one item together
        for (next = r + 1; next < n && memory[next] == memory[r];) ++next;
        const Memory& m = *memory[r];
        kernels.blend(m.values.data(), m.regions, m.value_stride, &room.alphas[r], next - r, width, &room.targets[r]);
    }
}

void Network::step(int n, const int* before, State& from, State& to, const Memory* const* memory, Room& room) const {
    const bool lstm = stack_->cell == Cell::lstm;
    const int panels = stack_->panels();
    to.need(n);
    room.groups.gather(before, n);
    room.h_in.resize(n), room.h_out.resize(n), room.c_in.resize(n), room.c_out.resize(n), room.below.resize(n);
    for (int layer = 0; layer < stack_->layers(); ++layer) {
        for (int r = 0; r < n; ++r) {
            room.h_in[r] = from.h(layer, before[r]);
            room.h_out[r] = to.h(layer, r);
            if (lstm) {
                room.c_in[r] = from.c(layer, before[r]);
                room.c_out[r] = to.c(layer, r);
            }
        }
        std::vector<const float* const*> pieces = {room.below.data()};
        if (layer == 1 && attends()) pieces.push_back(room.contexts.data());
        const auto part = [&](Workspace& work, int begin, int end) {
            if (layer > 0) stack_->inputs(layer, pieces, n, room.gate_rows.data(), begin, end, work);
            stack_->advance(layer, n, layer > 0 ? room.gate_rows.data() : room.first.data(), room.gate_rows.data(),
                            room.h_in.data(), lstm ? room.c_in.data() : nullptr, room.h_out.data(),
                            lstm ? room.c_out.data() : nullptr, begin, end, work, &room.groups);
        };
        room.share(!stack_->normed() && stack_->layer(layer).recurrent.bytes() >= kShared, panels, part);
        const size_t columns = static_cast<size_t>(stack_->gate_columns());
        if (room.keep_gates) {
            if (layer == 0) room.kept_gates.need(columns * n * stack_->layers());
            for (int r = 0; r < n; ++r) {
                std::memcpy(room.kept_gates.data() + (static_cast<size_t>(layer) * n + r) * columns, room.gate_rows[r],
                            columns * sizeof(float));
            }
        }
        for (int r = 0; r < n; ++r) room.below[r] = room.h_out[r];
        if (layer == 0 && attends()) attend(n, room.below.data(), memory, room);
    }
}

size_t Network::bytes() const {
    size_t total = out_.bytes() + out_context_.bytes() + query_.bytes();
    for (int i = 0; i < stack_->layers(); ++i) {
        total += stack_->layer(i).recurrent.bytes();
        for (const Linear& each : stack_->layer(i).inputs) total += i ? each.bytes() : 0;
    }
    return total;
}

Decoder::Decoder(std::shared_ptr<const Network> network, const std::vector<int64_t>& words, const float* head,
                 const float* bias, Precision precision)
    : network_(std::move(network)), words_(words) {
    const int top = network_->top_width(), count = static_cast<int>(words.size());
    const int vectors = Linear::best_vectors(count);
    const int hidden = network_->stack().hidden();
    const bool apart = !network_->out_.present() && network_->attends();
    const int first = apart ? hidden : top;
    head_ = Linear(head, top, 0, first, plain_order(count), vectors, precision, top);
    if (apart) head_context_ = Linear(head, top, hidden, top - hidden, plain_order(count), vectors, precision, top);
    bias_ = spread_out(bias, count, head_.columns(), kNever);
}

void Decoder::score(int n, State& state, Room& room) const {
    const Network& net = *network_;
    const Kernels& kernels = *net.stack().kernels;
    room.tops.resize(n);
    for (int r = 0; r < n; ++r) room.tops[r] = state.h(net.stack().layers() - 1, r);
    if (net.out_.present()) {
        const int columns = net.out_.columns();
        room.output.need(static_cast<size_t>(n) * columns);
        affine(kernels, net.out_, net.out_bias_, room.tops.data(), n, room.output.data(), room.work);
        if (net.out_context_.present()) {
            float* const* rows = room.work.rows.data();
            kernels.multiply(net.out_context_.view(), {n, room.contexts.data(), nullptr, rows, rows}, 0,
                             net.out_context_.panels(), room.work.scratch(net.out_context_.scratch()));
        }
        kernels.tanh(room.output.data(), n * columns);
        for (int r = 0; r < n; ++r) room.tops[r] = room.output.data() + static_cast<size_t>(r) * columns;
    }
    room.logit_stride = head_.columns();
    room.logits.need(static_cast<size_t>(n) * room.logit_stride);
    room.targets.resize(n);
    for (int r = 0; r < n; ++r) room.targets[r] = room.logits.data() + static_cast<size_t>(r) * room.logit_stride;
    const std::vector<const float*> base(static_cast<size_t>(n), bias_.data());
    const auto part = [&](Workspace& work, int begin, int end) {
        float* const* rows = room.targets.data();
        kernels.multiply(head_.view(), {n, room.tops.data(), nullptr, base.data(), rows}, begin, end,
                         work.scratch(head_.scratch()));
        if (!head_context_.present()) return;
        kernels.multiply(head_context_.view(), {n, room.contexts.data(), nullptr, rows, rows}, begin, end,
                         work.scratch(head_context_.scratch()));
    };
    room.share(head_.bytes() >= kShared, head_.panels(), part);
}

}  // namespace recur
