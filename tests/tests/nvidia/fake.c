// A libcuda that plays devices on the host. All work is done as late as CUDA allows: it lies in its stream until somebody waits, and then
// only what that wait is for is done. A wait that was forgotten shows as wrong bytes, each time.
//
// Two devices: 0 has compute capability 9.0, 1 has 6.1. One kernel computes, `pick` of kernels/groups.cu; all others do nothing.
// The environment says what is played:
//   FAKE_CUDA_VERSION         of the driver, 12040 unless said
//   FAKE_CUDA_DEVICES         how many there are
//   FAKE_CUDA_FREE_BYTES      free memory of each device
//   FAKE_CUDA_PINNED          how many pieces of host memory may be pinned
//   FAKE_CUDA_LOST_AT_LAUNCH  the launch, from 1 on, that loses the device when it runs
//   FAKE_CUDA_LOST_BY          the code with which it does, 700 unless said
//   FAKE_CUDA_REFUSES_IMAGES  no image is for these devices
//
// When the process ends, stderr hears what was not given back, and what was done that CUDA forbids.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t u32;
typedef uint64_t u64;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT = 201 };
enum { NO_BINARY_FOR_GPU = 209, INVALID_HANDLE = 400, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };

static u64 setting(const char* name, u64 otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

// ---- What lives.

enum { CONTEXTS, MEMORY, PINNED, STREAMS, EVENTS, MODULES, KINDS };
static const char* const kinds[KINDS] = {"contexts", "memory", "pinned", "streams", "events", "modules"};
static long live[KINDS];
static const char* forbidden = "nothing";
static int lost;
static _Thread_local void* current;

// All that needs a context, on a device that is not lost.
#define ENTER() \
    do { \
        if (lost) return lost; \
        if (!current) return INVALID_CONTEXT; \
    } while (0)

__attribute__((destructor)) static void tell(void) {
    // A lost device gives nothing back until its context goes, which takes all with it.
    int gone = lost && live[CONTEXTS] == 0;
    fprintf(stderr, "fake libcuda: left");
    for (int kind = 0; kind < KINDS; kind++) fprintf(stderr, " %s %ld,", kinds[kind], gone ? 0 : live[kind]);
    fprintf(stderr, " forbidden %s\n", forbidden);
}

typedef struct {
    u64 at, bytes;
} Range;
static Range taken[64];

// Host memory of a range of the device; without one the device is lost.
static void* inside(u64 at, u64 bytes) {
    for (int i = 0; i < 64; i++) {
        const Range* range = &taken[i];
        if (range->at && at >= range->at && at + bytes <= range->at + range->bytes) return (void*)at;
    }
    lost = ILLEGAL_ADDRESS;
    return NULL;
}

static u64 free_bytes(void) {
    u64 left = setting("FAKE_CUDA_FREE_BYTES", (u64)8 << 30);
    for (int i = 0; i < 64; i++) left -= taken[i].bytes;
    return left;
}

// ---- Work, and the streams it waits in.

typedef struct Stream Stream;
typedef enum { UP, DOWN, COPY, FILL, PICK, NOTHING, LOSE, AFTER } What;
typedef struct {
    What what;
    u64 args[4];
    Stream* stream;  // AFTER: runs once `args[0]` pieces of work of this one have.
} Work;
struct Stream {
    Work* work;
    u64 queued, done;
};
// Streams are not forgotten when they are destroyed: what was queued on them is still done.
static Stream streams[64];
static int stream_count;

static void run(Stream* stream, u64 end);

static void perform(const Work* work) {
    const u64* a = work->args;
    void *to, *from, *places;
    switch (work->what) {
    case UP:
        if ((to = inside(a[0], a[2]))) memcpy(to, (void*)a[1], a[2]);
        break;
    case DOWN:
        if ((from = inside(a[1], a[2]))) memcpy((void*)a[0], from, a[2]);
        break;
    case COPY:
        if ((to = inside(a[0], a[2])) && (from = inside(a[1], a[2]))) memcpy(to, from, a[2]);
        break;
    case FILL:
        if ((to = inside(a[0], a[2]))) memset(to, (int)a[1], a[2]);
        break;
    case PICK:
        if (!(places = inside(a[1], 8 * a[2])) || !(to = inside(a[3], 4 * a[2]))) break;
        for (u64 i = 0; i < a[2]; i++)
            if ((from = inside(a[0] + 4 * ((u64*)places)[i], 4))) ((u32*)to)[i] = *(u32*)from;
        break;
    case LOSE: lost = (int)setting("FAKE_CUDA_LOST_BY", ILLEGAL_ADDRESS); break;
    case AFTER: run(work->stream, a[0]); break;
    case NOTHING: break;
    }
}

static void run(Stream* stream, u64 end) {
    while (!lost && stream->done < end) perform(&stream->work[stream->done++]);
}

static int queue(Stream* stream, Work work) {
    if (stream->queued % 64 == 0) stream->work = realloc(stream->work, (stream->queued + 64) * sizeof(Work));
    stream->work[stream->queued++] = work;
    return SUCCESS;
}

// The last stream first: nothing but events says which goes before which.
static void run_all(void) {
    for (int i = stream_count; i-- > 0;) run(&streams[i], streams[i].queued);
}

static void must_be_idle(const char* call) {
    for (int i = 0; i < stream_count; i++)
        if (streams[i].done < streams[i].queued) forbidden = call;
    run_all();
}

// ---- The driver and its devices.

int cuDriverGetVersion(int* version) {
    *version = (int)setting("FAKE_CUDA_VERSION", 12040);
    return SUCCESS;
}

int cuDeviceGetCount(int* count) {
    *count = (int)setting("FAKE_CUDA_DEVICES", 2);
    return SUCCESS;
}

int cuInit(u32 flags) {
    int count;
    cuDeviceGetCount(&count);
    return flags ? INVALID_VALUE : count ? SUCCESS : NO_DEVICE;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char* name, int room, int device) {
    snprintf(name, (size_t)room, "Fake %d", device);
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    (void)device;
    *bytes = (size_t)16 << 30;
    return SUCCESS;
}

enum { MULTIPROCESSORS = 16, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, SHARED_BYTES_OPTIN = 97, MOST_SHARED_BYTES = 232448 };

int cuDeviceGetAttribute(int* value, int which, int device) {
    switch (which) {
    case MULTIPROCESSORS: *value = 132; return SUCCESS;
    case CAPABILITY_MAJOR: *value = device ? 6 : 9; return SUCCESS;
    case CAPABILITY_MINOR: *value = device ? 1 : 0; return SUCCESS;
    case SHARED_BYTES_OPTIN: *value = MOST_SHARED_BYTES; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    static char contexts[2];
    if (lost) return lost;
    *context = &contexts[device];
    live[CONTEXTS]++;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    live[CONTEXTS]--;
    return SUCCESS;
}

int cuCtxSetCurrent(void* context) {
    current = context;
    return context ? lost : SUCCESS;
}

int cuCtxSynchronize(void) {
    ENTER();
    run_all();
    return lost;
}

int cuGetErrorName(int code, const char** name) {
    *name = code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR";
    return SUCCESS;
}

int cuGetErrorString(int code, const char** text) {
    *text = code == NO_BINARY_FOR_GPU ? "no kernel image is available for execution on the device" : "so says the fake";
    return SUCCESS;
}

// ---- Memory.

int cuMemGetInfo_v2(size_t* left, size_t* all) {
    ENTER();
    *left = free_bytes();
    return cuDeviceTotalMem_v2(all, 0);
}

int cuMemAlloc_v2(u64* at, size_t bytes) {
    ENTER();
    if (!bytes) return INVALID_VALUE;
    if (bytes > free_bytes()) return OUT_OF_MEMORY;
    for (int i = 0; i < 64; i++) {
        if (taken[i].at) continue;
        *at = (u64)aligned_alloc(256, (bytes + 255) / 256 * 256);
        if (!*at) return OUT_OF_MEMORY;
        taken[i] = (Range){*at, bytes};
        live[MEMORY]++;
        return SUCCESS;
    }
    return OUT_OF_MEMORY;
}

int cuMemFree_v2(u64 at) {
    ENTER();
    must_be_idle("cuMemFree under work");
    for (int i = 0; i < 64; i++) {
        if (!at || taken[i].at != at) continue;
        free((void*)at);
        taken[i] = (Range){0, 0};
        live[MEMORY]--;
        return SUCCESS;
    }
    forbidden = "cuMemFree of what was not taken";
    return INVALID_VALUE;
}

int cuMemHostAlloc(void** memory, size_t bytes, u32 flags) {
    ENTER();
    (void)flags;
    if ((u64)live[PINNED] == setting("FAKE_CUDA_PINNED", 64)) return OUT_OF_MEMORY;
    *memory = malloc(bytes);
    live[PINNED]++;
    return SUCCESS;
}

int cuMemFreeHost(void* memory) {
    ENTER();
    must_be_idle("cuMemFreeHost under work");
    free(memory);
    live[PINNED]--;
    return SUCCESS;
}

// ---- Streams and events.

enum { STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2 };

int cuStreamCreate(Stream** stream, u32 flags) {
    ENTER();
    if (flags != STREAM_NON_BLOCKING || stream_count == 64) return INVALID_VALUE;
    *stream = &streams[stream_count++];
    live[STREAMS]++;
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream* stream) {
    ENTER();
    (void)stream;
    live[STREAMS]--;
    return SUCCESS;
}

typedef struct {
    u32 flags;
    Stream* stream;  // Where it was recorded, and behind how much work.
    u64 behind;
} Event;

int cuEventCreate(Event** event, u32 flags) {
    ENTER();
    *event = calloc(1, sizeof(Event));
    (*event)->flags = flags;
    live[EVENTS]++;
    return SUCCESS;
}

int cuEventDestroy_v2(Event* event) {
    ENTER();
    free(event);
    live[EVENTS]--;
    return SUCCESS;
}

int cuEventRecord(Event* event, Stream* stream) {
    ENTER();
    event->stream = stream;
    event->behind = stream->queued;
    return SUCCESS;
}

int cuEventSynchronize(Event* event) {
    ENTER();
    if (event->stream) run(event->stream, event->behind);
    return lost;
}

int cuEventElapsedTime(float* milliseconds, const Event* begun, const Event* ended) {
    ENTER();
    if ((begun->flags | ended->flags) & EVENT_DISABLE_TIMING || !begun->stream || !ended->stream) return INVALID_HANDLE;
    if (begun->stream->done < begun->behind || ended->stream->done < ended->behind) return NOT_READY;
    *milliseconds = 1500;
    return SUCCESS;
}

int cuStreamWaitEvent(Stream* stream, const Event* event, u32 flags) {
    ENTER();
    (void)flags;
    return event->stream ? queue(stream, (Work){AFTER, {event->behind}, event->stream}) : SUCCESS;
}

// ---- What is queued.

int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, Stream* stream) {
    ENTER();
    return queue(stream, (Work){UP, {to, (u64)from, bytes}, NULL});
}

int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, Stream* stream) {
    ENTER();
    return queue(stream, (Work){DOWN, {(u64)to, from, bytes}, NULL});
}

int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, Stream* stream) {
    ENTER();
    return queue(stream, (Work){COPY, {to, from, bytes}, NULL});
}

int cuMemsetD8Async(u64 at, unsigned char byte, size_t bytes, Stream* stream) {
    ENTER();
    return queue(stream, (Work){FILL, {at, byte, bytes}, NULL});
}

typedef struct {
    int picks, shared_bytes;
} Function;

int cuModuleLoadData(void** module, const char* image) {
    static char loaded;
    ENTER();
    if (memcmp(image, "\177ELF", 4) != 0) return INVALID_IMAGE;
    if (setting("FAKE_CUDA_REFUSES_IMAGES", 0)) return NO_BINARY_FOR_GPU;
    *module = &loaded;
    live[MODULES]++;
    return SUCCESS;
}

int cuModuleUnload(void* module) {
    ENTER();
    (void)module;
    live[MODULES]--;
    return SUCCESS;
}

int cuModuleGetFunction(Function** function, void* module, const char* name) {
    static Function functions[64];
    static int count;
    ENTER();
    (void)module;
    if (count == 64) return OUT_OF_MEMORY;
    functions[count] = (Function){!strcmp(name, "pick"), 48 << 10};
    *function = &functions[count++];
    return SUCCESS;
}

enum { MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };

int cuFuncGetAttribute(int* value, int which, const Function* function) {
    *value = function->shared_bytes;
    return which == MAX_DYNAMIC_SHARED_SIZE_BYTES ? SUCCESS : INVALID_VALUE;
}

int cuFuncSetAttribute(Function* function, int which, int value) {
    if (which != MAX_DYNAMIC_SHARED_SIZE_BYTES || value > MOST_SHARED_BYTES) return INVALID_VALUE;
    function->shared_bytes = value;
    return SUCCESS;
}

int cuLaunchKernel(const Function* function, u32 grid_x, u32 grid_y, u32 grid_z, u32 block_x, u32 block_y, u32 block_z, u32 shared_bytes,
                   Stream* stream, void** args, void** extra) {
    static u64 launches;
    ENTER();
    int shape = grid_x && grid_y == 1 && grid_z == 1 && block_x && block_x <= 1024 && block_y == 1 && block_z == 1;
    if (!shape || shared_bytes > (u32)function->shared_bytes || extra) return INVALID_VALUE;
    Work work = {function->picks ? PICK : NOTHING, {0}, NULL};
    for (int i = 0; function->picks && i < 4; i++) work.args[i] = *(u64*)args[i];
    if (++launches == setting("FAKE_CUDA_LOST_AT_LAUNCH", 0)) work.what = LOSE;
    return queue(stream, work);
}
