// A pool of threads behind one mutex. A call asks for helpers and works itself; helpers that have not started when the
// call is done are withdrawn. So calls from several threads, also nested ones, cannot deadlock.
#include "pool.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <thread>

#include "platform.h"

namespace srcell {
namespace {

// One call: `wanted` helpers have not started yet, `busy` are at work.
struct Call {
    void (*work)(void*);
    void* data;
    int wanted, busy = 0;
    std::condition_variable done;
};

struct Pool {
    std::mutex mutex;
    std::condition_variable called;
    std::list<Call*> calls;  // those that want helpers
    int idle = 0;            // threads that wait, or are about to wait

    void help() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            called.wait(lock, [&] { return !calls.empty(); });
            --idle;
            Call& call = *calls.front();
            if (--call.wanted == 0) calls.pop_front();
            ++call.busy;
            lock.unlock();
            call.work(call.data);
            lock.lock();
            ++idle;
            if (--call.busy == 0) call.done.notify_one();
        }
    }

    // Starts threads until there is one for each wanted helper, as far as the system allows.
    void grow() {
        int wanted = 0;
        for (const Call* call : calls) wanted += call->wanted;
        try {
            for (; idle < wanted; ++idle) std::thread([this] { help(); }).detach();
        } catch (const std::exception&) {
            // The system allows no more threads: the existing ones do the work.
        }
    }

    void run(int helpers, void (*work)(void*), void* data) {
        Call call = {work, data, helpers, 0, {}};
        std::unique_lock<std::mutex> lock(mutex);
        calls.push_back(&call);
        grow();
        lock.unlock();
        for (int k = 0; k < helpers; ++k) called.notify_one();
        work(data);
        lock.lock();
        if (call.wanted) calls.remove(&call);
        call.done.wait(lock, [&] { return call.busy == 0; });
    }
};

// Never destroyed: its threads run until the process ends. Null again in a forked child, which has none of them.
std::atomic<Pool*> pool{nullptr};
std::atomic<int> forked{0};

Pool& here() {
    forks();
    if (Pool* found = pool) return *found;
    Pool* const made = new Pool;
    Pool* found = nullptr;
    if (pool.compare_exchange_strong(found, made)) return *made;
    delete made;
    return *found;
}

}  // namespace

void run_on_pool(int threads, void (*work)(void*), void* data) {
    if (threads < 2) return work(data);
    here().run(threads - 1, work, data);
}

int forks() {
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, [] {
        ++forked;
        pool = nullptr;
    });
    (void)registered;
#endif
    return forked;
}

}  // namespace srcell
