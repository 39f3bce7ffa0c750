// Runs CUDA kernels on a CPU, to test their source where there is no GPU. Stands in for src/kernels/cuda/device.cuh: the same names, executed by threads that
// take turns on one core, with every access to memory checked.
//
// What it does: blocks one after the other; the threads of a block as fibers that switch at __syncthreads, __syncwarp, shuffles, votes, ldmatrix and mma;
// mma.sync.m16n8k16 on the fragments of the PTX manual ("Matrix Fragments for mma.m16n8k16 with floating point type"), sums in f32.
//
// What it reports, with the kernel, the thread and the line, and ends the launch:
//   - a global access outside every buffer handed to the launch, a shared access outside its array, a vector access that is not aligned;
//   - a read of memory that nobody wrote, or whose asynchronous copy was not waited for;
//   - two threads at the same place without a barrier between them, one of them writing (also between blocks);
//   - threads of a block at different barriers, threads of a warp at different collective operations;
//   - arguments whose number or size is not that of the kernel, shared memory beyond what the launch gives.
//
// What it cannot: caches and weak ordering, timing, bank conflicts, the rounding inside a tensor core (which keeps fewer bits of its partial sums than f32),
// approximate instructions. Nothing measured here says how fast a GPU is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define DEVICE inline
#define KERNEL static void
#define EXPORT(name) static const emulate::Registered registered_##name(#name, emulate::invoker(name));
#define __launch_bounds__(...)
#define RESTRICT

struct Dim {
    unsigned x, y, z;
};

namespace emulate {

struct Fault {
    std::string what;
};

// ---- memory -------------------------------------------------------------------------------------------------------------------------------------------

constexpr uint32_t NOBODY = 0xffffffff;
constexpr uint32_t SEVERAL = 0xfffffffe;

// Who touched a place last: its thread, block, warp, and the barriers passed by then.
struct Touch {
    uint32_t thread = NOBODY, warp = NOBODY, block = NOBODY;
    uint32_t block_epoch = 0, warp_epoch = 0;
    bool atomic = false;
};

// The state of two bytes, the smallest thing that kernels handle.
struct Cell {
    Touch writer, reader;
    bool written = false;  // holds a value
    uint32_t pending = 0;  // number of the asynchronous copy on its way, 0 without
};
constexpr size_t GRAIN = 2;

struct Region {
    char* base;
    size_t bytes;
    std::string name;
    std::vector<Cell> cells;
    bool shared;
};

enum class Wait { None, Block, Warp, Done };

struct Thread {
    void* stack_pointer = nullptr;
#if !defined(__x86_64__)
    ucontext_t context;
#endif
    std::vector<char> stack;
    Dim index{};
    uint32_t linear = 0, warp = 0, lane = 0;
    uint32_t warp_epoch = 0;
    Wait wait = Wait::None;
    const char* operation = "";
    int line = 0;
    uint32_t mask = 0;
    void* data = nullptr;
    uint32_t copies = 0, committed = 0;
    struct Copy {
        size_t first, last;
        uint32_t group;
    };
    std::vector<Copy> on_their_way;
};

struct Machine {
    std::vector<std::unique_ptr<Region>> global;
    Region shared_memory;
    size_t shared_used = 0;
    Dim grid{}, block{}, block_index{};
    uint32_t block_number = 0, block_epoch = 0;
    std::vector<Thread> threads;
    Thread* current = nullptr;
    void* scheduler = nullptr;
#if !defined(__x86_64__)
    ucontext_t scheduler_context;
#endif
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    std::string kernel, fault;
    uint64_t launches = 0;
};

inline Machine& machine() {
    static thread_local Machine one;
    return one;
}

[[noreturn]] inline void fail(const std::string& what) {
    Machine& m = machine();
    std::string where = m.kernel;
    if (m.current != nullptr) {
        where += ", block " + std::to_string(m.block_number) + ", thread " + std::to_string(m.current->linear);
    }
    throw Fault{where + ": " + what};
}

inline Touch now(bool atomic) {
    const Machine& m = machine();
    const Thread& t = *m.current;
    return {t.linear, t.warp, m.block_number, m.block_epoch, t.warp_epoch, atomic};
}

// Whether what `earlier` did is over for the current thread.
inline bool ordered(const Touch& earlier, const Touch& current) {
    if (earlier.thread == NOBODY) return true;
    if (earlier.block != current.block) return false;
    if (earlier.thread == current.thread) return true;
    if (earlier.block_epoch < current.block_epoch) return true;
    return earlier.warp == current.warp && earlier.warp_epoch < current.warp_epoch;
}

enum class Access { Read, Write, Atomic };

inline std::string place(const Region& region, size_t offset) {
    return region.name + " at byte " + std::to_string(offset) + " of " + std::to_string(region.bytes);
}

inline void touch(Region& region, size_t offset, size_t bytes, Access access) {
    const Touch me = now(access == Access::Atomic);
    for (size_t i = offset / GRAIN; i < (offset + bytes + GRAIN - 1) / GRAIN; i++) {
        Cell& cell = region.cells[i];
        if (cell.pending != 0) fail("an asynchronous copy is not waited for: " + place(region, i * GRAIN));
        const bool both_atomic = cell.writer.atomic && me.atomic;
        if (!both_atomic && !ordered(cell.writer, me)) fail("no barrier between a write and this access: " + place(region, i * GRAIN));
        if (access != Access::Write && !cell.written) fail("a read of what nobody wrote: " + place(region, i * GRAIN));
        if (access == Access::Read) {
            // Of several readers in one epoch only that there are several is kept.
            const bool joins = cell.reader.thread != NOBODY && cell.reader.thread != me.thread && cell.reader.block == me.block &&
                               cell.reader.block_epoch == me.block_epoch;
            const bool same_warp = cell.reader.warp == me.warp && cell.reader.warp_epoch == me.warp_epoch;
            const bool blocks = cell.reader.thread != NOBODY && cell.reader.block != me.block;
            cell.reader = me;
            if (joins) cell.reader.thread = SEVERAL;
            if (joins && !same_warp) cell.reader.warp = SEVERAL;
            if (blocks) cell.reader.block = SEVERAL;
            continue;
        }
        if (!both_atomic && !ordered(cell.reader, me)) fail("no barrier between a read and this write: " + place(region, i * GRAIN));
        cell.writer = me;
        cell.written = true;
    }
}

inline Region& global_region(const void* p, size_t bytes) {
    static thread_local Region* last = nullptr;
    static thread_local uint64_t launch = 0;
    Machine& m = machine();
    const char* at = static_cast<const char*>(p);
    auto holds = [&](const Region& r) { return at >= r.base && at + bytes <= r.base + r.bytes; };
    if (launch == m.launches && last != nullptr && holds(*last)) return *last;
    for (auto& region : m.global) {
        if (holds(*region)) {
            launch = m.launches;
            return *(last = region.get());
        }
    }
    // The nearest buffer helps to find the mistake.
    const Region* nearest = nullptr;
    long best = 0;
    for (auto& region : m.global) {
        const long distance = std::min(std::labs(at - region->base), std::labs(at - (region->base + region->bytes)));
        if (nearest == nullptr || distance < best) nearest = region.get(), best = distance;
    }
    std::string what = "outside every buffer";
    if (nearest != nullptr) what += "; nearest is " + nearest->name + " of " + std::to_string(nearest->bytes) + " bytes, here " + std::to_string(at - nearest->base);
    fail(what);
}

inline void aligned(const void* p, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) fail("a vector access that is not aligned to " + std::to_string(bytes) + " bytes");
}

inline void touch_global(const void* p, size_t bytes, Access access) {
    Region& region = global_region(p, bytes);
    touch(region, static_cast<const char*>(p) - region.base, bytes, access);
}

template <class P, class T>
struct Reference {
    P pointer;
    operator T() const { return pointer.read(); }
    Reference& operator=(T value) {
        pointer.write(value);
        return *this;
    }
    Reference& operator=(const Reference& other) { return *this = static_cast<T>(other); }
    Reference& operator+=(T value) { return *this = static_cast<T>(*this) + value; }
    Reference& operator*=(T value) { return *this = static_cast<T>(*this) * value; }
};

}  // namespace emulate

// A pointer to global memory: eight bytes, as the kernel's argument is.
template <class T>
class Global {
    T* at;

public:
    Global() = default;
    Global(T* p) : at(p) {}
    operator Global<const T>() const { return Global<const T>(at); }
    T* raw() const { return at; }
    explicit operator bool() const { return at != nullptr; }
    Global operator+(ptrdiff_t i) const { return Global(at + i); }
    std::remove_const_t<T> read() const {
        emulate::touch_global(at, sizeof(T), emulate::Access::Read);
        return *at;
    }
    void write(std::remove_const_t<T> value) const {
        emulate::touch_global(at, sizeof(T), emulate::Access::Write);
        *const_cast<std::remove_const_t<T>*>(at) = value;
    }
    auto operator[](ptrdiff_t i) const {
        if constexpr (std::is_const_v<T>) {
            return (*this + i).read();
        } else {
            return emulate::Reference<Global, T>{*this + i};
        }
    }
};

// A pointer into one array in shared memory.
template <class T>
class Shared {
    size_t first, last;  // bytes of the array in the block's shared memory
    ptrdiff_t offset;    // bytes into it

public:
    Shared(size_t first, size_t last, ptrdiff_t offset = 0) : first(first), last(last), offset(offset) {}
    Shared operator+(ptrdiff_t i) const { return Shared(first, last, offset + i * (ptrdiff_t)sizeof(T)); }
    template <class U>
    Shared<U> as() const {
        return Shared<U>(first, last, offset);
    }
    size_t locate(size_t bytes) const {
        if (offset < 0 || first + offset + bytes > last) {
            emulate::fail("outside a shared array of " + std::to_string(last - first) + " bytes: byte " + std::to_string(offset));
        }
        return first + offset;
    }
    char* raw(size_t bytes) const { return emulate::machine().shared_memory.base + locate(bytes); }
    T read() const {
        emulate::touch(emulate::machine().shared_memory, locate(sizeof(T)), sizeof(T), emulate::Access::Read);
        T value;
        std::memcpy(&value, raw(sizeof(T)), sizeof(T));
        return value;
    }
    void write(T value) const {
        emulate::touch(emulate::machine().shared_memory, locate(sizeof(T)), sizeof(T), emulate::Access::Write);
        std::memcpy(raw(sizeof(T)), &value, sizeof(T));
    }
    auto operator[](ptrdiff_t i) const { return emulate::Reference<Shared, T>{*this + i}; }
};

namespace emulate {

// ---- fibers -------------------------------------------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
extern "C" void emulate_switch(void** save, void* load);
#ifdef EMULATE_MAIN
asm(R"(
.text
.globl emulate_switch
.type emulate_switch,@function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulate_switch,.-emulate_switch
)");
#endif
#endif

inline void to_scheduler() {
    Machine& m = machine();
#if defined(__x86_64__)
    emulate_switch(&m.current->stack_pointer, m.scheduler);
#else
    swapcontext(&m.current->context, &m.scheduler_context);
#endif
}

inline void to_thread(Thread& thread) {
    Machine& m = machine();
    m.current = &thread;
#if defined(__x86_64__)
    emulate_switch(&m.scheduler, thread.stack_pointer);
#else
    swapcontext(&m.scheduler_context, &thread.context);
#endif
    m.current = nullptr;
}

inline void thread_main() {
    Machine& m = machine();
    try {
        m.body(m.argument);
    } catch (const Fault& fault) {
        if (m.fault.empty()) m.fault = fault.what;
    }
    m.current->wait = Wait::Done;
    to_scheduler();
    std::abort();  // a finished thread is never resumed
}

constexpr size_t STACK = 64 << 10;

inline void prepare(Thread& thread) {
    if (thread.stack.empty()) thread.stack.resize(STACK);
#if defined(__x86_64__)
    auto top = reinterpret_cast<uintptr_t>(thread.stack.data() + STACK) & ~uintptr_t(15);
    auto* slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // keeps the stack aligned as after a call
    *--slot = reinterpret_cast<void*>(&thread_main);
    for (int i = 0; i < 6; i++) *--slot = nullptr;
    thread.stack_pointer = slot;
#else
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, thread_main, 0);
#endif
}

// ---- barriers and warps -------------------------------------------------------------------------------------------------------------------------------

inline void wait_block(int line) {
    Thread& t = *machine().current;
    t.wait = Wait::Block;
    t.operation = "__syncthreads";
    t.line = line;
    to_scheduler();
}

// Waits until every lane of `mask` is here; whoever comes last does the work on all their data.
inline void wait_warp(const char* operation, int line, uint32_t mask, void* data) {
    Thread& t = *machine().current;
    if ((mask >> t.lane & 1) == 0) fail(std::string(operation) + " by a lane that its mask leaves out");
    t.wait = Wait::Warp;
    t.operation = operation;
    t.line = line;
    t.mask = mask;
    t.data = data;
    to_scheduler();
}

struct Shuffle {
    uint32_t value, result;
    unsigned source;
};
struct Vote {
    bool value;
    uint32_t result;
};
struct Matrices {
    Shared<uint16_t> row;
    bool transposed;
    uint32_t result[4];
};
struct Product {
    const uint32_t *a, *b;
    float* c;
};

inline float bf16_value(uint32_t bits) {
    bits <<= 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// PTX ISA, mma.m16n8k16: lane = 4 group + thread. A (16 x 16, row): register r holds row group + 8 (r odd), columns 2 thread + {0, 1} + 8 (r >= 2).
// B (16 x 8, column): register r holds rows 2 thread + {0, 1} + 8 r, column group. C (16 x 8): value i holds row group + 8 (i >= 2), column 2 thread + (i & 1).
inline void multiply(Thread* lanes[32]) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto& p = *static_cast<Product*>(lanes[lane]->data);
        const int group = lane / 4, thread = lane % 4;
        for (int r = 0; r < 4; r++) {
            for (int half = 0; half < 2; half++) a[group + 8 * (r & 1)][2 * thread + half + 8 * (r >> 1)] = bf16_value(p.a[r] >> 16 * half & 0xffff);
        }
        for (int r = 0; r < 2; r++) {
            for (int half = 0; half < 2; half++) b[2 * thread + half + 8 * r][group] = bf16_value(p.b[r] >> 16 * half & 0xffff);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        const auto& p = *static_cast<Product*>(lanes[lane]->data);
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + 8 * (i >> 1), column = 2 * (lane % 4) + (i & 1);
            float sum = p.c[i];
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            p.c[i] = sum;
        }
    }
}

// PTX ISA, ldmatrix.x4: lane 8 m + r gives the address of row r of matrix m; afterwards register m of a lane holds row lane / 4, columns 2 (lane % 4) + {0, 1}
// of matrix m, or with .trans those of its transpose.
inline void load_matrices(Thread* lanes[32]) {
    Machine& m = machine();
    uint16_t values[4][8][8];
    for (int lane = 0; lane < 32; lane++) {
        auto& data = *static_cast<Matrices*>(lanes[lane]->data);
        m.current = lanes[lane];
        const size_t offset = data.row.locate(16);
        aligned(data.row.raw(16), 16);
        touch(m.shared_memory, offset, 16, Access::Read);
        std::memcpy(values[lane / 8][lane % 8], m.shared_memory.base + offset, 16);
        m.current = nullptr;
    }
    for (int lane = 0; lane < 32; lane++) {
        auto& data = *static_cast<Matrices*>(lanes[lane]->data);
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4, column = 2 * (lane % 4);
            const uint32_t low = data.transposed ? values[i][column][row] : values[i][row][column];
            const uint32_t high = data.transposed ? values[i][column + 1][row] : values[i][row][column + 1];
            data.result[i] = low | high << 16;
        }
    }
}

inline void perform(const std::string& operation, Thread* lanes[32]) {
    if (operation == "mma" || operation == "ldmatrix") {
        for (int i = 0; i < 32; i++) {
            if (lanes[i] == nullptr) fail(operation + " needs all lanes of a warp");
        }
        operation == "mma" ? multiply(lanes) : load_matrices(lanes);
    } else if (operation == "shuffle") {
        for (int i = 0; i < 32; i++) {
            if (lanes[i] == nullptr) continue;
            auto& mine = *static_cast<Shuffle*>(lanes[i]->data);
            if (mine.source > 31 || lanes[mine.source] == nullptr) fail("a shuffle from a lane that takes no part");
            mine.result = static_cast<Shuffle*>(lanes[mine.source]->data)->value;
        }
    } else if (operation == "vote") {
        uint32_t votes = 0;
        for (int i = 0; i < 32; i++) {
            if (lanes[i] != nullptr && static_cast<Vote*>(lanes[i]->data)->value) votes |= 1u << i;
        }
        for (int i = 0; i < 32; i++) {
            if (lanes[i] != nullptr) static_cast<Vote*>(lanes[i]->data)->result = votes;
        }
    } else {
        for (int i = 0; i < 32; i++) {
            if (lanes[i] != nullptr) lanes[i]->warp_epoch++;
        }
    }
}

inline std::string waiting(const Thread& t) {
    if (t.wait == Wait::Done) return "thread " + std::to_string(t.linear) + " has ended";
    return "thread " + std::to_string(t.linear) + " waits at " + t.operation + " of line " + std::to_string(t.line);
}

// Lets warps go on whose lanes have all come to the same operation. True if one could.
inline bool release_warps() {
    Machine& m = machine();
    bool released = false;
    for (size_t first = 0; first < m.threads.size(); first += 32) {
        const size_t end = std::min(first + 32, m.threads.size());
        for (size_t i = first; i < end; i++) {
            Thread& t = m.threads[i];
            if (t.wait != Wait::Warp) continue;
            Thread* lanes[32] = {};
            bool complete = true;
            for (int lane = 0; lane < 32; lane++) {
                if ((t.mask >> lane & 1) == 0) continue;
                if (first + lane >= end) fail(std::string(t.operation) + " names lanes that the block does not have");
                Thread& other = m.threads[first + lane];
                const bool same = other.wait == Wait::Warp && other.operation == t.operation && other.line == t.line && other.mask == t.mask;
                complete = complete && same;
                lanes[lane] = &other;
            }
            if (!complete) continue;
            perform(t.operation, lanes);
            for (Thread* lane : lanes) {
                if (lane != nullptr) lane->wait = Wait::None;
            }
            released = true;
        }
    }
    return released;
}

inline bool release_block() {
    Machine& m = machine();
    for (const Thread& t : m.threads) {
        if (t.wait != Wait::Block || t.line != m.threads[0].line) return false;
    }
    m.block_epoch++;
    for (Thread& t : m.threads) t.wait = Wait::None;
    return true;
}

inline void run_block() {
    Machine& m = machine();
    m.block_epoch = 0;
    m.shared_used = 0;
    std::fill(m.shared_memory.cells.begin(), m.shared_memory.cells.end(), Cell{});
    std::memset(m.shared_memory.base, 0xff, m.shared_memory.bytes);  // not a number
    for (Thread& t : m.threads) {
        t.wait = Wait::None;
        t.warp_epoch = 0;
        t.copies = t.committed = 0;
        t.on_their_way.clear();
        prepare(t);
    }
    for (;;) {
        bool ended = true;
        // From the last to the first: no order that a kernel could rely on by accident.
        for (size_t i = m.threads.size(); i-- > 0;) {
            Thread& t = m.threads[i];
            if (t.wait == Wait::None) to_thread(t);
            if (!m.fault.empty()) return;
            ended = ended && t.wait == Wait::Done;
        }
        if (ended) return;
        if (release_warps() || release_block()) continue;
        const Thread* a = &m.threads[0];
        for (const Thread& t : m.threads) {
            if (t.wait != a->wait || t.line != a->line) {
                fail("threads part ways: " + waiting(*a) + ", " + waiting(t));
            }
        }
        fail("threads wait for ever: " + waiting(*a));
    }
}

// ---- launching ----------------------------------------------------------------------------------------------------------------------------------------

using Invoker = void (*)(void**);
struct Kernel {
    void (*run)(const void* function, void** arguments);
    const void* function;
    std::vector<size_t> sizes;
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

struct Registered {
    Registered(const char* name, Kernel kernel) { kernels()[name] = kernel; }
};

template <class... A, size_t... I>
void call(void (*function)(A...), void** arguments, std::index_sequence<I...>) {
    function(*static_cast<A*>(arguments[I])...);
}

template <class... A>
Kernel invoker(void (*function)(A...)) {
    auto run = [](const void* function, void** arguments) {
        call(reinterpret_cast<void (*)(A...)>(const_cast<void*>(function)), arguments, std::index_sequence_for<A...>());
    };
    return {run, reinterpret_cast<const void*>(function), {sizeof(A)...}};
}

struct Call {
    const Kernel* kernel;
    void** arguments;
};

inline void launch(const char* name, Dim grid, Dim block, size_t shared, void** arguments, const size_t* sizes, size_t count) {
    Machine& m = machine();
    m.kernel = name;
    const auto found = kernels().find(name);
    if (found == kernels().end()) fail("no such kernel");
    const Kernel& kernel = found->second;
    if (kernel.sizes != std::vector<size_t>(sizes, sizes + count)) {
        std::string what = "arguments do not fit; the kernel's sizes are";
        for (size_t size : kernel.sizes) what += " " + std::to_string(size);
        what += ", the launch's";
        for (size_t i = 0; i < count; i++) what += " " + std::to_string(sizes[i]);
        fail(what);
    }
    if (block.x * block.y * block.z > 1024 || block.x * block.y * block.z == 0) fail("a block has 1 to 1024 threads");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) fail("a grid that no GPU takes");
    if (shared > 99 * 1024) fail("more shared memory than every GPU from sm_80 on has (99 KiB)");
    for (auto& region : m.global) {
        for (Cell& cell : region->cells) cell.writer = cell.reader = Touch{};
    }
    std::vector<char> memory(shared + 16);
    m.shared_memory.base = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) & ~uintptr_t(15));
    m.shared_memory.bytes = shared;
    m.shared_memory.name = "shared memory";
    m.shared_memory.shared = true;
    m.shared_memory.cells.assign(shared / GRAIN + 1, Cell{});
    m.grid = grid;
    m.block = block;
    m.launches++;
    Call arguments_of{&kernel, arguments};
    m.argument = &arguments_of;
    m.body = [](void* p) {
        auto* c = static_cast<Call*>(p);
        c->kernel->run(c->kernel->function, c->arguments);
    };
    m.threads.resize(block.x * block.y * block.z);
    for (uint32_t i = 0; i < m.threads.size(); i++) {
        Thread& t = m.threads[i];
        t.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        t.linear = i;
        t.warp = i / 32;
        t.lane = i % 32;
    }
    const uint32_t blocks = grid.x * grid.y * grid.z;
    for (uint32_t i = blocks; i-- > 0;) {  // from the last to the first, as above
        m.block_number = i;
        m.block_index = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
        run_block();
        if (!m.fault.empty()) throw Fault{m.fault};
    }
}

}  // namespace emulate

// ---- what kernels see ---------------------------------------------------------------------------------------------------------------------------------

#define threadIdx (emulate::machine().current->index)
#define blockIdx (emulate::machine().block_index)
#define blockDim (emulate::machine().block)
#define gridDim (emulate::machine().grid)
#define __syncthreads() emulate::wait_block(__LINE__)
#define __syncwarp() emulate::wait_warp("__syncwarp", __LINE__, 0xffffffff, nullptr)
#define shuffle_xor(value, lanes) emulate::exchange(value, emulate::machine().current->lane ^ (lanes), __LINE__)
#define shuffle(value, lane) emulate::exchange(value, lane, __LINE__)
#define vote_all(value) (emulate::vote(value, __LINE__) == 0xffffffff)
#define vote_any(value) (emulate::vote(value, __LINE__) != 0)

namespace emulate {

template <class T>
T exchange(T value, unsigned source, int line) {
    static_assert(sizeof(T) == 4, "shuffles move 32 bits");
    Shuffle data{0, 0, source};
    std::memcpy(&data.value, &value, 4);
    wait_warp("shuffle", line, 0xffffffff, &data);
    std::memcpy(&value, &data.result, 4);
    return value;
}

inline uint32_t vote(bool value, int line) {
    Vote data{value, 0};
    wait_warp("vote", line, 0xffffffff, &data);
    return data.result;
}

}  // namespace emulate

struct Vec16 {
    uint32_t w[4];
};

// Shared memory of a block, handed out piece by piece.
struct SharedRoom {
    size_t used = 0;
    template <class T>
    Shared<T> take(int count) {
        const size_t bytes = count * sizeof(T), room = emulate::machine().shared_memory.bytes;
        if (used + bytes > room) emulate::fail("the launch gives " + std::to_string(room) + " bytes of shared memory, not " + std::to_string(used + bytes));
        const Shared<T> array(used, used + bytes);
        used += (bytes + 15) / 16 * 16;
        return array;
    }
};

template <class T>
Vec16 load16(Global<T> p) {
    emulate::aligned(p.raw(), 16);
    emulate::touch_global(p.raw(), 16, emulate::Access::Read);
    Vec16 value;
    std::memcpy(&value, p.raw(), 16);
    return value;
}

template <class T>
void store16(Global<T> p, Vec16 value) {
    emulate::aligned(p.raw(), 16);
    emulate::touch_global(p.raw(), 16, emulate::Access::Write);
    std::memcpy(p.raw(), &value, 16);
}

template <class T>
void store4(Global<T> p, uint32_t value) {
    emulate::aligned(p.raw(), 4);
    emulate::touch_global(p.raw(), 4, emulate::Access::Write);
    std::memcpy(p.raw(), &value, 4);
}

template <class T>
bool is_aligned16(Global<T> p) {
    return reinterpret_cast<uintptr_t>(p.raw()) % 16 == 0;
}

template <class T>
void atomic_add(Global<T> p, T value) {
    emulate::touch_global(p.raw(), sizeof(T), emulate::Access::Atomic);
    *p.raw() += value;
}

// An immediate copy of 16 bytes (zeros where not `valid`), which nobody may look at before it has been waited for.
template <class T>
void copy_async16(Shared<T> to, Global<const T> from, bool valid) {
    emulate::Machine& m = emulate::machine();
    const size_t offset = to.locate(16);
    emulate::aligned(to.raw(16), 16);
    emulate::touch(m.shared_memory, offset, 16, emulate::Access::Write);
    if (valid) {
        emulate::aligned(from.raw(), 16);
        emulate::touch_global(from.raw(), 16, emulate::Access::Read);
        std::memcpy(to.raw(16), from.raw(), 16);
    } else {
        std::memset(to.raw(16), 0, 16);
    }
    emulate::Thread& t = *m.current;
    t.on_their_way.push_back({offset / emulate::GRAIN, (offset + 16) / emulate::GRAIN, t.committed + 1});
    for (size_t i = offset / emulate::GRAIN; i < (offset + 16) / emulate::GRAIN; i++) m.shared_memory.cells[i].pending = t.committed + 1;
}

inline void commit_copies() { emulate::machine().current->committed++; }

template <int LEFT>
void wait_copies() {
    emulate::Machine& m = emulate::machine();
    emulate::Thread& t = *m.current;
    auto done = [&](const emulate::Thread::Copy& copy) { return copy.group + LEFT <= t.committed; };
    for (const auto& copy : t.on_their_way) {
        if (!done(copy)) continue;
        for (size_t i = copy.first; i < copy.last; i++) {
            m.shared_memory.cells[i].pending = 0;
            m.shared_memory.cells[i].writer = emulate::now(false);
        }
    }
    t.on_their_way.erase(std::remove_if(t.on_their_way.begin(), t.on_their_way.end(), done), t.on_their_way.end());
}

template <class T>
void load_matrices_at(Shared<T> row, bool transposed, uint32_t (&out)[4], int line) {
    static_assert(sizeof(T) == 2, "ldmatrix moves 16-bit values");
    emulate::Matrices data{row.template as<uint16_t>(), transposed, {}};
    emulate::wait_warp("ldmatrix", line, 0xffffffff, &data);
    std::memcpy(out, data.result, sizeof out);
}
#define load_matrices(row, out) load_matrices_at(row, false, out, __LINE__)
#define load_matrices_transposed(row, out) load_matrices_at(row, true, out, __LINE__)

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    emulate::Product data{a, b, c};
    emulate::wait_warp("mma", __LINE__, 0xffffffff, &data);
}

inline uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float bits_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// To the nearest bf16, ties to even; not a number stays so.
inline uint32_t to_bf16_bits(float x) {
    const uint32_t bits = float_bits(x);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) { return to_bf16_bits(low) | to_bf16_bits(high) << 16; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

// ---- the door for the tests ---------------------------------------------------------------------------------------------------------------------------

#ifdef EMULATE_MAIN
#pragma GCC visibility push(default)
extern "C" {
// Hands a buffer to the launches to come. `written`: it holds values.
void emulate_buffer(void* base, size_t bytes, const char* name, int written) {
    auto region = std::make_unique<emulate::Region>();
    region->base = static_cast<char*>(base);
    region->bytes = bytes;
    region->name = name;
    region->shared = false;
    region->cells.assign((bytes + emulate::GRAIN - 1) / emulate::GRAIN, emulate::Cell{});
    for (auto& cell : region->cells) cell.written = written != 0;
    emulate::machine().global.push_back(std::move(region));
}

// Bytes of a buffer that nobody wrote.
size_t emulate_unwritten(const void* base) {
    for (auto& region : emulate::machine().global) {
        if (region->base != base) continue;
        size_t count = 0;
        for (auto& cell : region->cells) count += cell.written ? 0 : emulate::GRAIN;
        return count;
    }
    return SIZE_MAX;
}

void emulate_forget() { emulate::machine().global.clear(); }

// 0, or 1 with what went wrong in `message`.
int emulate_launch(const char* name, const unsigned* grid, const unsigned* block, size_t shared, void** arguments, const size_t* sizes, size_t count, char* message,
                   size_t capacity) {
    emulate::Machine& m = emulate::machine();
    m.fault.clear();
    m.current = nullptr;
    try {
        emulate::launch(name, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, arguments, sizes, count);
        return 0;
    } catch (const emulate::Fault& fault) {
        std::snprintf(message, capacity, "%s", fault.what.c_str());
        m.current = nullptr;
        return 1;
    }
}
}
#pragma GCC visibility pop
#endif
