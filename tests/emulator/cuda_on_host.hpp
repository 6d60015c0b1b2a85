// CUDA C++ on the host, as much of it as kernels/*.cu use.
//
// Every CUDA thread of a block is an OS thread, made once a launch, or a fiber where EMULATOR_FIBERS is
// set: quick, but no race is seen. Kernels with barriers run one block after another; the others (`independent`) let each thread run through all blocks on its own,
// so that ThreadSanitizer also sees two blocks writing the same byte.
//   __syncthreads        barrier of the block; a thread that has returned no longer counts
//   warp operations      barrier of the warp; all threads of the warp must take part
//   __shared__           a static, as blocks do not overlap (no dynamic shared memory)
//   atomics              std::atomic_ref
// Include this first: it defines words that system headers use too.
#pragma once

#include <atomic>
#include <barrier>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>
#ifdef EMULATOR_FIBERS
#include <csetjmp>
#include <cstdint>
#include <ucontext.h>
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static thread_local constinit dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

using u64 = unsigned long long;

#ifdef EMULATOR_FIBERS
// The threads of a block as fibers of one OS thread, which take turns at barriers: no waiting for
// the system to schedule each of them. Plain builds only: a race needs threads to be seen.
class Fibers {
  public:
    // Run body(0) ... body(n - 1); each may yield.
    void run(unsigned n, const std::function<void(unsigned)>& body) {
        if (fibers_.size() < n) fibers_.resize(n);
        body_ = &body;
        left_ = n;
        for (unsigned i = 0; i < fibers_.size(); ++i) fibers_[i].done = i >= n;
        for (unsigned i = 0; i < n; ++i) prepare(i);
        current_ = 0;
        if (_setjmp(caller_) == 0) _longjmp(fibers_[0].place, 1);
    }
    // Let the next one that is not done go on.
    void yield() {
        const unsigned mine = current_;
        current_ = next();
        if (current_ == mine) return;
        if (_setjmp(fibers_[mine].place) == 0) _longjmp(fibers_[current_].place, 1);
        threadIdx.x = mine;
    }

  private:
    static constexpr std::size_t STACK = 256 << 10;
    struct Fiber {
        jmp_buf place;
        std::unique_ptr<char[]> stack;
        bool done;
    };
    std::vector<Fiber> fibers_;
    unsigned current_ = 0, left_ = 0;
    const std::function<void(unsigned)>* body_ = nullptr;
    jmp_buf caller_;
    ucontext_t back_;

    unsigned next() const {
        unsigned i = current_;
        do i = i + 1 < fibers_.size() ? i + 1 : 0;
        while (fibers_[i].done);
        return i;
    }
    // Enter a stack of its own and come back at once; `place` is there from then on.
    void prepare(unsigned index) {
        Fiber& fiber = fibers_[index];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = fiber.stack.get();
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        const auto address = reinterpret_cast<std::uintptr_t>(this);
        makecontext(&context, reinterpret_cast<void (*)()>(&enter), 3, index,
                    unsigned(address >> 32), unsigned(address));
        swapcontext(&back_, &context);
    }
    static void enter(unsigned index, unsigned high, unsigned low) {
        Fibers& self = *reinterpret_cast<Fibers*>(std::uintptr_t(high) << 32 | low);
        if (_setjmp(self.fibers_[index].place) == 0) setcontext(&self.back_);
        (*self.body_)(index);
        self.fibers_[index].done = true;
        if (--self.left_ == 0) _longjmp(self.caller_, 1);
        self.current_ = self.next();
        _longjmp(self.fibers_[self.current_].place, 1);
    }
};
static Fibers fibers;

class Barrier {
  public:
    explicit Barrier(unsigned n) : expected_(n) {}
    void arrive_and_wait() {
        const unsigned before = generation_;
        if (++arrived_ == expected_) complete();
        while (generation_ == before) fibers.yield();
    }
    void arrive_and_drop() {
        if (--expected_ == arrived_ && arrived_) complete();
    }

  private:
    unsigned expected_, arrived_ = 0, generation_ = 0;
    void complete() {
        arrived_ = 0;
        ++generation_;
    }
};
#else
typedef std::barrier<> Barrier;
#endif

struct Warp {
    std::optional<Barrier> barrier;
    u64 slots[32];
};

// The barriers of the block that runs now.
struct Block {
    unsigned n_threads;
    std::optional<Barrier> barrier;
    std::vector<Warp> warps;

    explicit Block(unsigned n) : n_threads(n), warps((n + 31) / 32) { start(); }
    void start() {
        barrier.emplace(n_threads);
        for (unsigned w = 0; w < warps.size(); ++w)
            warps[w].barrier.emplace(std::min(32u, n_threads - 32 * w));
    }
    void leave(unsigned thread) {
        (void)warps[thread / 32].barrier->arrive_and_drop();
        (void)barrier->arrive_and_drop();
    }
};

static thread_local constinit Block* block = nullptr;  // null while blocks are independent

inline Block& current_block() {
    if (block) return *block;
    std::fprintf(stderr, "emulator: barrier in a kernel launched as independent\n");
    std::abort();
}
inline unsigned lane() { return threadIdx.x % 32; }
inline void sync_warp() { current_block().warps[threadIdx.x / 32].barrier->arrive_and_wait(); }

// Each thread of the warp shows 8 bytes to the others; `read` sees all 32.
template <typename Read>
auto exchange(u64 mine, Read read) {
    Warp& warp = current_block().warps[threadIdx.x / 32];
    warp.slots[lane()] = mine;
    sync_warp();
    const auto result = read(warp.slots);
    sync_warp();
    return result;
}
template <typename T>
T shuffle(T value, unsigned from) {
    static_assert(sizeof(T) <= 8);
    u64 bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(bits, [&](const u64* slots) { return slots[from % 32]; });
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

struct Launch {
    unsigned grid, block;
    bool independent;
};

template <typename... P, std::size_t... I>
std::tuple<P...> read_arguments(void** args, std::index_sequence<I...>) {
    return {*static_cast<P*>(args[I])...};
}

#ifdef EMULATOR_FIBERS
template <typename... P>
void run(void (*kernel)(P...), const Launch& launch, void** args) {
    const auto values = read_arguments<P...>(args, std::index_sequence_for<P...>{});
    Block shared(launch.block);
    blockDim.x = launch.block;
    gridDim.x = launch.grid;
    block = launch.independent ? nullptr : &shared;
    const std::function<void(unsigned)> body = [&](unsigned index) {
        threadIdx.x = index;
        std::apply(kernel, values);
        if (!launch.independent) shared.leave(index);
    };
    for (unsigned b = 0; b < launch.grid; ++b) {
        blockIdx.x = b;
        shared.start();
        if (!launch.independent) fibers.run(launch.block, body);
        for (unsigned i = 0; launch.independent && i < launch.block; ++i) body(i);
    }
}
#else
template <typename... P>
void run(void (*kernel)(P...), const Launch& launch, void** args) {
    const auto values = read_arguments<P...>(args, std::index_sequence_for<P...>{});
    Block shared(launch.block);
    auto next_block = [&]() noexcept { shared.start(); };
    std::barrier<decltype(next_block)> between(launch.block, next_block);
    auto thread = [&](unsigned index) {
        blockDim.x = launch.block;
        gridDim.x = launch.grid;
        block = launch.independent ? nullptr : &shared;
        for (unsigned b = 0; b < launch.grid; ++b) {
            blockIdx.x = b;
            // Thread i of two blocks must not be one OS thread, or it could not race with itself.
            threadIdx.x = launch.independent ? (index + 33 * b) % launch.block : index;
            std::apply(kernel, values);
            if (launch.independent) continue;
            shared.leave(index);
            between.arrive_and_wait();
        }
    };
    threadIdx = blockIdx = {0, 0, 0};
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < launch.block; ++i) {
        threads.emplace_back([&, i] {
            threadIdx = blockIdx = {0, 0, 0};
            thread(i);
        });
    }
}

#endif

// ------------------------------------------------------------------ stand-alone programs
// The sanitizers' runtimes do not load into Python, so their builds are programs: they read a
// launch and its memory from a file (tests/emulator/standalone.py), run it, and write the memory
// back. Each allocation is one of exactly its size, so that AddressSanitizer guards its ends.

struct Entry {
    const char* name;
    void (*function)(const Launch&, void**);
};

inline u64 read_u64(std::istream& file) {
    u64 value = 0;
    file.read(reinterpret_cast<char*>(&value), 8);
    return value;
}

template <std::size_t N>
int run_file(const Entry (&entries)[N], const char* input, const char* output) {
    std::ifstream file(input, std::ios::binary);
    std::vector<std::pair<char*, u64>> memory(read_u64(file));
    for (auto& [data, nbytes] : memory) {
        nbytes = read_u64(file);
        void* p = nullptr;
        if (posix_memalign(&p, 256, nbytes)) return 3;
        data = static_cast<char*>(p);
        file.read(data, std::streamsize(nbytes));
    }
    for (u64 n = read_u64(file); n > 0; --n) {  // addresses inside of tables
        const u64 where = read_u64(file), offset = read_u64(file);
        const u64 target = read_u64(file), target_offset = read_u64(file);
        const u64 address = reinterpret_cast<u64>(memory[target].first) + target_offset;
        std::memcpy(memory[where].first + offset, &address, 8);
    }
    std::string name(read_u64(file), ' ');
    file.read(name.data(), std::streamsize(name.size()));
    const unsigned grid = unsigned(read_u64(file)), threads = unsigned(read_u64(file));
    const Launch launch{grid, threads, read_u64(file) != 0};
    std::vector<u64> values(read_u64(file));
    std::vector<void*> args;
    for (u64& value : values) {
        const bool is_address = read_u64(file) != 0;
        const u64 first = read_u64(file), second = read_u64(file);
        value = is_address ? reinterpret_cast<u64>(memory[first].first) + second : first;
        args.push_back(&value);
    }
    if (!file) return 3;
    bool found = false;
    for (const Entry& entry : entries) {
        if (name != entry.name) continue;
        entry.function(launch, args.data());
        found = true;
    }
    std::ofstream result(output, std::ios::binary);
    for (auto& [data, nbytes] : memory) {
        result.write(data, std::streamsize(nbytes));
        std::free(data);
    }
    return found && result ? 0 : 3;
}

}  // namespace emulator

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

inline void __syncthreads() { emulator::current_block().barrier->arrive_and_wait(); }
inline void __syncwarp(unsigned = ~0u) { emulator::sync_warp(); }
template <typename T>
T __shfl_sync(unsigned, T value, unsigned from) {
    return emulator::shuffle(value, from);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
    const unsigned from = emulator::lane() + delta;
    return emulator::shuffle(value, from < 32 ? from : emulator::lane());
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
    const unsigned lane = emulator::lane();
    return emulator::shuffle(value, lane >= delta ? lane - delta : lane);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
    return emulator::shuffle(value, emulator::lane() ^ mask);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const unsigned votes = emulator::exchange(predicate != 0, [](const auto* slots) {
        const unsigned warp = threadIdx.x / 32;
        const unsigned n = std::min(32u, blockDim.x - 32 * warp);
        unsigned bits = 0;
        for (unsigned i = 0; i < n; ++i) bits |= unsigned(slots[i]) << i;
        return bits;
    });
    return votes & mask;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <typename T>
T atomicAdd(T* p, T value) {
    return std::atomic_ref<T>(*p).fetch_add(value);
}
template <typename T>
T atomicOr(T* p, T value) {
    return std::atomic_ref<T>(*p).fetch_or(value);
}
template <typename T>
T atomicExch(T* p, T value) {
    return std::atomic_ref<T>(*p).exchange(value);
}
template <typename T>
T atomicCAS(T* p, T expected, T value) {
    std::atomic_ref<T>(*p).compare_exchange_strong(expected, value);
    return expected;
}
template <typename T>
T atomicMax(T* p, T value) {
    std::atomic_ref<T> ref(*p);
    T old = ref.load();
    while (old < value && !ref.compare_exchange_weak(old, value)) {
    }
    return old;
}

template <typename T>
T __ldg(const T* p) {
    return *p;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((emulator::u64(high) << 32) | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const emulator::u64 bytes = (emulator::u64(y) << 32) | x;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; ++i)
        result |= unsigned((bytes >> (8 * ((selector >> (4 * i)) & 7))) & 0xff) << (8 * i);
    return result;
}
inline emulator::u64 __umul64hi(emulator::u64 a, emulator::u64 b) {
    return emulator::u64((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline float __fmul_rn(float a, float b) { return a * b; }  // built with -ffp-contract=off
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (unsigned i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
