// A neuron's parameters, and the turn of resonant neurons (see params.h): makes it from alpha and omega, and makes
// their gradients from its own. Included by device.h inside its namespace, after launch-inl.h; knows no time loop.

template <class T>
SRCELL_INLINE Value<T> parameter_of(const Parameter<T>& parameter, int64_t neuron) {
    return {parameter.at(neuron)};
}

template <class T>
SRCELL_INLINE Value<double> wide(Value<T> x) {
    return {static_cast<double>(x.x)};
}

template <class T>
SRCELL_INLINE Value<double> wide_parameter(const CellParameters<T>& cell, CellParameter which, int64_t neuron) {
    return wide(parameter_of(cell.of[which], neuron));
}

// A thread makes the turn of one neuron.
template <class T>
struct MakeTurnBody {
    DeviceTurn<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t n = place.item();
        if (n >= p.count) return;
        const auto made = turn_of(wide_parameter(p.cell, kAlpha, n), wide_parameter(p.cell, kOmega, n));
        p.along[n] = static_cast<T>(made.along.x);
        p.across[n] = static_cast<T>(made.across.x);
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
    CellBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const int64_t n = element % p.shape.neurons;
        T *const along = p.partials + kAlpha * plane + element, *const across = p.partials + kOmega * plane + element;
        const Turned<Value<double>> grad = {wide(Value<T>{*along}), wide(Value<T>{*across})};
        const auto made =
            unturned(wide_parameter(p.cell, kAlpha, n), sine_cosine(wide_parameter(p.cell, kOmega, n)), grad);
        *along = static_cast<T>(made.along.x);
        *across = static_cast<T>(made.across.x);
    }
};

// Launches UnturnBody if the layer resonates and a gradient of alpha or omega is wanted.
template <class T>
void unturn_gradients(Queue& queue, const CellBackward<T>& p) {
    if (p.turn && (p.grad_parameters[kAlpha] || p.grad_parameters[kOmega]))
        launch(queue, spread(queue, p.shape.batch * p.shape.neurons), UnturnBody<T>{p});
}
