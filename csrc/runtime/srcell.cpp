// Implements the C interface, srcell.h: turns exceptions into error codes and a line of text. Knows nothing about
// kernels.
#include "srcell.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../platform/platform.h"
#include "camera.h"
#include "encoding.h"
#include "learner.h"
#include "network.h"

struct srcell_network {
    srcell::Network network;
};

struct srcell_stream {
    srcell::Stream stream;
};

struct srcell_learner {
    srcell::Learner learner;
};

namespace {

thread_local char last_error[256] = "";

srcell_status fail(srcell_status status, const char* text) {
    std::strncpy(last_error, text, sizeof last_error - 1);
    return status;
}

// Runs `call` and turns an exception into an error code.
template <class Call>
srcell_status guarded(Call call) {
    try {
        call();
        return SRCELL_OK;
    } catch (const srcell::FileError& error) {
        return fail(SRCELL_BAD_FILE, error.what());
    } catch (const std::invalid_argument& error) {
        return fail(SRCELL_BAD_ARGUMENT, error.what());
    } catch (const std::exception&) {
        return fail(SRCELL_NO_MEMORY, "no memory left");
    }
}

template <class T>
void require(const T* pointer, const char* name) {
    if (!pointer) throw std::invalid_argument(std::string(name) + ": expected a pointer, got null");
}

void check_room(int64_t events, int64_t room) {
    if (events > room)
        throw std::invalid_argument("room: expected at least " + std::to_string(events) + ", got " +
                                    std::to_string(room));
}

void check_size(size_t size, size_t expected) {
    if (size != expected) throw std::invalid_argument("size: expected " + std::to_string(expected));
}

srcell_network* network_of(std::vector<unsigned char> bytes) {
    return new srcell_network{srcell::Network(srcell::TensorFile::parse(std::move(bytes)))};
}

srcell_status learn(srcell_learner* learner, int64_t steps, int64_t batch, const int64_t* offsets,
                    const int32_t* indices, const float* values, const int64_t* lengths, const char* wanted,
                    const srcell::LearningTargets& targets, int threads, double* loss) {
    return guarded([&] {
        require(learner, "learner");
        require(offsets, "offsets");
        require(targets.labels ? static_cast<const void*>(targets.labels) : targets.values, wanted);
        const int64_t count = srcell::read_once(offsets + srcell::count_rows(steps, batch));
        if (count) require(indices, "indices");
        const srcell::NetworkInput input = {
            steps, batch, {offsets, indices, values, count, learner->learner.network().inputs()}, lengths};
        const double made = learner->learner.step(input, targets, threads);
        if (loss) *loss = made;
    });
}

// The layer of this number, or null.
const srcell::NetworkLayer* find_layer(const srcell::Network& network, int64_t layer) {
    const auto& layers = network.layers();
    return layer >= 0 && layer < static_cast<int64_t>(layers.size()) ? &layers[static_cast<size_t>(layer)] : nullptr;
}

const srcell::NetworkLayer* find_layer(const srcell_network* network, int64_t layer) {
    return network ? find_layer(network->network, layer) : nullptr;
}

const srcell::NetworkLayer& layer_of(const srcell::Stream& stream, int64_t layer) {
    const auto* found = find_layer(stream.network(), layer);
    if (!found)
        throw std::invalid_argument("layer: expected a number from 0 to " +
                                    std::to_string(stream.network().layers().size() - 1) + ", got " +
                                    std::to_string(layer));
    return *found;
}

}  // namespace

const char* srcell_error(void) { return last_error; }

const char* srcell_version(void) { return SRCELL_VERSION; }

srcell_status srcell_network_load(const char* path, srcell_network** network) {
    if (network) *network = nullptr;
    return guarded([&] {
        require(path, "path");
        require(network, "network");
        std::vector<unsigned char> bytes;
        if (const char* fault = srcell::read_file(path, bytes)) throw srcell::FileError(fault);
        *network = network_of(std::move(bytes));
    });
}

srcell_status srcell_network_read(const void* bytes, size_t size, srcell_network** network) {
    if (network) *network = nullptr;
    return guarded([&] {
        require(bytes, "bytes");
        require(network, "network");
        const auto* const first = static_cast<const unsigned char*>(bytes);
        *network = network_of({first, first + size});
    });
}

void srcell_network_free(srcell_network* network) { delete network; }

int64_t srcell_network_inputs(const srcell_network* network) { return network ? network->network.inputs() : -1; }
int64_t srcell_network_outputs(const srcell_network* network) { return network ? network->network.outputs() : -1; }
int64_t srcell_network_classes(const srcell_network* network) {
    return network ? network->network.readout().classes : -1;
}
int64_t srcell_network_layers(const srcell_network* network) {
    return network ? static_cast<int64_t>(network->network.layers().size()) : -1;
}
int64_t srcell_network_neurons(const srcell_network* network, int64_t layer) {
    const auto* found = find_layer(network, layer);
    return found ? found->neurons : -1;
}

int srcell_network_resonates(const srcell_network* network, int64_t layer) {
    const auto* found = find_layer(network, layer);
    return found ? int{found->resonates()} : -1;
}

int64_t srcell_network_delay(const srcell_network* network, int64_t layer) {
    const auto* found = find_layer(network, layer);
    return found ? found->longest_delay() : -1;
}

const char* srcell_network_text(const srcell_network* network, const char* name) {
    if (!network || !name) return nullptr;
    const auto found = network->network.texts().find(name);
    return found == network->network.texts().end() ? nullptr : found->second.c_str();
}

const char* srcell_network_class_name(const srcell_network* network, int64_t label) {
    if (!network) return nullptr;
    const std::vector<std::string>& names = network->network.class_names();
    return label < 0 || label >= static_cast<int64_t>(names.size()) ? nullptr
                                                                    : names[static_cast<size_t>(label)].c_str();
}

srcell_status srcell_network_run(const srcell_network* network, int64_t steps, int64_t batch, const int64_t* offsets,
                                 const int32_t* indices, const float* values, const int64_t* lengths, float* logits,
                                 float* spikes, int threads) {
    return guarded([&] {
        require(network, "network");
        require(offsets, "offsets");
        const int64_t count = srcell::read_once(offsets + srcell::count_rows(steps, batch));
        if (count) require(indices, "indices");
        const srcell::Network& run = network->network;
        std::vector<float*> written(run.layers().size());
        written.back() = spikes;
        run.run({steps, batch, {offsets, indices, values, count, run.inputs()}, lengths},
                {logits, written.data(), nullptr, nullptr}, threads);
    });
}

srcell_status srcell_stream_new(const srcell_network* network, int64_t batch, srcell_stream** stream) {
    if (stream) *stream = nullptr;
    return guarded([&] {
        require(network, "network");
        require(stream, "stream");
        *stream = new srcell_stream{srcell::Stream(network->network, batch)};
    });
}

void srcell_stream_free(srcell_stream* stream) { delete stream; }

srcell_status srcell_stream_step(srcell_stream* stream, const int32_t* indices, const float* values, int64_t count) {
    return guarded([&] {
        require(stream, "stream");
        if (count) require(indices, "indices");
        if (count < 0) throw std::invalid_argument("count: expected at least 0");
        if (stream->stream.batch() != 1) throw std::invalid_argument("stream: expected a stream of one sample");
        const int64_t offsets[] = {0, count};
        stream->stream.step(offsets, indices, values, count);
    });
}

srcell_status srcell_stream_step_rows(srcell_stream* stream, const int64_t* offsets, const int32_t* indices,
                                      const float* values) {
    return guarded([&] {
        require(stream, "stream");
        require(offsets, "offsets");
        const int64_t count = srcell::read_once(offsets + stream->stream.batch());
        if (count) require(indices, "indices");
        stream->stream.step(offsets, indices, values, count);
    });
}

srcell_status srcell_stream_step_dense(srcell_stream* stream, const float* input) {
    return guarded([&] {
        require(stream, "stream");
        require(input, "input");
        stream->stream.step_dense(input);
    });
}

srcell_status srcell_stream_feed(srcell_stream* stream, const float* values, int64_t* steps) {
    return guarded([&] {
        require(stream, "stream");
        require(values, "values");
        const int64_t taken = stream->stream.feed(values);
        if (steps) *steps = taken;
    });
}

srcell_status srcell_stream_hear(srcell_stream* stream, const float* samples, int64_t count, int64_t* steps) {
    return guarded([&] {
        require(stream, "stream");
        if (count < 0) throw std::invalid_argument("count: expected at least 0");
        if (count) require(samples, "samples");
        const int64_t taken = stream->stream.hear(samples, count);
        if (steps) *steps = taken;
    });
}

const float* srcell_stream_spikes(const srcell_stream* stream) {
    return stream ? stream->stream.spikes(stream->stream.network().layers().size() - 1) : nullptr;
}

srcell_status srcell_stream_values(const srcell_stream* stream, int64_t layer, float* values) {
    return guarded([&] {
        require(stream, "stream");
        require(values, "values");
        layer_of(stream->stream, layer);
        stream->stream.values(static_cast<size_t>(layer), values);
    });
}

srcell_status srcell_stream_quadrature(const srcell_stream* stream, int64_t layer, float* q) {
    return guarded([&] {
        require(stream, "stream");
        require(q, "q");
        if (!layer_of(stream->stream, layer).resonates())
            throw std::invalid_argument("layer: expected a layer that resonates, got layer " + std::to_string(layer));
        stream->stream.quadrature(static_cast<size_t>(layer), q);
    });
}

srcell_status srcell_stream_logits(const srcell_stream* stream, float* logits) {
    return guarded([&] {
        require(stream, "stream");
        require(logits, "logits");
        stream->stream.logits(logits);
    });
}

srcell_status srcell_stream_reset(srcell_stream* stream) {
    return guarded([&] {
        require(stream, "stream");
        stream->stream.reset();
    });
}

size_t srcell_stream_state_size(const srcell_stream* stream) { return stream ? stream->stream.state_bytes() : 0; }

srcell_status srcell_stream_save(const srcell_stream* stream, void* state, size_t size) {
    return guarded([&] {
        require(stream, "stream");
        require(state, "state");
        check_size(size, stream->stream.state_bytes());
        stream->stream.save(state);
    });
}

srcell_status srcell_stream_restore(srcell_stream* stream, const void* state, size_t size) {
    return guarded([&] {
        require(stream, "stream");
        require(state, "state");
        stream->stream.restore(state, size);
    });
}

size_t srcell_network_size(const srcell_network* network) {
    return network ? network->network.file().bytes->size() : 0;
}

srcell_status srcell_network_bytes(const srcell_network* network, void* bytes, size_t size) {
    return guarded([&] {
        require(network, "network");
        require(bytes, "bytes");
        const auto& own = *network->network.file().bytes;
        check_size(size, own.size());
        std::memcpy(bytes, own.data(), size);
    });
}

#if !defined(__wasm__)
srcell_status srcell_network_write(const srcell_network* network, const char* path) {
    const char* fault = nullptr;
    const srcell_status status = guarded([&] {
        require(network, "network");
        require(path, "path");
        const auto& own = *network->network.file().bytes;
        fault = srcell::write_file(path, own.data(), own.size());
    });
    return fault ? fail(SRCELL_NOT_WRITTEN, fault) : status;
}
#endif

srcell_status srcell_learner_new(const srcell_network* network, const srcell_learning* settings,
                                 srcell_learner** learner) {
    if (learner) *learner = nullptr;
    return guarded([&] {
        require(network, "network");
        require(settings, "settings");
        require(learner, "learner");
        srcell::LearningSettings made = {
            settings->rate, settings->clip_norm, settings->readout_alone != 0, settings->classes, {}};
        for (int64_t c = 0; settings->class_names && c < settings->classes; ++c) {
            require(settings->class_names[c], "class_names");
            made.class_names.emplace_back(settings->class_names[c]);
        }
        *learner = new srcell_learner{srcell::Learner(network->network, made)};
    });
}

void srcell_learner_free(srcell_learner* learner) { delete learner; }

srcell_status srcell_learner_step(srcell_learner* learner, int64_t steps, int64_t batch, const int64_t* offsets,
                                  const int32_t* indices, const float* values, const int64_t* lengths,
                                  const int64_t* labels, int every_step, int threads, double* loss) {
    return learn(learner, steps, batch, offsets, indices, values, lengths, "labels", {labels, nullptr, every_step != 0},
                 threads, loss);
}

srcell_status srcell_learner_step_values(srcell_learner* learner, int64_t steps, int64_t batch, const int64_t* offsets,
                                         const int32_t* indices, const float* values, const int64_t* lengths,
                                         const float* targets, int every_step, int threads, double* loss) {
    return learn(learner, steps, batch, offsets, indices, values, lengths, "targets",
                 {nullptr, targets, every_step != 0}, threads, loss);
}

srcell_status srcell_learner_network(const srcell_learner* learner, srcell_network** network) {
    if (network) *network = nullptr;
    return guarded([&] {
        require(learner, "learner");
        require(network, "network");
        *network = network_of(learner->learner.file());
    });
}

size_t srcell_learner_state_size(const srcell_learner* learner) { return learner ? learner->learner.state_bytes() : 0; }

srcell_status srcell_learner_save(const srcell_learner* learner, void* state, size_t size) {
    return guarded([&] {
        require(learner, "learner");
        require(state, "state");
        check_size(size, learner->learner.state_bytes());
        learner->learner.save(state);
    });
}

srcell_status srcell_learner_restore(srcell_learner* learner, const void* state, size_t size) {
    return guarded([&] {
        require(learner, "learner");
        require(state, "state");
        learner->learner.restore(state, size);
    });
}

srcell_status srcell_encode_rate(const srcell_rate* settings, int64_t batch, int64_t inputs, const float* images,
                                 const int64_t* index, int64_t* offsets, int32_t* indices, int64_t room) {
    return guarded([&] {
        require(settings, "settings");
        require(offsets, "offsets");
        if (batch) require(images, "images");
        if (room) require(indices, "indices");
        const srcell::RateSettings rate = {settings->steps, settings->prefix, settings->gain, settings->thinned != 0,
                                           settings->seed};
        const int64_t events = srcell::encode_rate(rate, batch, inputs, images, index, offsets, indices, room);
        check_room(events, room);
    });
}

srcell_status srcell_encode_camera(const srcell_camera* settings, int64_t batch, int64_t height, int64_t width,
                                   const float* pictures, const int64_t* index, int64_t* offsets, int32_t* indices,
                                   int64_t room) {
    return guarded([&] {
        require(settings, "settings");
        require(settings->movement, "movement");
        require(offsets, "offsets");
        if (batch) require(pictures, "pictures");
        if (room) require(indices, "indices");
        const srcell::CameraSettings sensor = {settings->height, settings->width,      settings->rise,  settings->fall,
                                               settings->spread, settings->refractory, settings->noise, settings->seed};
        srcell::Recording recording(sensor, batch, settings->steps, index, 1);
        recording.draw(
            pictures, height, width,
            {settings->blur, settings->size_jitter, settings->place_jitter, settings->points, settings->movement});
        std::copy_n(recording.offsets(), batch * settings->steps + 1, offsets);
        check_room(recording.events(), room);
        recording.write(indices);
    });
}
