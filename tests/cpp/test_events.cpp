// Every ISA's kernels on events and on dense inputs, for the sanitizers: small and awkward shapes, invalid rows, and
// rows that change during a call.
#include "dense_problem.h"
#include "events_property.h"

using namespace srcell;

namespace {

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Input in(number);
    EventsProblem<T> q(in, cell_options(in, steps, batch, neurons), inputs);
    CHECK(passes_agree(q));
    if (number % 3) return;
    corrupt(in, q.rows);
    passes_agree(q);
}

void shapes_agree() {
    for_each_event_shape({0, 1, 7, 16, 31, 100, 128, 130},
                         [](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             passes_agree<float>(steps, batch, neurons, inputs, number);
                             passes_agree<double>(steps, batch, neurons, inputs, number + 1000);
                         });
}

// Many samples and tiles, so that a group holds several samples and the sums of groups are added in a tree.
void groups_agree() {
    uint64_t number = 5000;
    for (const int64_t batch : {16, 17, 40})
        for (const int64_t neurons : {5, 130, 300}) {
            passes_agree<float>(3, batch, neurons, 9, ++number);
            passes_agree<double>(3, batch, neurons, 9, ++number);
        }
    passes_agree<float>(2, 3, 2100, 3, ++number);  // more tiles than groups
}

template <class T>
void invalid_rows_are_refused() {
    const CellOptions o = {5, 3, 130, true, true, true, true, true, true, true, {}};
    Input in(2);
    EventsProblem<T> q(in, o, 6);
    for_each_corruption(o, q.rows, [&] { CHECK(!passes_agree(q)); });
}

// Without inputs no event is valid; without steps the only offset is checked.
void events_without_inputs_or_steps_are_refused() {
    for (const int64_t steps : {2, 0}) {
        Input in(1);
        EventsProblem<float> q(in, {steps, 2, 3, true, true, true, true, true, true, true, {}}, 0);
        q.rows.indices = Array<int32_t>(std::vector<int32_t>(steps ? 1 : 0));
        q.rows.offsets[2 * steps] = 1;
        CHECK(first_invalid(q.o, q.rows) == steps / 2 && !passes_agree(q));
    }
}

template <class T>
void products_agree_on_a_grid() {
    Numbers numbers(1);
    Input in(1);
    for (const int64_t rows : {1, 9, 70})
        for (const int64_t inputs : {1, 47, 48, 100})
            for (const int64_t neurons : {0, 1, 33})
                products_agree(in, numbers.array<T>(rows * neurons).data(), numbers.array<T>(neurons * inputs), rows,
                               neurons, inputs);
}

void dense_shapes_agree() {
    empty_inputs_are_nothing<float>(0, INT64_MAX, 1, INT64_MAX);
    empty_inputs_are_nothing<float>(1, INT64_MAX, 0, 0);
    uint64_t number = 0;
    for (const int64_t steps : {0, 1, 5})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t inputs : {0, 1, 5, 15, 16, 17, 63, 64, 65, 70, 130})
                for (int repeat = 0; repeat < 2; ++repeat) {
                    Input single(++number), of_double(number + 1000);
                    dense_inputs_agree<float>(single, steps, batch, inputs);
                    dense_inputs_agree<double>(of_double, steps, batch, inputs);
                }
}

// Another thread writes into offsets, indices and lengths during the calls: no access is out of bounds.
template <class T>
void kernels_survive_events_that_change_during_a_call(bool by_event) {
    const int64_t inputs = by_event ? 2000 : 5;
    const CellOptions o = {40, 4, 150, true, true, true, true, true, true, true, wild_lengths(4, 40)};
    CellInputs<T> in(o);
    EventRows<T> rows(o, 5, true, in.numbers);
    rows.inputs = inputs;
    CHECK(packs_by_event(inputs, rows.indices.size()) == by_event);
    const Array<T> weight = in.numbers.template array<T>(o.neurons * inputs);
    const Array<T> grad_current = in.plane(o.steps);
    Array<T> grad_input(o.steps * o.batch * inputs);
    for (const Kernels* kernels : available_kernels()) {
        EventsCall<T> call(in, rows, {true, true, true}, kPoison);
        const ConcurrentWriter writer(rows.offsets, rows.indices, in.lengths);
        expect_both_outcomes([&] { return call.forward(*kernels, weight, 1); });
        expect_both_outcomes([&] { return call.backward(*kernels, 1); });
        const EventDots<T> p = {in.shape(1),         rows.events(), weight.data(),
                                grad_current.data(), nullptr,       grad_input.data()};
        expect_both_outcomes([&] { return kernels->of<T>().event_dots(p); });
    }
}

}  // namespace

int main() {
    shapes_agree();
    groups_agree();
    invalid_rows_are_refused<float>();
    invalid_rows_are_refused<double>();
    events_without_inputs_or_steps_are_refused();
    dense_shapes_agree();
    products_agree_on_a_grid<float>();
    products_agree_on_a_grid<double>();
    for (const bool by_event : {false, true}) {
        kernels_survive_events_that_change_during_a_call<float>(by_event);
        kernels_survive_events_that_change_during_a_call<double>(by_event);
    }
    std::printf("events: passed\n");
}
