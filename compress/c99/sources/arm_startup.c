/* From reset to main on QEMU's boards mps2 and mps3; without a floating-point unit the first write does nothing. */

#include <stdint.h>
#include <stdlib.h>

extern unsigned char bss_start[], bss_end[], stack_top[];
extern void initialise_monitor_handles(void);
int main(void);

void reset(void);
void fault(void);

/* What exit() calls and start files would bring. */
void _fini(void);
void _fini(void) {
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* the floating-point unit */
    __asm__ volatile("dsb\n isb");
    for (unsigned char *p = bss_start; p < bss_end; p++) {
        *p = 0;
    }
    initialise_monitor_handles();
    exit(main());
}

void fault(void) {
    _Exit(70);
}

typedef void (*Vector)(void);
__attribute__((section(".vectors"), used)) static const Vector vectors[16] = {
    (Vector)(uintptr_t)stack_top, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};
