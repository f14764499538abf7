// A neuron's parameters, and the turn of resonant neurons (see params.h): how it is made from alpha and omega, and how
// its gradients become theirs. Included by device.h inside its namespace, after launch.h; knows no time loop.

template <class T>
SRCELL_INLINE Value<T> parameter_of(const Parameter<T>& parameter, int64_t neuron) {
    return {parameter.data ? parameter.data[parameter.stride * neuron] : parameter.constant};
}

template <class T>
SRCELL_INLINE Value<double> wide(Value<T> x) {
    return {static_cast<double>(x.x)};
}

template <class T>
SRCELL_INLINE SineCosine<Value<double>> sine_cosine_of(const CellParameters<T>& cell, int64_t neuron) {
    return sine_cosine(wide(parameter_of(cell.of[kOmega], neuron)));
}

// A thread makes the turn of one neuron.
template <class T>
struct MakeTurnBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    DeviceTurn<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t n = place.item();
        if (n >= p.count) return;
        const SineCosine<Value<double>> of = sine_cosine_of(p.cell, n);
        const Value<double> alpha = wide(parameter_of(p.cell.of[kAlpha], n));
        p.along[n] = static_cast<T>((alpha * of.cosine).x);
        p.across[n] = static_cast<T>((alpha * of.sine).x);
    }
};

template <class T>
void make_turn(Queue& queue, const DeviceTurn<T>& p) {
    launch(queue, spread(queue, p.count), MakeTurnBody<T>{p});
}

// Turns the partial sums of one neuron of one sample, of the gradients of alpha cos(omega) and alpha sin(omega), into
// those of alpha and omega.
template <class T>
struct UnturnBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    CellBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const int64_t n = element % p.shape.neurons;
        T *const along = p.partials + kAlpha * plane + element, *const across = p.partials + kOmega * plane + element;
        const SineCosine<Value<double>> of = sine_cosine_of(p.cell, n);
        const Value<double> alpha = wide(parameter_of(p.cell.of[kAlpha], n));
        const Value<double> x = wide(Value<T>{*along}), y = wide(Value<T>{*across});
        *along = static_cast<T>(fma(of.cosine, x, of.sine * y).x);
        *across = static_cast<T>((alpha * fma(of.cosine, y, negate(of.sine * x))).x);
    }
};

// Does so if the layer resonates and the gradient of either is wanted.
template <class T>
void unturn_gradients(Queue& queue, const CellBackward<T>& p) {
    if (p.turn.along && (p.grad_parameters[kAlpha] || p.grad_parameters[kOmega]))
        launch(queue, spread(queue, p.shape.batch * p.shape.neurons), UnturnBody<T>{p});
}
