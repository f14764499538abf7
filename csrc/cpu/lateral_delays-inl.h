// Spikes on their way through delayed recurrent weights. Included by kernels.cpp inside its namespace, before
// lateral-inl.h; knows neurons by their numbers, and neither weights nor equations.
//
// When a neuron spikes, its bit is set in the row of each step at which the spike will arrive. A step then visits the
// bits of its row in ascending order, so a spike costs the same whatever its delay, and a step without arrivals costs
// one look at a row of bits.

// The active neurons of a step, or the spikes that arrive at one, in ascending order.
template <class T>
struct Active {
    int32_t* index;
    T* value;
    int64_t count;
};

// Fills the private copy of the terms' steps.
template <class T>
void copy_steps(const LateralDelays<T>& delays, int64_t neurons) {
    for (int64_t n = 0; delays && n < neurons; ++n)
        for (int64_t term = 0; term < delays.of.terms; ++term)
            delays.later[n * delays.of.terms + term] = static_cast<int32_t>(delays.steps_of(n, term));
}

// The spikes of one sample in a ring of past_steps + 1 rows: the row of a step holds its spikes, and, before the step
// is taken, the neurons of which a spike arrives then.
template <class T>
struct UnderWay {
    LateralDelays<T> delays = {};
    int64_t neurons = 0, rows = 0, words = 0;
    uint64_t* arriving = nullptr;  // (rows, words)
    T* spikes = nullptr;           // (rows, N)
    int64_t step = 0, row = 0;     // the next step, and its row

    SRCELL_INLINE int64_t wrapped(int64_t at) const { return at < rows ? at : at - rows; }

    // Starts before step 0 with the spikes of the initial state: those of h, which are `active`, and those before.
    void begin(int64_t sample, const Active<T>& active) {
        const int64_t past_steps = rows - 1;
        std::memset(arriving, 0, static_cast<size_t>(rows * words) * sizeof(uint64_t));
        step = row = 0;
        if (delays.past0) {
            const T* const past = delays.past0 + sample * past_steps * neurons;
            std::memcpy(spikes, past, static_cast<size_t>(past_steps * neurons) * sizeof(T));
            for (int64_t k = 0; k < past_steps; ++k)
                for (int64_t n = 0; n < neurons; ++n)
                    if (spikes[k * neurons + n] != 0) send(n, k, past_steps - k);
        }
        T* const last = spikes + past_steps * neurons;
        std::memset(last, 0, static_cast<size_t>(neurons) * sizeof(T));
        for (int64_t a = 0; a < active.count; ++a) {
            last[active.index[a]] = active.value[a];
            send(active.index[a], past_steps, 0);
        }
    }

    // Marks the arrivals of a spike that departs in row `from`; terms of fewer than `least` steps have arrived already.
    SRCELL_INLINE void send(int64_t neuron, int64_t from, int64_t least) {
        const int32_t* const later = delays.later + neuron * delays.of.terms;
        for (int64_t term = 0; term < delays.of.terms; ++term)
            if (later[term] >= least)
                arriving[wrapped(from + 1 + later[term]) * words + neuron / 64] |= uint64_t{1} << neuron % 64;
    }

    // Lists what arrives at the next step: by rising neuron, and of one neuron first what departed earlier.
    SRCELL_INLINE void arrive(Active<T>& arrived) {
        const int64_t terms = delays.of.terms, known = delays.past0 ? rows : step;  // longer terms left before step -1
        uint64_t* const bits_of_row = arriving + row * words;
        arrived.count = 0;
        for (int64_t w = 0; w < words; ++w) {
            uint64_t bits = bits_of_row[w];
            if (!bits) continue;
            bits_of_row[w] = 0;
            for (; bits; bits &= bits - 1) {
                const int64_t n = w * 64 + __builtin_ctzll(bits);
                for (int64_t term = terms - 1; term >= 0; --term) {
                    const int64_t later = delays.later[n * terms + term];
                    if (later < 0 || later > known) continue;
                    const int64_t from = row - 1 - later;
                    const T value = spikes[(from < 0 ? from + rows : from) * neurons + n];
                    // Without a branch: which of its terms a spike reaches is hard to predict.
                    arrived.index[arrived.count] = static_cast<int32_t>(n);
                    arrived.value[arrived.count] = delays.of.factors ? delays.of.factor(n, term) * value : value;
                    arrived.count += value != 0;
                }
            }
        }
    }

    // Takes over the spikes (N,) of the step, of which `active` are not 0.
    SRCELL_INLINE void depart(const T* made, const Active<T>& active) {
        std::memcpy(spikes + row * neurons, made, static_cast<size_t>(neurons) * sizeof(T));
        for (int64_t a = 0; a < active.count; ++a) send(active.index[a], row, 0);
        ++step;
        row = wrapped(row + 1);
    }

    // Writes the spikes before those of the last step, (past_steps, N).
    void store(T* past) const {
        const auto bytes = static_cast<size_t>(neurons) * sizeof(T);
        for (int64_t k = 0; k + 1 < rows; ++k, past += neurons) {
            const bool unknown = !delays.past0 && step + k < rows - 1;  // it departed before step -1
            if (unknown)
                std::memset(past, 0, bytes);
            else
                std::memcpy(past, spikes + wrapped(row + k) * neurons, bytes);
        }
    }
};
