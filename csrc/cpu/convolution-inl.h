// Neurons on events through a convolution, forwards and backwards. Included by kernels.cpp inside its namespace, after
// scan-inl.h, events-inl.h and product-inl.h; knows maps, taps and rows of events, and never looks inside the
// equations.
//
// A sample advances segment by segment. The currents of a segment's steps are summed event by event and stay in the
// cache while the neurons take these steps, tile after tile; nothing of them is kept. Backwards they are summed again,
// and the gradients of a segment's currents take their place before they meet its events, or the weight.
//
// An event adds the weights of its channel and of a tap to the currents of all output channels of one place, which are
// neighbours in memory: currents are summed in the order (group, place, channel) and then transposed to that of the
// neurons. A current is the sum of its events in the order of their row, each product rounded before it is added.

// The elements of a row of currents or of their gradients by place: one of the packed width for each group and place.
SRCELL_INLINE int64_t by_place_width(const Convolution& map) { return map.groups * map.places() * map.packed_width(); }

// The places of the map that an input reaches, with what a loop over events needs of the map.
class Reached {
  public:
    explicit Reached(const Convolution& map)
        : map_(map),
          inputs_(map.group_inputs()),
          places_(map.places()),
          taps_(map.taps()),
          width_(map.packed_width()) {}

    // Calls visit(at, weight) for each place: its elements begin with number `at` of a row by place, and the weights
    // with number `weight` of the packed weight.
    template <class Visit>
    SRCELL_INLINE void visit(int64_t input, Visit visit) const {
        // At most 2^31 inputs: division by 32 bits takes a third of the time.
        const auto at = static_cast<uint32_t>(input), width = static_cast<uint32_t>(map_.width);
        const uint32_t rows = at / width, channel = rows / static_cast<uint32_t>(map_.height);
        const int64_t column = at - rows * width, row = rows - channel * static_cast<uint32_t>(map_.height);
        const int64_t first = map_.groups == 1 ? 0 : channel / inputs_ * places_, weights = channel * taps_;
        const Tap *const begin = map_.columns.first(column), *const end = map_.columns.last(column);
        for (const Tap *y = map_.rows.first(row), *last = map_.rows.last(row); y != last; ++y) {
            const int64_t places = first + y->out * map_.out_width, taps = weights + y->kernel * map_.kernel_width;
            for (const Tap* x = begin; x != end; ++x) visit((places + x->out) * width_, (taps + x->kernel) * width_);
        }
    }
    int64_t width() const { return width_; }

  private:
    const Convolution& map_;
    const int64_t inputs_, places_, taps_, width_;
};

// to[k] += value * from[k] for k < width, the packed width of a map; each product is rounded. With kRegisters, width is
// that of so many registers.
template <class S, int kRegisters>
SRCELL_INLINE void add_scaled(scalar_of<S>* to, const scalar_of<S>* from, scalar_of<S> value, int64_t width) {
    constexpr int64_t lanes = VecTraits<S>::width;
    const S factor = splat<S>(value);
    const auto add = [&](int64_t k)
                         SRCELL_LAMBDA_INLINE { store(to + k, load<S>(to + k) + factor * load<S>(from + k)); };
    if constexpr (kRegisters > 0) {
        for (int r = 0; r < kRegisters; ++r) add(r * lanes);
    } else if (width % lanes == 0) {
        for (int64_t k = 0; k < width; k += lanes) add(k);
    } else {
        for (int64_t k = 0; k < width; ++k) to[k] += value * from[k];
    }
}

// Calls body(std::integral_constant<int, n>{}) with the registers of the packed width if there are few, else with 0.
template <class S, class Body>
SRCELL_INLINE void with_registers(int64_t width, Body body) {
    constexpr int64_t lanes = VecTraits<S>::width;
    if (width == lanes) return body(std::integral_constant<int, 1>{});
    if (width == 2 * lanes) return body(std::integral_constant<int, 2>{});
    if (width == 4 * lanes) return body(std::integral_constant<int, 4>{});
    body(std::integral_constant<int, 0>{});
}

// The events of a row.
template <class T>
struct RowEvents {
    const int32_t* indices;
    Maybe<const T> values;  // else all ones
    int64_t count;

    SRCELL_INLINE T value(int64_t n) const { return values ? values[n] : T(1); }
};

// Finds the events of rows; lists those of a dense input in scratch.
template <class T>
class RowReader {
  public:
    static int64_t bytes(const Convolution& map, const ConvolutionInput<T>& input) {
        const int64_t listed = input.dense ? map.inputs() : 0;
        return ThreadMemory::bytes_of<int32_t>(listed) + ThreadMemory::bytes_of<T>(listed);
    }

    template <class Call>
    RowReader(const Call& p, ThreadMemory& memory)
        : input_(p.input),
          steps_(p.shape.steps),
          batch_(p.shape.batch),
          inputs_(p.map.inputs()),
          indices_(memory.take<int32_t>(input_.dense ? inputs_ : 0)),
          values_(memory.take<T>(input_.dense ? inputs_ : 0)) {}

    // Those of step t of a sample; the row that was read before is overwritten.
    template <class S>
    RowEvents<T> read(int64_t sample, int64_t t) const {
        if (input_.dense) return list<S>(input_.elements + (t * batch_ + sample) * inputs_, t + 1 < steps_);
        const Events<T>& events = input_.events;
        const EventRange range = events_of_row(events, sample * steps_ + t);
        return {events.indices + range.begin, offset_or_null(events.values, range.begin), range.size()};
    }

  private:
    // The row of the next step is a whole batch away, too far for the hardware prefetchers.
    template <class S>
    RowEvents<T> list(const T* row, bool fetch_next) const {
        constexpr int64_t word = 64, width = VecTraits<S>::width;
        const int64_t next = fetch_next ? batch_ * inputs_ : 0;
        int64_t count = 0;
        for (int64_t k = 0; k < inputs_; k += word) {
            uint64_t nonzero = 0;
            prefetch_row<kForRead>(row + k + next, inputs_ - k < word ? inputs_ - k : word);
            for (int64_t j = 0; j < word && k + j < inputs_; j += width)
                nonzero |= lanes_of(not_equal(load_lanes<S>(row + k + j, inputs_ - k - j), splat<S>(0))) << j;
            for (; nonzero; nonzero &= nonzero - 1, ++count) {
                const int64_t input = k + __builtin_ctzll(nonzero);
                indices_[count] = static_cast<int32_t>(input);
                values_[count] = row[input];
            }
        }
        return {indices_, values_, count};
    }

    const ConvolutionInput<T>& input_;
    const int64_t steps_, batch_, inputs_;
    int32_t* const indices_;
    T* const values_;
};

// Sums the currents of a row's events by place.
template <class S>
void sum_convolved(const Convolution& map, const RowEvents<scalar_of<S>>& events, const scalar_of<S>* packed_weight,
                   scalar_of<S>* sums) {
    using T = scalar_of<S>;
    std::memset(sums, 0, static_cast<size_t>(by_place_width(map)) * sizeof(T));
    const Reached reached(map);
    const int64_t inputs = map.inputs();
    with_registers<S>(reached.width(), [&](auto registers) SRCELL_LAMBDA_INLINE {
        for (int64_t n = 0; n < events.count; ++n) {
            const T value = events.value(n);
            reached.visit(input_or_first(events.indices + n, inputs), [&](int64_t at,
                                                                          int64_t weight) SRCELL_LAMBDA_INLINE {
                add_scaled<S, decltype(registers)::value>(sums + at, packed_weight + weight, value, reached.width());
            });
        }
    });
}

// to[n * to_stride + k] = from[k * from_stride + n] for k < rows, n < columns; in blocks, which the compiler
// vectorises.
template <class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
    constexpr int64_t block = 4;
    for (int64_t n = 0; n < columns; n += block)
        for (int64_t k = 0; k < rows; k += block) {
            const T* const corner = from + k * from_stride + n;
            T* const target = to + n * to_stride + k;
            if (k + block <= rows && n + block <= columns) {
                T held[block][block];
                for (int64_t i = 0; i < block; ++i)
                    for (int64_t j = 0; j < block; ++j) held[j][i] = corner[i * from_stride + j];
                for (int64_t j = 0; j < block; ++j)
                    for (int64_t i = 0; i < block; ++i) target[j * to_stride + i] = held[j][i];
                continue;
            }
            for (int64_t i = 0; i < block && k + i < rows; ++i)
                for (int64_t j = 0; j < block && n + j < columns; ++j)
                    target[j * to_stride + i] = corner[i * from_stride + j];
        }
}

// A row by place in the order of the neurons, and the other way round.
template <class T>
void by_neuron(const Convolution& map, const T* by_place, T* row) {
    const int64_t places = map.places(), width = map.packed_width(), outputs = map.group_outputs();
    for (int64_t group = 0; group < map.groups; ++group)
        transpose(by_place + group * places * width, width, places, outputs, row + group * outputs * places, places);
}

template <class T>
void by_place(const Convolution& map, const T* row, T* by_place) {
    const int64_t places = map.places(), width = map.packed_width(), outputs = map.group_outputs();
    for (int64_t group = 0; group < map.groups; ++group)
        transpose(row + group * outputs * places, places, outputs, places, by_place + group * places * width, width);
}

// Scratch of a thread: a row by place, and the currents of a segment's steps.
template <class T>
struct SegmentCurrents {
    T *sums, *rows;
    int64_t stride;  // from step to step

    static int64_t stride_of(const Convolution& map) {
        return event_tiles(map.neurons()) * event_tile_width(map.neurons());
    }
    static int64_t steps_of(const ScanShape& shape) { return shape.steps < kSegment ? shape.steps : kSegment; }
    static int64_t bytes(const Convolution& map, int64_t steps) {
        return ThreadMemory::bytes_of<T>(by_place_width(map)) + ThreadMemory::bytes_of<T>(steps * stride_of(map));
    }

    SegmentCurrents(const Convolution& map, int64_t steps, ThreadMemory& memory)
        : sums(memory.take<T>(by_place_width(map))),
          rows(memory.take<T>(steps * stride_of(map))),
          stride(stride_of(map)) {}

    // Those of steps [begin, end) of a sample, by neuron.
    template <class S, class Call>
    void sum(const Call& p, const RowReader<T>& reader, int64_t sample, int64_t begin, int64_t end) const {
        for (int64_t t = begin; t < end; ++t) {
            sum_convolved<S>(p.map, reader.template read<S>(sample, t), p.packed_weight, sums);
            by_neuron(p.map, sums, rows + (t - begin) * stride);
        }
    }

    // Those of a tile, the rows of which have room for whole registers.
    SegmentRows<T> of(const Tile& tile, int64_t neurons) const {
        return {rows + tile.first, stride, event_tile_width(neurons)};
    }
    SegmentRows<const T> read(const Tile& tile, int64_t neurons) const {
        return {rows + tile.first, stride, event_tile_width(neurons)};
    }
};

template <class T>
int64_t convolution_memory(const Convolution& map) {
    return SegmentCurrents<T>::bytes(map, 1);
}

template <class Call>
struct ConvolutionJob {
    const Call& p;
    std::atomic<bool> out_of_memory;
};

template <class V, bool resonant>
void convolution_forward_range(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    auto& job = *static_cast<ConvolutionJob<ConvolutionForward<T>>*>(self);
    const ConvolutionForward<T>& p = job.p;
    const int64_t neurons = p.shape.neurons, most = SegmentCurrents<T>::steps_of(p.shape);
    const bool given = p.memory && p.shape.threads <= 1 && most <= 1;
    ThreadMemory memory(SegmentCurrents<T>::bytes(p.map, most) + RowReader<T>::bytes(p.map, p.input),
                        given ? p.memory : nullptr);
    if (!memory) {
        job.out_of_memory = true;
        return;
    }
    const SegmentCurrents<T> currents(p.map, most, memory);
    const RowReader<T> reader(p, memory);
    TileCell<V> cell;
    TileState<V, resonant> state;
    States<const T> after;
    for (int k = 0; k < kCellStates; ++k) after.of[k] = p.after.of[k];
    for (int64_t sample = begin; sample < end; ++sample) {
        const int64_t length = steps_of(p.shape, sample);
        int64_t first = 0;
        do {
            const int64_t last = first + kSegment < length ? first + kSegment : length;
            currents.template sum<single_of<V>>(p, reader, sample, first, last);
            for (int64_t number = 0; number < event_tiles(neurons); ++number) {
                Tile tile = event_tile_at(p.shape, number, sample);
                tile.steps = length;
                load_cell<resonant>(cell, p, tile);
                load_tile<V>(state, first ? after : p.before, tile);
                forward_steps<V, false>(p, tile, first, last, currents.read(tile, neurons), cell, state);
                if (last == length) zero_steps<V, resonant>(p, tile);
                store_tile<V>(state, p.after, tile);
            }
            first = last;
        } while (first < length);
    }
}

template <class T>
int64_t first_invalid_sample(const ConvolutionInput<T>& input, const ScanShape& shape) {
    return input.dense ? -1 : first_invalid_sample(input.events, shape);
}

// Same return value as events_forward(), or kOutOfMemory.
template <class V>
int64_t convolution_forward(const ConvolutionForward<scalar_of<V>>& p) {
    if (p.shape.neurons == 0 || p.shape.batch == 0) return -1;
    const int64_t invalid = first_invalid_sample(p.input, p.shape);
    if (invalid >= 0) return invalid;
    ConvolutionJob<ConvolutionForward<scalar_of<V>>> job = {p, {false}};
    parallel_for(p.shape.batch, p.shape.threads,
                 p.turn ? convolution_forward_range<V, true> : convolution_forward_range<V, false>, &job);
    return job.out_of_memory ? kOutOfMemory : -1;
}

// What the gradient of the input needs of a thread, for one group: the product of the gradients of the currents of some
// places and the weight, so few that it stays in the L1 cache; and the gradients of a row of inputs by place.
template <class T>
struct InputScratch {
    static constexpr int64_t kPlaces = 16;

    T *product, *inputs;

    static int64_t products(const Convolution& map) { return kPlaces * map.taps() * map.group_inputs(); }
    // A register may be stored past the last.
    static int64_t elements(const Convolution& map) { return map.height * map.width * map.group_inputs() + 16; }
    static int64_t bytes(const Convolution& map) {
        return ThreadMemory::bytes_of<T>(products(map)) + ThreadMemory::bytes_of<T>(elements(map));
    }

    InputScratch(const Convolution& map, ThreadMemory& memory)
        : product(memory.take<T>(products(map))), inputs(memory.take<T>(elements(map))) {}
};

// The product of `places` places of a group; the panels of the groups follow one another.
template <class T>
Product<T> group_product(const ConvolutionBackward<T>& p, int64_t group, int64_t places, const T* by_place,
                         T* product) {
    const Convolution& map = p.map;
    const int64_t columns = map.taps() * map.group_inputs(), outputs = map.group_outputs();
    return {places,
            columns,
            outputs,
            1,
            map.packed_width(),
            by_place,
            p.weight + group * outputs * columns,
            p.panels + group * outputs * (columns + kProductPadding),
            product};
}

template <class S>
void pack_convolution_panels(const ConvolutionBackward<scalar_of<S>>& p) {
    using T = scalar_of<S>;
    for (int64_t group = 0; group < p.map.groups; ++group) {
        auto product = group_product<T>(p, group, 0, nullptr, nullptr);
        pack_panels<S>(&product, 0, ceil_div(product.inputs, kPanel<S>));
    }
}

// to[k] += from[k] for k < count; what lies in a register past the last gets + 0.
template <class S>
SRCELL_INLINE void add_run(scalar_of<S>* to, const scalar_of<S>* from, int64_t count) {
    for (int64_t k = 0; k < count; k += VecTraits<S>::width)
        store(to + k, load<S>(to + k) + load_lanes<S>(from + k, count - k));
}

// Adds what a group's neurons at a place of the map pass down through every tap to the gradients of its inputs. The
// taps of a row of the kernel meet neighbours, unless it is dilated.
template <class S>
void add_products(const Convolution& map, int64_t place, const scalar_of<S>* product, scalar_of<S>* to) {
    const int64_t inputs = map.group_inputs(), run = map.dilation_x == 1 ? map.kernel_width : 1;
    const int64_t top = place / map.out_width * map.stride_y - map.padding_top;
    const int64_t left = place % map.out_width * map.stride_x - map.padding_left;
    for (int64_t v = 0; v < map.kernel_height; ++v) {
        const int64_t row = top + v * map.dilation_y;
        for (int64_t u = 0; u < map.kernel_width; u += run, product += run * inputs) {
            const int64_t column = left + u * map.dilation_x, first = column < 0 ? -column : 0;
            const int64_t last = column + run > map.width ? map.width - column : run;
            if (row < 0 || row >= map.height || first >= last) continue;
            add_run<S>(to + (row * map.width + column + first) * inputs, product + first * inputs,
                       (last - first) * inputs);
        }
    }
}

// The gradient of a row of the input, (C, H, W), from that of its currents by place.
template <class S>
void input_gradient(const ConvolutionBackward<scalar_of<S>>& p, const scalar_of<S>* by_place,
                    const InputScratch<scalar_of<S>>& scratch, scalar_of<S>* row) {
    using T = scalar_of<S>;
    const Convolution& map = p.map;
    const int64_t inputs = map.group_inputs(), places = map.height * map.width, width = map.packed_width();
    for (int64_t group = 0; group < map.groups; ++group, by_place += map.places() * width) {
        std::memset(scratch.inputs, 0, static_cast<size_t>(InputScratch<T>::elements(map)) * sizeof(T));
        for (int64_t first = 0; first < map.places(); first += InputScratch<T>::kPlaces) {
            const int64_t left = map.places() - first, count = left < scratch.kPlaces ? left : scratch.kPlaces;
            auto product = group_product<T>(p, group, count, by_place + first * width, scratch.product);
            multiply_rows<S>(&product, 0, ceil_div(count, kProductItem));
            for (int64_t place = 0; place < count; ++place)
                add_products<S>(map, first + place, scratch.product + place * product.inputs, scratch.inputs);
        }
        transpose(scratch.inputs, inputs, places, inputs, row + group * inputs * places, places);
    }
}

// What a row's events pass down, from the gradients of its currents by place: the gradient of the weight, and those of
// the events themselves, into grad_values, event by event, or into grad_row, input by input.
template <class S>
void event_gradients(const ConvolutionBackward<scalar_of<S>>& p, const RowEvents<scalar_of<S>>& events,
                     const scalar_of<S>* by_place, scalar_of<S>* grad_weight, scalar_of<S>* grad_values,
                     scalar_of<S>* grad_row) {
    using T = scalar_of<S>;
    const Convolution& map = p.map;
    const Reached reached(map);
    const int64_t inputs = map.inputs();
    with_registers<S>(reached.width(), [&](auto registers) SRCELL_LAMBDA_INLINE {
        for (int64_t n = 0; n < events.count && grad_weight; ++n) {
            const T value = events.value(n);
            reached.visit(input_or_first(events.indices + n, inputs), [&](int64_t at,
                                                                          int64_t weight) SRCELL_LAMBDA_INLINE {
                add_scaled<S, decltype(registers)::value>(grad_weight + weight, by_place + at, value, reached.width());
            });
        }
    });
    if (!grad_values && !grad_row) return;
    for (int64_t n = 0; n < events.count; ++n) {
        const int64_t input = input_or_first(events.indices + n, inputs);
        T sum = 0;
        reached.visit(input, [&](int64_t at, int64_t weight) SRCELL_LAMBDA_INLINE {
            sum += dot<S>(p.packed_weight + weight, by_place + at, map.group_outputs());
        });
        if (grad_values) grad_values[n] = sum;
        if (grad_row) grad_row[input] = sum;
    }
}

// The adjoint of a sample's segment, in the place of its currents.
template <class V, class Mode>
void convolution_backward_segment(const ConvolutionBackward<scalar_of<V>>& p, int64_t sample, int64_t begin,
                                  int64_t end, int64_t length, const SegmentCurrents<scalar_of<V>>& currents,
                                  BackwardScratch<V, Mode, kSegment>& scratch) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    States<const T> carried;
    for (int k = 0; k < kCellStates; ++k) carried.of[k] = p.grad_before.of[k];
    for (int64_t number = 0; number < event_tiles(neurons); ++number) {
        const Tile tile = event_tile_at(p.shape, number, sample);
        load_cell<Mode::resonant>(scratch.cell, p, tile);
        load_tile<V>(scratch.carry, end == length ? p.grad_after : carried, tile);
        for (int64_t s = 0; s < Mode::sums; ++s)
            load_row<V>(scratch.sums.of[s], end == length ? nullptr : p.partials + s * plane + tile.offset, tile.count);
        if (begin < end)
            backward_segment<false, V>(p, tile, begin, end, currents.read(tile, neurons), currents.of(tile, neurons),
                                       scratch);
        store_tile<V>(scratch.carry, p.grad_before, tile);
        store_sums(p, scratch, tile);
    }
}

// The gradients of a sample's events past its length, and of its input there, are 0.
template <class T>
void zero_past(const ConvolutionBackward<T>& p, int64_t sample, int64_t length) {
    const int64_t steps = p.shape.steps, inputs = p.map.inputs();
    for (int64_t t = length; t < steps && p.grad_input; ++t)
        std::memset(p.grad_input + (t * p.shape.batch + sample) * inputs, 0, static_cast<size_t>(inputs) * sizeof(T));
    for (int64_t t = length; t < steps && p.grad_values; ++t) {
        const EventRange range = events_of_row(p.input.events, sample * steps + t);
        for (int64_t n = range.begin; n < range.end; ++n) p.grad_values[n] = 0;
    }
}

// Scratch of a thread.
template <class T>
struct ConvolutionScratch {
    SegmentCurrents<T> currents;
    RowReader<T> reader;
    std::optional<InputScratch<T>> input;  // if the whole gradient of the input is needed

    static bool is_whole(const ConvolutionBackward<T>& p) { return p.grad_input && p.weight; }
    static int64_t bytes(const ConvolutionBackward<T>& p) {
        return SegmentCurrents<T>::bytes(p.map, SegmentCurrents<T>::steps_of(p.shape)) +
               RowReader<T>::bytes(p.map, p.input) + (is_whole(p) ? InputScratch<T>::bytes(p.map) : 0);
    }
    ConvolutionScratch(const ConvolutionBackward<T>& p, ThreadMemory& memory)
        : currents(p.map, SegmentCurrents<T>::steps_of(p.shape), memory), reader(p, memory) {
        if (is_whole(p)) input.emplace(p.map, memory);
    }
};

// From the gradients of the currents of steps [begin, end) of a sample to those of the weight and of the input.
template <class S>
void synapse_gradients(const ConvolutionBackward<scalar_of<S>>& p, int64_t sample, int64_t begin, int64_t end,
                       const ConvolutionScratch<scalar_of<S>>& scratch, scalar_of<S>* grad_weight) {
    using T = scalar_of<S>;
    const SegmentCurrents<T>& currents = scratch.currents;
    const int64_t inputs = p.map.inputs();
    std::memset(currents.sums, 0, static_cast<size_t>(by_place_width(p.map)) * sizeof(T));
    for (int64_t t = begin; t < end; ++t) {
        by_place(p.map, currents.rows + (t - begin) * currents.stride, currents.sums);
        T* const grad_row = p.grad_input ? p.grad_input + (t * p.shape.batch + sample) * inputs : nullptr;
        T* const at_events = scratch.input ? nullptr : grad_row;
        if (at_events) std::memset(at_events, 0, static_cast<size_t>(inputs) * sizeof(T));
        if (grad_weight || p.grad_values || at_events) {
            const RowEvents<T> events = scratch.reader.template read<S>(sample, t);
            T* const values = p.grad_values ? p.grad_values + (events.indices - p.input.events.indices) : nullptr;
            event_gradients<S>(p, events, currents.sums, grad_weight, values, at_events);
        }
        if (scratch.input) input_gradient<S>(p, currents.sums, *scratch.input, grad_row);
    }
}

// Items are groups of samples.
template <class V, class Mode>
void convolution_backward_range(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    using S = single_of<V>;
    auto& job = *static_cast<ConvolutionJob<ConvolutionBackward<T>>*>(self);
    const ConvolutionBackward<T>& p = job.p;
    const int64_t batch = p.shape.batch, size = convolution_group_size(batch);
    ThreadMemory memory(ConvolutionScratch<T>::bytes(p));
    if (!memory) {
        job.out_of_memory = true;
        return;
    }
    const ConvolutionScratch<T> scratch(p, memory);
    BackwardScratch<V, Mode, kSegment> of_cell;
    for (int64_t item = begin; item < end; ++item) {
        T* const grad_weight = p.grad_weight ? p.weight_partials + item * p.map.packed_weights() : nullptr;
        if (grad_weight) std::memset(grad_weight, 0, static_cast<size_t>(p.map.packed_weights()) * sizeof(T));
        const int64_t past = (item + 1) * size < batch ? (item + 1) * size : batch;
        for (int64_t sample = item * size; sample < past; ++sample) {
            const int64_t length = steps_of(p.shape, sample);
            zero_past(p, sample, length);
            int64_t last = length;
            do {
                const int64_t first = last ? (last - 1) / kSegment * kSegment : 0;
                scratch.currents.template sum<S>(p, scratch.reader, sample, first, last);
                convolution_backward_segment<V, Mode>(p, sample, first, last, length, scratch.currents, of_cell);
                synapse_gradients<S>(p, sample, first, last, scratch, grad_weight);
                last = first;
            } while (last > 0);
        }
    }
}

// Of an input channel: gradient[o][c][tap] = the sum over groups of samples, in a fixed tree, of partial [c][tap][o].
template <class T>
void reduce_convolved_weight(const ConvolutionBackward<T>& p, int64_t channel) {
    const Convolution& map = p.map;
    const int64_t taps = map.taps(), width = map.packed_width(), inputs = map.group_inputs();
    T* const sums = p.weight_partials + channel * taps * width;
    sum_rows(sums, convolution_groups(p.shape.batch), map.packed_weights(), taps * width);
    const int64_t first = channel / inputs * map.group_outputs();
    for (int64_t o = 0; o < map.group_outputs(); ++o)
        for (int64_t tap = 0; tap < taps; ++tap)
            p.grad_weight[((first + o) * inputs + channel % inputs) * taps + tap] = sums[tap * width + o];
}

// Same return value as convolution_forward().
template <class V>
int64_t convolution_backward(const ConvolutionBackward<scalar_of<V>>& p) {
    using T = scalar_of<V>;
    const bool any = p.shape.neurons && p.shape.batch;
    if (any) {
        const int64_t invalid = first_invalid_sample(p.input, p.shape);
        if (invalid >= 0) return invalid;
        if (p.grad_input && p.weight) pack_convolution_panels<single_of<V>>(p);
        ConvolutionJob<ConvolutionBackward<T>> job = {p, {false}};
        const auto range = with_mode(p, [](auto mode) { return convolution_backward_range<V, decltype(mode)>; });
        parallel_for(convolution_groups(p.shape.batch), p.shape.threads, range, &job);
        if (job.out_of_memory) return kOutOfMemory;
    }
    if (p.grad_weight && any)
        for_each_item<reduce_convolved_weight<T>>(p.map.channels, p.shape.threads, p);
    else if (p.grad_weight && p.map.weights())
        std::memset(p.grad_weight, 0, static_cast<size_t>(p.map.weights()) * sizeof(T));
    reduce_parameters(p);
    return -1;
}
