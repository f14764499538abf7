// Networks and streams of csrc/runtime in the compiled module srcell._core, on NumPy arrays. core.cpp calls
// bind_runtime(); only srcell.runtime, which needs no torch, uses them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include "../platform/platform.h"
#include "../runtime/learner.h"
#include "arguments.h"

namespace srcell {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // contiguous and of that type, or pybind11 refuses the call

template <class T>
const T* data_of(const std::optional<Array<T>>& array) {
    return array ? array->data() : nullptr;
}

std::unique_ptr<Network> read_network(const py::bytes& bytes) {
    const std::string_view view = bytes;
    try {
        return std::make_unique<Network>(TensorFile::parse({view.begin(), view.end()}));
    } catch (const FileError& error) {
        throw py::value_error(error.what());
    }
}

// A batch for a network of so many inputs, with its sizes checked.
NetworkInput batch_of(int64_t inputs, int64_t steps, int64_t batch, const Array<int64_t>& offsets,
                      const Array<int32_t>& indices, const std::optional<Array<float>>& values,
                      const std::optional<Array<int64_t>>& lengths) {
    if (lengths && lengths->size() != batch)
        value_error("lengths: expected one for each of ", batch, " samples, got ", lengths->size());
    if (offsets.size() != count_rows(steps, batch) + 1 || (values && values->size() != indices.size()))
        value_error("events: expected ", count_rows(steps, batch) + 1, " offsets and as many values as indices");
    return {steps,
            batch,
            {offsets.data(), indices.data(), data_of(values), static_cast<int64_t>(indices.size()), inputs},
            data_of(lengths)};
}

// Returns the logits, (B, C) or at every step (T, B, C), the spikes of the layers whose numbers are in `wanted`, and
// the counts of NetworkOutput.
py::tuple run(const Network& network, int64_t steps, int64_t batch, const Array<int64_t>& offsets,
              const Array<int32_t>& indices, const std::optional<Array<float>>& values,
              const std::optional<Array<int64_t>>& lengths, const std::vector<size_t>& wanted, bool counts,
              bool every_step, int threads) {
    const NetworkInput input = batch_of(network.inputs(), steps, batch, offsets, indices, values, lengths);
    const int64_t classes = network.readout().classes;
    Array<float> logits = every_step ? Array<float>({steps, batch, classes}) : Array<float>({batch, classes});
    Array<int64_t> events(static_cast<py::ssize_t>(network.layers().size() + 1));
    Array<int64_t> operations(static_cast<py::ssize_t>(network.layers().size()));
    std::vector<float*> written(network.layers().size());
    py::list spikes;
    for (const size_t layer : wanted) {
        Array<float> of_layer({steps, batch, network.layers().at(layer).neurons});
        written[layer] = of_layer.mutable_data();
        spikes.append(std::move(of_layer));
    }
    const NetworkOutput output = {logits.mutable_data(), written.data(), counts ? events.mutable_data() : nullptr,
                                  counts ? operations.mutable_data() : nullptr, every_step};
    {
        const ReleasedGil release;
        network.run(input, output, threads);
    }
    return py::make_tuple(logits, spikes, events, operations);
}

// Threads of Python may share a stream: its calls run one after the other. It knows the process that holds it: a forked
// child has none of the threads of its parent, and would wait for ever for one that was inside a call.
class StreamMutex {
  public:
    bool try_lock() {
        const int own = forks() + 1;
        int holder = kFree;
        if (holder_.compare_exchange_strong(holder, own, std::memory_order_acquire)) return true;
        if (holder != own && holder != kFree)
            throw std::runtime_error(
                "stream: another thread was using it when this process was forked: open a stream in the child");
        return false;
    }
    // Without the GIL.
    void lock() {
        for (int tries = 0; !try_lock(); ++tries)
            if (tries < kYields)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    void unlock() { holder_.store(kFree, std::memory_order_release); }

  private:
    static constexpr int kFree = 0, kYields = 64;
    std::atomic<int> holder_{kFree};
};

// A call that keeps the GIL takes a StreamLock; one that releases it locks the mutex afterwards. So no thread waits for
// a mutex while it holds the GIL, and none waits for the GIL while it holds a mutex.
class StreamLock {
  public:
    explicit StreamLock(StreamMutex& mutex) : lock_(mutex, std::try_to_lock) {
        if (lock_) return;
        const ReleasedGil release;
        lock_.lock();
    }

  private:
    std::unique_lock<StreamMutex> lock_;
};

struct SharedStream : Stream {
    using Stream::Stream;
    mutable StreamMutex mutex;
};

Array<float> spikes_of(const Stream& stream) {
    const size_t last = stream.network().layers().size() - 1;
    return Array<float>({stream.batch(), stream.network().outputs()}, stream.spikes(last));
}

// Keeps the GIL: a step may take only a few hundred nanoseconds.
Array<float> step(SharedStream& stream, const Array<int32_t>& indices, const std::optional<Array<float>>& values,
                  const std::optional<Array<int64_t>>& offsets) {
    const int64_t whole[] = {0, static_cast<int64_t>(indices.size())};
    if (offsets ? offsets->size() != stream.batch() + 1 : stream.batch() != 1)
        value_error("offsets: expected ", stream.batch() + 1, " for a stream of ", stream.batch(), " samples");
    const int64_t* rows = offsets ? offsets->data() : whole;
    if (rows[stream.batch()] != whole[1] || (values && values->size() != indices.size()))
        value_error("offsets: expected the last to be ", whole[1], ", the number of indices and of values");
    const StreamLock lock(stream.mutex);
    stream.step(rows, indices.data(), data_of(values), whole[1]);
    return spikes_of(stream);
}

// Indices of 64 bits, as NumPy's nonzero() gives them. One that does not fit becomes -1, which is refused like any
// other that does not exist.
Array<float> step_wide(SharedStream& stream, const Array<int64_t>& indices, const std::optional<Array<float>>& values,
                       const std::optional<Array<int64_t>>& offsets) {
    Array<int32_t> narrow(indices.size());
    for (py::ssize_t n = 0; n < indices.size(); ++n) {
        const int64_t index = read_once(indices.data() + n);
        narrow.mutable_data()[n] = index < 0 || index > INT32_MAX ? -1 : static_cast<int32_t>(index);
    }
    return step(stream, narrow, values, offsets);
}

Array<float> step_dense(SharedStream& stream, const Array<float>& input) {
    if (input.size() != stream.batch() * stream.network().inputs())
        value_error("input: expected ", stream.batch() * stream.network().inputs(), " elements, got ", input.size());
    const StreamLock lock(stream.mutex);
    stream.step_dense(input.data());
    return spikes_of(stream);
}

Array<float> logits(const SharedStream& stream) {
    Array<float> made({stream.batch(), stream.network().readout().classes});
    const StreamLock lock(stream.mutex);
    if (made.size()) stream.logits(made.mutable_data());
    return made;
}

// Keeps the GIL, like a step. Returns the number of steps.
int64_t feed(SharedStream& stream, const Array<float>& values) {
    if (values.size() != stream.batch() * stream.network().inputs())
        value_error("values: expected ", stream.batch() * stream.network().inputs(), " elements, got ", values.size());
    const StreamLock lock(stream.mutex);
    return stream.feed(values.data());
}

// Keeps the GIL where a chunk is short.
int64_t hear(SharedStream& stream, const Array<float>& samples) {
    if (samples.size() < 1000) {
        const StreamLock lock(stream.mutex);
        return stream.hear(samples.data(), samples.size());
    }
    const ReleasedGil release;
    const std::lock_guard<StreamMutex> lock(stream.mutex);
    return stream.hear(samples.data(), samples.size());
}

// A cochlea of the numbers that a file would hold: sections (bands, sections, 5) and constants as sound.constants.
Cochlea make_cochlea(const Array<double>& sections, const std::vector<double>& constants, const Array<double>& offset,
                     const Array<double>& scale) {
    TensorFile file;
    const auto store = [&](const char* name, const Array<double>& numbers, const std::vector<int64_t>& shape) {
        file.tensors[name] = {"F64", shape, reinterpret_cast<const unsigned char*>(numbers.data()),
                              static_cast<int64_t>(numbers.size())};
    };
    const Array<double> held(static_cast<py::ssize_t>(constants.size()), constants.data());
    const auto shape_of = [](const Array<double>& numbers) {
        return std::vector<int64_t>(numbers.shape(), numbers.shape() + numbers.ndim());
    };
    store("sound.sections", sections, shape_of(sections));
    store("sound.constants", held, shape_of(held));
    store("sound.offset", offset, shape_of(offset));
    store("sound.scale", scale, shape_of(scale));
    try {
        return Cochlea::of_file(file);
    } catch (const FileError& error) {
        throw py::value_error(error.what());
    }
}

// A sound that is heard in chunks; it holds its cochlea.
struct HeldHearing {
    explicit HeldHearing(const Cochlea& of) : cochlea(of), hearing(cochlea) {}
    HeldHearing(const HeldHearing&) = delete;
    HeldHearing& operator=(const HeldHearing&) = delete;

    Cochlea cochlea;
    Hearing hearing;
    StreamMutex mutex;
};

// Hears a chunk. Returns the currents of the frames that it completes, (frames, bands), or their events: the number of
// events up to each frame, (frames + 1,), and the inputs, (events,).
py::object take(HeldHearing& held, const Array<float>& samples) {
    const int64_t count = samples.size();
    const float* at = samples.data();
    if (const int64_t found = first_not_finite(at, count); found >= 0)
        value_error("samples: expected finite numbers, got another at ", found);
    std::vector<float> currents;
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> active;
    {
        const ReleasedGil release;
        const std::lock_guard<StreamMutex> lock(held.mutex);
        for (int64_t left = count; left > 0;) {
            const int64_t taken = held.hearing.take(at, left);
            at += taken, left -= taken;
            if (!held.hearing.complete()) continue;
            currents.insert(currents.end(), held.hearing.currents().begin(), held.hearing.currents().end());
            active.insert(active.end(), held.hearing.active().begin(), held.hearing.active().end());
            offsets.push_back(static_cast<int64_t>(active.size()));
        }
    }
    if (held.cochlea.threshold > 0)
        return py::make_tuple(Array<int64_t>(static_cast<py::ssize_t>(offsets.size()), offsets.data()),
                              Array<int32_t>(static_cast<py::ssize_t>(active.size()), active.data()));
    Array<float> made({static_cast<int64_t>(offsets.size()) - 1, held.cochlea.bands});
    std::copy(currents.begin(), currents.end(), made.mutable_data());
    return std::move(made);
}

void reset(SharedStream& stream) {
    const StreamLock lock(stream.mutex);
    stream.reset();
}

py::bytes save(const SharedStream& stream) {
    std::string state(stream.state_bytes(), '\0');
    {
        const StreamLock lock(stream.mutex);
        stream.save(state.data());
    }
    return py::bytes(state);
}

void restore(SharedStream& stream, const py::bytes& state) {
    const std::string_view view = state;
    const StreamLock lock(stream.mutex);
    stream.restore(view.data(), view.size());
}

LearningTargets targets_of(const Learner& learner, int64_t steps, int64_t batch,
                           const std::optional<Array<int64_t>>& labels, const std::optional<Array<float>>& targets,
                           bool every_step) {
    const int64_t rows = every_step ? steps * batch : batch;
    if ((labels && labels->size() != rows) ||
        (targets && targets->size() != rows * learner.network().readout().classes))
        value_error("targets: expected those of ", rows, " answers");
    return {data_of(labels), data_of(targets), every_step};
}

std::unique_ptr<Learner> make_learner(const Network& network, double rate, double clip_norm, bool readout_alone,
                                      const std::optional<std::vector<std::string>>& classes) {
    LearningSettings settings = {rate, clip_norm, readout_alone, 0, {}};
    if (classes) settings.classes = static_cast<int64_t>(classes->size()), settings.class_names = *classes;
    try {
        return std::make_unique<Learner>(network, settings);
    } catch (const FileError& error) {
        throw py::value_error(error.what());
    }
}

double step_learner(Learner& learner, int64_t steps, int64_t batch, const Array<int64_t>& offsets,
                    const Array<int32_t>& indices, const std::optional<Array<float>>& values,
                    const std::optional<Array<int64_t>>& lengths, const std::optional<Array<int64_t>>& labels,
                    const std::optional<Array<float>>& targets, bool every_step, int threads) {
    const NetworkInput input = batch_of(learner.network().inputs(), steps, batch, offsets, indices, values, lengths);
    const LearningTargets wanted = targets_of(learner, steps, batch, labels, targets, every_step);
    const ReleasedGil release;
    return learner.step(input, wanted, threads);
}

// The loss and, by the names of the file's tensors, the gradients.
py::tuple gradients_of(Learner& learner, int64_t steps, int64_t batch, const Array<int64_t>& offsets,
                       const Array<int32_t>& indices, const std::optional<Array<float>>& values,
                       const std::optional<Array<int64_t>>& lengths, const std::optional<Array<int64_t>>& labels,
                       const std::optional<Array<float>>& targets, bool every_step, int threads) {
    const NetworkInput input = batch_of(learner.network().inputs(), steps, batch, offsets, indices, values, lengths);
    const LearningTargets wanted = targets_of(learner, steps, batch, labels, targets, every_step);
    const Learner::Part& last = learner.parts().back();
    std::vector<float> all(static_cast<size_t>(last.first + last.count));
    double loss = 0;
    {
        const ReleasedGil release;
        loss = learner.gradient(input, wanted, threads, all.data());
    }
    py::dict made;
    for (const Learner::Part& part : learner.parts())
        made[part.name.c_str()] = Array<float>(part.shape, all.data() + part.first);
    return py::make_tuple(loss, made);
}

py::bytes save_learner(const Learner& learner) {
    std::string state(learner.state_bytes(), '\0');
    learner.save(state.data());
    return py::bytes(state);
}

py::bytes bytes_of(const std::vector<unsigned char>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Text of a file, which need not be valid UTF-8.
py::str decoded(const std::string& text) {
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
}

// The sizes (channels, height, width) of the map that a layer's neurons form, or None.
py::object map_of(const NetworkLayer& layer) {
    if (!layer.convolution()) return py::none();
    const Convolution& map = layer.convolution()->of.view();
    return py::make_tuple(map.out_channels, map.out_height, map.out_width);
}

py::list layers_of(const Network& network) {
    py::list made;
    for (const NetworkLayer& layer : network.layers())
        made.append(py::make_tuple(layer.inputs, layer.neurons, layer.lateral(), layer.is_integer(), layer.resonates(),
                                   layer.longest_delay(), map_of(layer)));
    return made;
}

}  // namespace
}  // namespace srcell

void bind_runtime(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<Network>(m, "Network")
        .def(py::init(&read_network), "bytes"_a)
        .def_property_readonly("inputs", &Network::inputs)
        .def_property_readonly("classes", [](const Network& network) { return network.readout().classes; })
        .def_property_readonly("class_names",
                               [](const Network& network) {
                                   py::list made;
                                   for (const std::string& name : network.class_names()) made.append(decoded(name));
                                   return made;
                               })
        .def_property_readonly("layers", &layers_of)
        .def_property_readonly("texts",
                               [](const Network& network) {
                                   py::dict made;
                                   for (const auto& [name, text] : network.texts()) made[decoded(name)] = decoded(text);
                                   return made;
                               })
        .def_property_readonly("nbytes", &Network::bytes)
        .def_property_readonly("file", [](const Network& network) { return bytes_of(*network.file().bytes); })
        .def("run", &run, "steps"_a, "batch"_a, "offsets"_a.noconvert(), "indices"_a.noconvert(),
             "values"_a.noconvert(), "lengths"_a.noconvert(), "wanted"_a, "counts"_a, "every_step"_a, "threads"_a);
    py::class_<Learner>(m, "Learner")
        .def(py::init(&make_learner), "network"_a, "rate"_a, "clip_norm"_a, "readout_alone"_a, "classes"_a)
        .def("step", &step_learner, "steps"_a, "batch"_a, "offsets"_a.noconvert(), "indices"_a.noconvert(),
             "values"_a.noconvert(), "lengths"_a.noconvert(), "labels"_a.noconvert(), "targets"_a.noconvert(),
             "every_step"_a, "threads"_a)
        .def("gradients", &gradients_of, "steps"_a, "batch"_a, "offsets"_a.noconvert(), "indices"_a.noconvert(),
             "values"_a.noconvert(), "lengths"_a.noconvert(), "labels"_a.noconvert(), "targets"_a.noconvert(),
             "every_step"_a, "threads"_a)
        .def_property_readonly("scratch_bytes", &Learner::scratch_bytes)
        .def("file", [](const Learner& learner) { return bytes_of(learner.file()); })
        .def("save", &save_learner)
        .def(
            "restore",
            [](Learner& learner, const py::bytes& state) {
                const std::string_view view = state;
                learner.restore(view.data(), view.size());
            },
            "state"_a);
    py::class_<Cochlea>(m, "Cochlea")
        .def(py::init(&make_cochlea), "sections"_a.noconvert(), "constants"_a, "offset"_a.noconvert(),
             "scale"_a.noconvert());
    py::class_<HeldHearing>(m, "Hearing")
        .def(py::init<const Cochlea&>(), "cochlea"_a)
        .def("take", &take, "samples"_a.noconvert());
    py::class_<SharedStream>(m, "Stream")
        .def(py::init<const Network&, int64_t>(), "network"_a, "batch"_a, py::keep_alive<1, 2>())
        .def("step", &step, "indices"_a.noconvert(), "values"_a.noconvert(), "offsets"_a.noconvert())
        .def("step", &step_wide, "indices"_a.noconvert(), "values"_a.noconvert(), "offsets"_a.noconvert())
        .def("step_dense", &step_dense, "input"_a.noconvert())
        .def("feed", &feed, "values"_a.noconvert())
        .def("hear", &hear, "samples"_a.noconvert())
        .def("logits", &logits)
        .def("reset", &reset)
        .def("save", &save)
        .def("restore", &restore, "state"_a);
}
