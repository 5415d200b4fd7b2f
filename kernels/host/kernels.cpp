// All kernels as one shared library: `g++ -std=c++20 -O2 -shared -fPIC -DROXANNE_HOST -I kernels kernels/host/kernels.cpp -o kernels.so`.
//
// roxanne_host_launch is what cuLaunchKernel is on a device. A file that is not there is left out, so that its entries are unknown.
#include "../common.cuh"
#if __has_include("../nearest.cuh")
#include "../nearest.cuh"
#endif
#include <mutex>
#include <utility>

namespace host {

template <class... A, size_t... I> void call(void (*entry)(A...), void** args, std::index_sequence<I...>) {
    entry(*static_cast<std::remove_cv_t<A>*>(args[I])...);
}
template <class... A> void call(void (*entry)(A...), void** args) { call(entry, args, std::index_sequence_for<A...>{}); }

/// The entries of one file, known to `launch` from when the library is loaded.
struct Table {
    struct Entry {
        const char* name;
        void (*run)(void**);
    };
    const Entry* entries;
    size_t count;
    const Table* next;
    static inline const Table* first = nullptr;

    template <size_t COUNT> explicit Table(const Entry (&list)[COUNT]) : entries(list), count(COUNT), next(first) { first = this; }
};

} // namespace host

#define ENTRY(entry, ...) {#entry, [](void** args) { host::call(entry, args); }},
#define TABLE(...)                                                 \
    static const host::Table::Entry host_entries[] = {__VA_ARGS__}; \
    [[maybe_unused]] static const host::Table host_table(host_entries);

// Each file is a translation unit on a device and a namespace here, so that each may call its parts what it likes.
#if __has_include("../assign.cu")
namespace assign_file {
#include "../assign.cu"
TABLE(ASSIGN_ENTRIES(ENTRY))
} // namespace assign_file
#endif
#if __has_include("../leaf_knn.cu")
namespace leaf_knn_file {
#include "../leaf_knn.cu"
TABLE(LEAF_KNN_ENTRIES(ENTRY))
} // namespace leaf_knn_file
#endif
#if __has_include("../merge.cu")
namespace merge_file {
#include "../merge.cu"
TABLE(ENTRY(merge_count) ENTRY(merge_scatter) ENTRY(merge))
} // namespace merge_file
#endif
#if __has_include("../prune.cu")
namespace prune_file {
#include "../prune.cu"
TABLE(ENTRY(prune_l2) ENTRY(prune_l1) ENTRY(prune_hamming))
} // namespace prune_file
#endif
#if __has_include("../encode.cu")
namespace encode_file {
#include "../encode.cu"
TABLE(ENTRY(encode))
} // namespace encode_file
#endif
#if __has_include("../norms.cu")
namespace norms_file {
#include "../norms.cu"
TABLE(ENTRY(norms))
} // namespace norms_file
#endif
#if __has_include("../scan.cu")
namespace scan_file {
#include "../scan.cu"
TABLE(ENTRY(scan_tiles) ENTRY(scan_sums) ENTRY(scan_apply))
} // namespace scan_file
#endif
#if __has_include("../sort.cu")
namespace sort_file {
#include "../sort.cu"
TABLE(ENTRY(sort_count) ENTRY(sort_scatter))
} // namespace sort_file
#endif
#if __has_include("../groups.cu")
namespace groups_file {
#include "../groups.cu"
TABLE(ENTRY(pick) ENTRY(cell_keys) ENTRY(first_cells) ENTRY(rename) ENTRY(cell_offsets) ENTRY(copy_runs) ENTRY(unique))
} // namespace groups_file
#endif
#if __has_include("../checks.cu")
namespace checks_file {
#include "../checks.cu"
TABLE(ENTRY(check_ids))
} // namespace checks_file
#endif
#if __has_include("../roof.cu")
namespace roof_file {
#include "../roof.cu"
TABLE(ENTRY(roof_int8))
} // namespace roof_file
#endif

namespace host {

static std::mutex launching;
static unsigned long long seed = 0;

enum Code { OK = 0, NO_SUCH_ENTRY = 1, BAD_LAUNCH = 2, FAILED = 3 };

static int launch(const char* name, unsigned long long grid, unsigned block, unsigned shared_bytes, void** args) {
    state.run = nullptr;
    for (const Table* table = Table::first; table; table = table->next) {
        for (size_t i = 0; i < table->count; i++) {
            if (strcmp(table->entries[i].name, name) == 0) state.run = table->entries[i].run;
        }
    }
    if (!state.run) return fail("no kernel is called %s", name), NO_SUCH_ENTRY;
    if (grid > 0x7fffffff || block == 0 || block > MAX_LANES || shared_bytes > MAX_SHARED_BYTES)
        return fail("no device takes a grid of %llu, a block of %u, %u bytes of shared memory", grid, block, shared_bytes), BAD_LAUNCH;
    if (!state.stacks && !(state.stacks = map_stacks(MAX_LANES))) return fail("no memory for %u stacks", MAX_LANES), BAD_LAUNCH;
    state.args = args;
    state.count = block;
    state.permute = seed != 0;
    state.random = seed * 0x9e3779b97f4a7c15ull | 1;
    blockDim = {block, 1, 1};
    gridDim = {static_cast<unsigned>(grid), 1, 1};
    for (unsigned b = 0; b < gridDim.x && !state.failed; b++) {
        blockIdx = {b, 0, 0};
        run_block(shared_bytes);
    }
    return state.failed ? FAILED : OK;
}

} // namespace host

/// The order of lanes and warps in all later launches; 0 is the natural one.
extern "C" __attribute__((visibility("default"))) void roxanne_host_seed(unsigned long long seed) {
    std::lock_guard<std::mutex> lock(host::launching);
    host::seed = seed;
}

/// Runs a kernel to its end. `args[i]` points to the value of argument i, as for cuLaunchKernel. 0, or a code with its text in `message`
/// [message_bytes].
extern "C" __attribute__((visibility("default"))) int roxanne_host_launch(const char* entry, unsigned long long grid, unsigned block,
                                                                          unsigned shared_bytes, void** args, char* message,
                                                                          unsigned long long message_bytes) {
    std::lock_guard<std::mutex> lock(host::launching);
    host::state.failed = false;
    host::state.message[0] = 0;
    int code = host::launch(entry, grid, block, shared_bytes, args);
    if (message && message_bytes > 0) snprintf(message, message_bytes, "%s%s%s", code ? entry : "", code ? ": " : "", host::state.message);
    return code;
}
