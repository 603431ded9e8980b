// Whole sequences. Layer by layer and direction by direction; the input's share of the gates is one product for many
// steps, after which a step is the recurrent product and the cell.
//
// Threads share either the rows of the batch, and then never wait for each other, or the panels (units) of each layer,
// and then meet after every step. The second keeps each thread's part of the weights in its own cache: it wins when
// the recurrent weights are large or the rows few.
#include <algorithm>

#include "stack.h"
#include "team.h"

namespace recur {
namespace {

// Gates of as many steps as fit are computed together: they stay in the second-level cache until the cell reads them.
// More where rows are wide, since each product reads all weights once.
constexpr size_t kChunkBytes = size_t{512} << 10;
constexpr int kChunkRows = 256;
constexpr size_t kWideWeights = size_t{768} << 10;  // bytes of recurrent weights from which panels are shared
constexpr double kThreadWork = 1.5e6;               // multiplications below which one thread is enough
constexpr double kMeetingWork = 200e3;              // of a step, below which meeting costs more than it brings

// One layer in one direction, over rows row_begin..row_end and panels panel_begin..panel_end.
struct Pass {
    const Stack& stack;
    const ScanCall& call;
    int layer;  // counted through all directions
    bool backward;
    const float* in;
    int width;  // of the input
    float* out;
    int out_stride, out_at;
    float* states;  // [2][B][columns]: h of this step and of the last; shared by threads
    float* cells;   // [B][columns]

    size_t place(int row, int step) const {
        const int length = static_cast<int>(call.lengths[row]);
        return static_cast<size_t>(row) * call.time + (backward ? length - 1 - step : step);
    }

    // Whether the state is to be zero before this step is read. Backwards a sequence is entered from its end, which
    // lies before the first step of the next one.
    bool reset(int row, int step) const {
        if (!call.resets) return false;
        if (!backward) return call.resets[place(row, step)] != 0;
        return step > 0 && call.resets[place(row, step) + 1] != 0;
    }

    void run(int row_begin, int row_end, int panel_begin, int panel_end, Barrier& barrier) const {
        const Cell cell = stack.cell;
        const int hidden = stack.hidden(), columns = stack.state_columns(), gates = stack.gate_columns();
        const int rows = row_end - row_begin;
        const int per = stack.layer(layer).recurrent.vectors() * kLanes / (gates_of(cell) * kLanes) * kLanes;
        const int unit_begin = panel_begin * per, unit_end = std::min(hidden, panel_end * per);
        const bool lstm = cell == Cell::lstm;
        int longest = 0;
        for (int b = row_begin; b < row_end; ++b) longest = std::max(longest, static_cast<int>(call.lengths[b]));

        const size_t step_bytes = static_cast<size_t>(rows) * gates * sizeof(float);
        const int fitting = static_cast<int>(kChunkBytes / std::max<size_t>(step_bytes, 1));
        const int chunk = std::clamp(std::max(fitting, kChunkRows / std::max(rows, 1)), 1, longest + 1);
        Buffer<float> ahead(static_cast<size_t>(chunk) * rows * gates);
        Buffer<float> zeros(columns, 0.0f);
        Workspace work;
        std::vector<const float*> sources, h_in, c_in;
        std::vector<float*> targets, h_out, c_out;
        std::vector<int> going, parity(rows, 0);
        std::vector<const float* const*> pieces(1);

        for (int start = 0; start < longest; start += chunk) {
            const int stop = std::min(longest, start + chunk);
            sources.clear();
            targets.clear();
            for (int s = start; s < stop; ++s) {
                for (int b = row_begin; b < row_end; ++b) {
                    if (s >= call.lengths[b]) continue;
                    sources.push_back(in + place(b, s) * width);
                    targets.push_back(ahead.data() + (static_cast<size_t>(s - start) * rows + b - row_begin) * gates);
                }
            }
            pieces[0] = sources.data();
            stack.inputs(layer, pieces, static_cast<int>(sources.size()), targets.data(), panel_begin, panel_end, work);

            for (int s = start; s < stop; ++s) {
                h_in.clear(), c_in.clear(), h_out.clear(), c_out.clear(), going.clear(), targets.clear();
                for (int b = row_begin; b < row_end; ++b) {
                    if (s >= call.lengths[b]) continue;
                    const bool fresh = reset(b, s);
                    int& side = parity[b - row_begin];
                    const size_t at = static_cast<size_t>(b) * columns;
                    const size_t half = static_cast<size_t>(call.batch) * columns;
                    going.push_back(b);
                    h_in.push_back(fresh ? zeros.data() : states + side * half + at);
                    side = 1 - side;
                    h_out.push_back(states + side * half + at);
                    if (lstm) {
                        c_in.push_back(fresh ? zeros.data() : cells + at);
                        c_out.push_back(cells + at);
                    }
                    targets.push_back(ahead.data() + (static_cast<size_t>(s - start) * rows + b - row_begin) * gates);
                }
                const int count = static_cast<int>(going.size());
                stack.advance(layer, count, targets.data(), targets.data(), h_in.data(),
                              lstm ? c_in.data() : nullptr, h_out.data(), lstm ? c_out.data() : nullptr, panel_begin, panel_end, work);
                for (int i = 0; i < count; ++i) {
                    const size_t to = place(going[i], s);
                    std::copy(h_out[i] + unit_begin, h_out[i] + unit_end, out + to * out_stride + out_at + unit_begin);
                    trace(to, targets[i], h_out[i], lstm ? c_out[i] : nullptr, unit_begin, unit_end);
                }
                barrier.wait();
            }
        }
        for (int b = row_begin; b < row_end; ++b) {
            const size_t to = (static_cast<size_t>(layer) * call.batch + b) * hidden;
            const float* h = states + (static_cast<size_t>(parity[b - row_begin]) * call.batch + b) * columns;
            const float* c = cells + static_cast<size_t>(b) * columns;
            std::copy(h + unit_begin, h + unit_end, call.h + to + unit_begin);
            if (lstm) std::copy(c + unit_begin, c + unit_end, call.c + to + unit_begin);
        }
    }

    void trace(size_t to, const float* gates, const float* h, const float* c, int begin, int end) const {
        if (!call.trace_h) return;
        const int hidden = stack.hidden(), g = gates_of(stack.cell);
        const size_t base = static_cast<size_t>(layer) * call.batch * call.time + to;
        std::copy(h + begin, h + end, call.trace_h + base * hidden + begin);
        if (c) std::copy(c + begin, c + end, call.trace_c + base * hidden + begin);
        float* out = call.trace_gates + base * g * hidden;
        for (int u = begin; u < end; ++u) {
            for (int k = 0; k < g; ++k) out[k * hidden + u] = gates[(u / kLanes * g + k) * kLanes + u % kLanes];
        }
    }
};

}  // namespace

void scan(const Stack& stack, const ScanCall& call) {
    const int directions = stack.directions, hidden = stack.hidden(), columns = stack.state_columns();
    const int layers = stack.layers();
    Buffer<float> between[2];
    Buffer<float> states(static_cast<size_t>(2) * call.batch * columns, 0.0f);
    Buffer<float> cells(static_cast<size_t>(call.batch) * columns, 0.0f);
    const float* in = call.x;
    int width = call.inputs;
    double steps = 0;
    for (int b = 0; b < call.batch; ++b) steps += static_cast<double>(call.lengths[b]);

    for (int layer = 0; layer < layers; ++layer) {
        const bool last = layer == layers - 1;
        const size_t out_size = static_cast<size_t>(call.batch) * call.time * directions * hidden;
        if (!last) between[layer % 2].need(out_size);
        float* out = last ? call.out : between[layer % 2].data();
        for (int way = 0; way < directions; ++way) {
            const int index = layer * directions + way;
            const size_t at = static_cast<size_t>(index) * call.batch * hidden;
            for (int b = 0; b < call.batch; ++b) {
                std::copy_n(call.h + at + static_cast<size_t>(b) * hidden, hidden,
                            states.data() + static_cast<size_t>(b) * columns);
                if (stack.cell == Cell::lstm) {
                    std::copy_n(call.c + at + static_cast<size_t>(b) * hidden, hidden,
                                cells.data() + static_cast<size_t>(b) * columns);
                }
            }
            const Pass pass{stack, call, index, way == 1, in, width, out, directions * hidden, way * hidden,
                            states.data(), cells.data()};
            const Layer& here = stack.layer(index);
            const double each = static_cast<double>(gates_of(stack.cell)) * hidden * (hidden + width);
            const double step = static_cast<double>(gates_of(stack.cell)) * hidden * hidden * call.batch;
            int threads = steps * each < kThreadWork ? 1 : call.threads;
            const bool by_panels = !stack.normed() && (call.batch < 4 || here.recurrent.bytes() >= kWideWeights);
            if (by_panels && step < kMeetingWork) threads = 1;
            threads = std::max(1, std::min(threads, by_panels ? stack.panels() : call.batch));
            Barrier barrier(by_panels ? threads : 1);
            together(threads, [&](int i) {
                auto part = [&](int all) { return static_cast<int>(static_cast<int64_t>(all) * i / threads); };
                auto until = [&](int all) { return static_cast<int>(static_cast<int64_t>(all) * (i + 1) / threads); };
                if (by_panels) {
                    pass.run(0, call.batch, part(stack.panels()), until(stack.panels()), barrier);
                } else {
                    pass.run(part(call.batch), until(call.batch), 0, stack.panels(), barrier);
                }
            }, [&] { barrier.abandon(); });
        }
        in = out;
        width = directions * hidden;
    }
}

}  // namespace recur
