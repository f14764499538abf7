// What the operating system gives: pages of memory, files, threads, mutual exclusion. The .cpp files beside this header
// implement it (CMakeLists.txt chooses those of a system), and nothing else in csrc calls a system or looks for its
// libraries, but for bindings/gil.c. Knows no kernel, and not what memory and threads are for.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__wasm__)
#include <mutex>
#endif

namespace srcell {

// Memory comes in pages of this size, and is aligned to it. On Linux these are huge pages: the first touch of fresh
// pages costs more than a forward pass over them.
#if defined(__wasm__) || defined(_WIN32)
constexpr size_t kPage = size_t(64) << 10;
#else
constexpr size_t kPage = size_t(2) << 20;
#endif

// `bytes`, a multiple of kPage, of uninitialised memory, or null.
void* map_pages(size_t bytes);
void unmap_pages(void* pages, size_t bytes);
// Until they are written again, the system may take the pages and with them what is in them.
void lend_pages(void* pages, size_t bytes);

#if defined(__wasm__)
// There is one thread.
struct Mutex {
    void lock() {}
    bool try_lock() { return true; }
    void unlock() {}
};
#else
using Mutex = std::mutex;
#endif

// Replaces `bytes` by those of a file. Returns null, or why they cannot be read.
const char* read_file(const char* path, std::vector<unsigned char>& bytes);

// Calls work(data) on `threads` threads, the caller's among them, and returns when all are done. If the system allows
// no more, on fewer, so `work` must share out what there is to do.
//
// On Linux they are those of the OpenMP runtime that torch has already loaded, found in the running process: a second
// pool would compete for the cores with torch's idle workers, which spin. If no runtime is loaded, in a forked child
// (where an OpenMP runtime may hang), and if the environment's SRCELL_THREADS is "std", they are those of pool.h.
void run_on_threads(int threads, void (*work)(void* data), void* data);

// Where they come from: "openmp", "std", or "none" if there is only the caller's.
const char* thread_runtime();

}  // namespace srcell
