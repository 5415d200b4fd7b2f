// Fibers: what a lane runs on. A switch saves the registers that a call must keep and takes those of the other stack; no system call.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>

extern "C" void roxanne_host_switch(void** save, void* resume);
extern "C" void roxanne_host_start();

#if defined(__x86_64__)
asm(".text\n"
    ".p2align 4\n"
    ".hidden roxanne_host_switch\n"
    ".globl roxanne_host_switch\n"
    ".type roxanne_host_switch, @function\n"
    "roxanne_host_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size roxanne_host_switch, . - roxanne_host_switch\n"
    ".hidden roxanne_host_start\n"
    ".globl roxanne_host_start\n"
    ".type roxanne_host_start, @function\n"
    "roxanne_host_start:\n"
    "  callq *%rbx\n"
    "  ud2\n"
    ".size roxanne_host_start, . - roxanne_host_start\n");
#elif defined(__aarch64__)
asm(".text\n"
    ".p2align 4\n"
    ".hidden roxanne_host_switch\n"
    ".globl roxanne_host_switch\n"
    ".type roxanne_host_switch, %function\n"
    "roxanne_host_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size roxanne_host_switch, . - roxanne_host_switch\n"
    ".hidden roxanne_host_start\n"
    ".globl roxanne_host_start\n"
    ".type roxanne_host_start, %function\n"
    "roxanne_host_start:\n"
    "  blr x19\n"
    "  brk #1\n"
    ".size roxanne_host_start, . - roxanne_host_start\n");
#else
#error "kernels/host/fiber.h knows x86-64 and aarch64; add the switch of this processor"
#endif

namespace host {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr size_t PAGE_BYTES = 64 << 10; // the largest page of any Linux, so that guards are whole pages

/// Stacks for `count` lanes, each above a page that may not be touched. Null when there is no memory.
inline char* map_stacks(size_t count) {
    size_t each = STACK_BYTES + PAGE_BYTES;
    void* base = mmap(nullptr, count * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    for (size_t i = 0; i < count; i++) {
        if (mprotect(static_cast<char*>(base) + i * each, PAGE_BYTES, PROT_NONE) != 0) return nullptr;
    }
    return static_cast<char*>(base);
}

/// The state from which a switch enters `run` on stack `index`; `run` must never return.
inline void* fresh_fiber(char* stacks, size_t index, void (*run)()) {
    uint64_t* top = reinterpret_cast<uint64_t*>(stacks + (index + 1) * (STACK_BYTES + PAGE_BYTES));
#if defined(__x86_64__)
    // r15 r14 r13 r12 rbx rbp, the return address, and two words, so that `start` calls on an aligned stack.
    uint64_t* frame = top - 9;
    for (int i = 0; i < 9; i++) frame[i] = 0;
    frame[4] = reinterpret_cast<uint64_t>(run);
    frame[6] = reinterpret_cast<uint64_t>(&roxanne_host_start);
#else
    // x19 .. x30, d8 .. d15.
    uint64_t* frame = top - 20;
    for (int i = 0; i < 20; i++) frame[i] = 0;
    frame[0] = reinterpret_cast<uint64_t>(run);
    frame[11] = reinterpret_cast<uint64_t>(&roxanne_host_start);
#endif
    return frame;
}

} // namespace host
