#include "cpu.h"

#include <stdexcept>

#if defined(RECUR_X86)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace recur {
namespace {

#if defined(RECUR_X86)

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned part) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(part));
    r = {static_cast<unsigned>(out[0]), static_cast<unsigned>(out[1]), static_cast<unsigned>(out[2]),
         static_cast<unsigned>(out[3])};
#else
    __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

// What the operating system keeps of each thread's registers: without that no wide ones may be used.
unsigned long long saved_registers() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

bool bit(unsigned word, int place) { return (word >> place) & 1u; }

#endif

std::vector<const Kernels*> probe() {
    std::vector<const Kernels*> found = {kernels_plain()};
#if defined(RECUR_X86)
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
    [[maybe_unused]] const Registers more = cpuid(7, 1);
    if (!bit(one.c, 27)) return found;  // OSXSAVE: XGETBV is there
    const unsigned long long saved = saved_registers();
    const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
    if (!ymm || !bit(one.c, 12) || !bit(seven.b, 5)) return found;  // FMA, AVX2
    found.push_back(kernels_avx2());
    // AVX512F, DQ, BW, VL
    if (!zmm || !bit(seven.b, 16) || !bit(seven.b, 17) || !bit(seven.b, 30) || !bit(seven.b, 31)) return found;
#if defined(RECUR_EVERY_KERNEL)
    found.push_back(kernels_avx512());
#endif
    if (!bit(seven.c, 11)) return found;
    // The bfloat16 products of the first processors that have them run at half the rate of float32 (44 against 87
    // billion multiplications a second on Emerald Rapids): widening is faster, so this one has to be asked for.
#if defined(RECUR_EVERY_KERNEL)
    if (bit(more.a, 5)) found.push_back(kernels_avx512_bf16());
#endif
    found.push_back(kernels_avx512_vnni());
#elif defined(RECUR_ARM64)
    found.push_back(kernels_neon());
#endif
    return found;
}

}  // namespace

const std::vector<const Kernels*>& usable_kernels() {
    static const std::vector<const Kernels*> found = probe();
    return found;
}

const Kernels* find_kernels(const std::string& name) {
    const auto& all = usable_kernels();
    if (name.empty()) return all.back();
    std::string names;
    for (const Kernels* each : all) {
        if (name == each->name) return each;
        names += (names.empty() ? "" : ", ") + std::string(each->name);
    }
    throw std::invalid_argument("isa '" + name + "'; expected one of " + names + "; choose one that this machine has");
}

}  // namespace recur
